"""Series that alerts are made of. A farm is a cluster and a namespace, a pool one of its pools.

Replicas of the exporter say the same of the farm, so of a gauge the largest is taken.
"""

from dashboards.rules import Recording

RECORDINGS = (
    Recording(
        "pool:longtake_pool_backlog_gpu_seconds:max",
        "max by (cluster, namespace, pool) (longtake_pool_backlog_gpu_seconds)",
    ),
    Recording(
        "pool:longtake_calls_done:increase20m",
        'sum by (cluster, namespace, pool) (increase(longtake_calls_total{outcome="done"}[20m]))',
    ),
    Recording(
        "pool:longtake_gpu_seconds_wasted:increase1h",
        'sum by (cluster, namespace, pool) (increase(longtake_gpu_seconds_total{use="wasted"}[1h]))',
    ),
    Recording(
        "pool:longtake_gpu_seconds_wasted:ratio_increase1h",
        """
pool:longtake_gpu_seconds_wasted:increase1h
/ sum by (cluster, namespace, pool) (increase(longtake_gpu_seconds_total[1h]))
""",
    ),
    Recording(
        "farm:longtake_api_requests:rate5m",
        "sum by (cluster, namespace) (rate(longtake_api_request_seconds_count[5m]))",
    ),
    Recording(
        "farm:longtake_api_request_errors:ratio_rate5m",
        """
sum by (cluster, namespace) (rate(longtake_api_request_seconds_count{code="5xx"}[5m]))
/ farm:longtake_api_requests:rate5m
""",
    ),
    Recording(
        "farm:longtake_spent_usd:increase1h", "sum by (cluster, namespace) (increase(longtake_spent_usd_total[1h]))"
    ),
    Recording(
        "farm:longtake_spent_usd:increase1d", "sum by (cluster, namespace) (increase(longtake_spent_usd_total[1d]))"
    ),
    Recording(
        "farm:longtake_spend_limit_usd_per_day:max",
        "max by (cluster, namespace) (longtake_spend_limit_usd_per_day)",
    ),
)
