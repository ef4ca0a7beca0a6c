"""The farm: storyboard to film. May import sharding; of cluster only its contract and planner."""
