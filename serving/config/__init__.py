"""The settings of a farm: farm.yaml, environment, pool terms."""
