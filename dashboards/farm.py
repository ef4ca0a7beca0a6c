"""The first page: is work flowing, what waits, what is it costing."""

from dashboards.panels import Dashboard, Note, Panel, Query, Row, Threshold
from dashboards.promql import RANGE, gauge, increase, quantile, rate, share, smallest

_BY_POOL = "{{pool}}"

_NOW = Row(
    "Now",
    (
        Panel(
            "Jobs at work",
            "Jobs that are being rendered now.",
            "none",
            "stat",
            (Query(gauge("longtake_jobs", where='status="in_progress"')),),
            width=4,
        ),
        Panel(
            "Jobs waiting",
            "Jobs that were accepted and not begun.",
            "none",
            "stat",
            (Query(gauge("longtake_jobs", where='status="queued"')),),
            width=4,
        ),
        Panel(
            "Video delivered",
            "Length of all films that were delivered in the time shown.",
            "s",
            "stat",
            (Query(increase("longtake_video_seconds_delivered_total", window=RANGE)),),
            width=4,
        ),
        Panel(
            "Spent",
            "Money charged to jobs in the time shown. 0 if farm.yaml gives pools no price.",
            "currencyUSD",
            "stat",
            (Query(increase("longtake_spent_usd_total", window=RANGE)),),
            width=4,
        ),
        Panel(
            "Jobs that will be late",
            "Jobs that will probably miss their due time, as the Director sees it now.",
            "none",
            "stat",
            (Query(gauge("longtake_pool_jobs_at_risk")),),
            width=4,
            threshold=Threshold(1),
        ),
        Panel(
            "Due times kept",
            "Of the jobs with a due time that ended in the time shown, the share that was done before it.",
            "percentunit",
            "stat",
            (
                Query(
                    share(
                        increase("longtake_due_times_total", where='outcome="met"', window=RANGE),
                        increase("longtake_due_times_total", window=RANGE),
                    )
                ),
            ),
            width=4,
            threshold=Threshold(0.99, bad="below"),
            empty_when="no job with a due time has ended in the time shown",
        ),
    ),
)

_FLOW = Row(
    "Is work flowing?",
    (
        Panel(
            "Calls done",
            "Calls that gangs finished each second. 0 while there is a backlog means that nothing is being rendered.",
            "cps",
            "lines",
            (Query(rate("longtake_calls_total", "pool", where='outcome="done"'), _BY_POOL),),
        ),
        Panel(
            "Jobs that came and ended",
            "Jobs that were accepted, and how jobs ended. Why some failed is on the page about quality and lost work.",
            "none",
            "lines",
            (
                Query(increase("longtake_jobs_submitted_total"), "accepted"),
                Query(increase("longtake_jobs_finished_total", "outcome"), "{{outcome}}"),
            ),
        ),
    ),
)

_WAITING = Row(
    "What waits?",
    (
        Panel(
            "Backlog",
            "GPU time that all accepted work still needs. On 10 GPUs an hour of it lasts six minutes.",
            "s",
            "stacked",
            (Query(gauge("longtake_pool_backlog_gpu_seconds", "pool"), _BY_POOL),),
            width=8,
        ),
        Panel(
            "Wait for the first call",
            "From acceptance to the first call: what makers feel as the queue. Half of the jobs, and all but 5 %.",
            "s",
            "lines",
            (
                Query(quantile(0.5, "longtake_job_queue_wait_seconds", "pool"), "{{pool}} half"),
                Query(quantile(0.95, "longtake_job_queue_wait_seconds", "pool"), "{{pool}} 95 %"),
            ),
            width=8,
        ),
        Panel(
            "Time to spare",
            "Of the tightest due time of each pool that max_gangs could keep: how much later its job could be done.",
            "s",
            "lines",
            (Query(smallest("longtake_pool_due_slack_seconds", "pool"), _BY_POOL),),
            empty_when="no job has a due time that can be kept",
            width=8,
        ),
    ),
)

_COST = Row(
    "What is it costing?",
    (
        Panel(
            "Money per hour",
            "What is being charged to jobs, as if it went on like this for an hour.",
            "currencyUSD",
            "lines",
            (Query(f"3600 * {rate('longtake_spent_usd_total', 'pool')}", _BY_POOL),),
            width=8,
        ),
        Panel(
            "Of the daily limit",
            "Spent in the last 24 hours, as a part of spend_limit_usd_per_day in farm.yaml. Nothing stops there.",
            "percentunit",
            "lines",
            (
                Query(
                    share(
                        increase("longtake_spent_usd_total", window="1d"),
                        gauge("longtake_spend_limit_usd_per_day"),
                    ),
                    "spent",
                ),
            ),
            width=8,
            threshold=Threshold(0.8),
            empty_when="farm.yaml sets no limit",
        ),
        Panel(
            "Jobs near their budget",
            "Jobs at work that have spent 80 % of what their owner allowed. They stop when it is used up.",
            "none",
            "lines",
            (Query(gauge("longtake_jobs_near_budget", "pool"), _BY_POOL),),
            width=8,
        ),
    ),
)

_BELOW = Row(
    "Below the farm",
    (
        Note(
            "Ray and GPUs",
            """What the farm stands on has dashboards of its own. These links work if they have their usual names.

- **Ray**: [cluster: nodes, memory, object store](/d/rayDefaultDashboard), \
[Serve: proxies and replicas](/d/rayServeDashboard), [one deployment](/d/rayServeDeploymentDashboard). \
Ray writes them to `/tmp/ray/session_latest/metrics/grafana/dashboards` of its head node.
- **GPUs**: [DCGM exporter: load, memory, temperature, power](/d/Oxed_c6Wz), number 12239 on grafana.com.

Look here when calls are done slowly though gangs are ready and busy: a GPU that throttles, a full object store.""",
        ),
    ),
)

FARM = Dashboard(
    "longtake-farm",
    "Longtake / Farm overview",
    "Is work flowing, what waits, and what is it costing.",
    (_NOW, _FLOW, _WAITING, _COST, _BELOW),
)
