"""Farms in simulated time, with the real scheduler and planner. Used by tests and benchmarks; nothing of it ships."""
