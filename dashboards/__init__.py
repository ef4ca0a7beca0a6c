"""Grafana's dashboards and Prometheus' rules of the farm, as data. `python -m dashboards` writes them into the chart.

What it writes, below helm/longtake/, is committed and is the only copy. Nothing here runs in a farm.
"""
