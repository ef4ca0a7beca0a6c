"""A render on one machine: gangs as processes, the finisher, progress."""
