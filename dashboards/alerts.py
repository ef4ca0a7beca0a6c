"""What is worth an alert: first what makers notice, then what they will notice soon. Each has a runbook of its name.

Thresholds are for a farm whose calls take seconds to minutes. Change them here, or silence an alert and write your own.
"""

from dashboards.rules import Alert

_POOL = "pool {{ $labels.pool }}{{ with $labels.namespace }} of {{ . }}{{ end }}"
_FARM = "{{ with $labels.namespace }}{{ . }}{{ else }}the farm{{ end }}"

WORK = (
    Alert(
        "LongtakeNoProgress",
        "critical",
        """
pool:longtake_pool_backlog_gpu_seconds:max > 0
unless pool:longtake_calls_done:increase20m > 0
""",
        "10m",
        "A pool has work, and no call of it was done for a long time.",
        f"{{{{ $value | humanizeDuration }}}} of GPU time wait for {_POOL}, and no call was done for 20 minutes.",
    ),
    Alert(
        "LongtakeBacklogGrowing",
        "warning",
        """
deriv(pool:longtake_pool_backlog_gpu_seconds:max[30m]) > 0
and pool:longtake_pool_backlog_gpu_seconds:max > 3600
""",
        "1h",
        "More work comes than a pool can do.",
        f"The backlog of {_POOL} has grown for an hour, by {{{{ $value | humanize }}}} GPU-seconds each second.",
    ),
    Alert(
        "LongtakeDueTimesAtRisk",
        "warning",
        "max by (cluster, namespace, pool) (longtake_pool_jobs_at_risk) > 0",
        "10m",
        "Jobs will probably miss their due time.",
        f"{{{{ $value }}}} jobs of {_POOL} will probably be late.",
    ),
    Alert(
        "LongtakeDueTimesMissed",
        "warning",
        'sum by (cluster, namespace, pool) (increase(longtake_due_times_total{outcome="missed"}[1h])) > 0',
        "0m",
        "Jobs were done after their due time, or not at all.",
        f"{{{{ $value | humanize }}}} jobs of {_POOL} missed their due time in the last hour.",
    ),
)

GANGS = (
    Alert(
        "LongtakeGangsCrashLooping",
        "critical",
        'sum by (cluster, namespace, pool) (increase(longtake_gangs_lost_total{reason=~"died|hung|broken"}[30m])) > 4',
        "5m",
        "Gangs die, hang or break again and again.",
        f"{{{{ $value | humanize }}}} gangs of {_POOL} were lost to faults in 30 minutes.",
    ),
    Alert(
        "LongtakeGangsFlapping",
        "warning",
        """
sum by (cluster, namespace, pool) (increase(longtake_gangs_started_total[1h]))
> 3 * clamp_min(max by (cluster, namespace, pool) (max_over_time(longtake_pool_gangs_wanted[1h])), 1)
""",
        "15m",
        "Gangs come and go, and pay for their start each time.",
        f"{{{{ $value | humanize }}}} gangs of {_POOL} came in an hour, over three times as many as were ever wanted.",
    ),
    Alert(
        "LongtakeGpuSecondsWasted",
        "warning",
        """
pool:longtake_gpu_seconds_wasted:ratio_increase1h > 0.2
and pool:longtake_gpu_seconds_wasted:increase1h > 600
""",
        "15m",
        "Much GPU time is spent on calls that come to nothing.",
        f"{{{{ $value | humanizePercentage }}}} of the GPU time of {_POOL} was wasted in the last hour.",
    ),
    Alert(
        "LongtakeDemandUnknown",
        "critical",
        "absent(longtake_demand_timestamp_seconds)",
        "5m",
        "Prometheus has no demand of any pool: no Director, or nothing scrapes it.",
        "No Director says what its pools need. What scales by it stands still, and other alerts are silent.",
    ),
    Alert(
        "LongtakeDemandStale",
        "critical",
        """
time() - max by (cluster, namespace) (last_over_time(longtake_demand_timestamp_seconds[1h])) > 120
or on (cluster, namespace)
time() - max by (cluster, namespace, pool) (longtake_demand_timestamp_seconds) > 120
""",
        "2m",
        "The demand of pools is no longer measured.",
        f"The demand of {_FARM}{{{{ with $labels.pool }}}}, pool {{{{ . }}}},{{{{ end }}}} was measured "
        "{{ $value | humanizeDuration }} ago.",
    ),
)

