"""The farm as client commands see it: its API over HTTP, and the events of a job as they come."""
