"""The command line: `longtake render`, `plan`, `schema`, `models`, `doctor`. torch is imported only when needed."""
