"""Reading YAML and JSON with the place of everything, for storyboards, farm.yaml and requests."""
