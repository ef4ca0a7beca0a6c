"""The scheduler: which call goes to which gang, when a film will be done, what a failure means. Pure."""
