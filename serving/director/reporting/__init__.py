"""What a Director reports of its work: metrics to Prometheus, supply and costs for quotes, log lines to the store."""
