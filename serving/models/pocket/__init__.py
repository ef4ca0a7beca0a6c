"""Pocket: the small video model that ships with longtake, and how it was trained."""
