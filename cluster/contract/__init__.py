"""What the farm and the cluster agree on: pools and nodes, the planner, the form of a log line."""
