"""Faults that real farms meet, and what must be true afterwards."""
