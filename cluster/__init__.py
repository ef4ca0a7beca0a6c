"""Kubernetes: pools, topology, capacity, drain. Knows neither Ray actors nor torch."""
