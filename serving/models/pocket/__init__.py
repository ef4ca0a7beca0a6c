"""Pocket: the small text-to-video model that ships with longtake, and how it was trained."""
