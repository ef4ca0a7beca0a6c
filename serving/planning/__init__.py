"""From a storyboard to what it takes to render: takes, chunks, calls, content keys. Pure."""