KEEPING = (
    Alert(
        "LongtakeStoreErrors",
        "critical",
        "sum by (cluster, namespace, store) (increase(longtake_store_errors_total[5m])) > 0",
        "5m",
        "The database or the artifact store does not answer.",
        f"The {{{{ $labels.store }}}} of {_FARM} did not answer {{{{ $value | humanize }}}} times in 5 minutes.",
    ),
    Alert(
        "LongtakeCheckpointsFailing",
        "warning",
        'sum by (cluster, namespace) (increase(longtake_checkpoints_total{outcome="failed"}[15m])) > 0',
        "10m",
        "Checkpoints of takes cannot be written.",
        f"{{{{ $value | humanize }}}} checkpoints of {_FARM} could not be written in 15 minutes.",
    ),
    Alert(
        "LongtakeCheckpointsOld",
        "warning",
        "max by (cluster, namespace) (longtake_checkpoint_age_seconds) > 900",
        "10m",
        "A take at work was not saved for long.",
        f"A take of {_FARM} was saved {{{{ $value | humanizeDuration }}}} ago; with its host that much would be lost.",
    ),
    Alert(
        "LongtakeApiErrors",
        "critical",
        """
farm:longtake_api_request_errors:ratio_rate5m > 0.05
and farm:longtake_api_requests:rate5m > 0.05
""",
        "5m",
        "Much of what clients ask for fails.",
        f"{{{{ $value | humanizePercentage }}}} of requests to {_FARM} were answered with 5xx.",
    ),
)

MONEY = (
    Alert(
        "LongtakeSpendNearLimit",
        "warning",
        """
farm:longtake_spent_usd:increase1d
/ (farm:longtake_spend_limit_usd_per_day:max > 0) > 0.8
""",
        "5m",
        "The farm has nearly spent what it should in a day.",
        f"{{{{ $value | humanizePercentage }}}} of the daily limit of {_FARM} was spent in the last 24 hours.",
    ),
    Alert(
        "LongtakeSpendFast",
        "warning",
        """
12 * farm:longtake_spent_usd:increase1h
/ (farm:longtake_spend_limit_usd_per_day:max > 0) > 1
""",
        "15m",
        "At this speed half a day is enough to spend a day's limit.",
        f"In 12 hours like the last one {_FARM} would spend {{{{ $value | humanizePercentage }}}} of its daily limit.",
    ),
    Alert(
        "LongtakeJobsNearBudget",
        "info",
        "max by (cluster, namespace, pool) (longtake_jobs_near_budget) > 0",
        "5m",
        "Jobs have nearly used up their budget, and stop when they have.",
        f"{{{{ $value }}}} jobs of {_POOL} have spent 80 % of their budget or more.",
    ),
)

CLUSTER = (
    Alert(
        "LongtakeControllerMissing",
        "warning",
        "sum by (cluster, namespace) (longtake_controller_leads) != 1",
        "5m",
        "Not exactly one controller leads.",
        f"{{{{ $value }}}} controllers of {_FARM} lead.",
    ),
    Alert(
        "LongtakeControllerStuck",
        "warning",
        "time() - max by (cluster, namespace) (longtake_controller_last_round_timestamp_seconds) > 300",
        "5m",
        "The controller has not come through a round without a failure for long.",
        f"The last good round of the controller of {_FARM} was {{{{ $value | humanizeDuration }}}} ago.",
    ),
    Alert(
        "LongtakePoolNotReady",
        "warning",
        "max by (cluster, namespace, pool) (longtake_controller_pool_ready) == 0",
        "10m",
        "The farm does not have a pool as its RenderPool says.",
        f"The farm does not have {_POOL} as its RenderPool says.",
    ),
)

ALERTS = (*WORK, *GANGS, *KEEPING, *MONEY, *CLUSTER)
