"""What clients notice, and what everything rests on: the API, the store, the Director, the controller."""

from dashboards.panels import Dashboard, Panel, Query, Row, Threshold
from dashboards.promql import RANGE, buckets, gauge, increase, or_zero, quantile, rate, select, share

_REQUESTS = "longtake_api_request_seconds_count"
_NO_CONTROLLER = "no controller runs: the farm is not on Kubernetes"

_NOW = Row(
    "Now",
    (
        Panel(
            "Answered within",
            "All but 5 % of requests of the last minutes were answered faster.",
            "s",
            "stat",
            (Query(quantile(0.95, "longtake_api_request_seconds")),),
            width=5,
        ),
        Panel(
            "Errors of ours",
            "Requests answered with a 5xx, of all in the time shown.",
            "percentunit",
            "stat",
            (
                Query(
                    share(
                        or_zero(increase(_REQUESTS, where='code="5xx"', window=RANGE)),
                        increase(_REQUESTS, window=RANGE),
                    )
                ),
            ),
            width=5,
            threshold=Threshold(0.01),
            empty_when="nobody has asked the API in the time shown",
        ),
        Panel(
            "New Directors",
            "How often another Director took over in the time shown. An upgrade is one; more is one that dies.",
            "none",
            "stat",
            (
                Query(
                    f"sum (changes(max by (cluster, namespace) ({select('longtake_director_generation')})[{RANGE}:]))"
                ),
            ),
            width=5,
            threshold=Threshold(2),
        ),
        Panel(
            "Jobs held",
            "Jobs that the Director has a lease of. 0 while jobs wait: it cannot take any up.",
            "none",
            "stat",
            (Query(gauge("longtake_director_leases")),),
            width=5,
        ),
        Panel(
            "Controllers that lead",
            "Must be one for each farm on Kubernetes.",
            "none",
            "stat",
            (Query(f"sum ({select('longtake_controller_leads')})"),),
            width=4,
            threshold=Threshold(1, bad="below"),
            empty_when=_NO_CONTROLLER,
        ),
    ),
)

_API = Row(
    "What do clients notice?",
    (
        Panel(
            "Requests by answer",
            "2xx went well, 4xx were refused, 5xx are ours.",
            "reqps",
            "stacked",
            (Query(rate(_REQUESTS, "code"), "{{code}}"),),
        ),
        Panel(
            "Slowest routes",
            "Time that all but 5 % of requests stay below. Streams and downloads count until they begin.",
            "s",
            "lines",
            (
                Query(
                    f"topk(5, {quantile(0.95, 'longtake_api_request_seconds', 'method', 'route')})",
                    "{{method}} {{route}}",
                ),
            ),
        ),
        Panel(
            "Refused and failed, by route",
            "Requests that were not answered well: one client's mistake, or a part of the API that is broken.",
            "reqps",
            "bars",
            (Query(rate(_REQUESTS, "code", "route", where='code!="2xx"'), "{{code}} {{route}}"),),
            empty_when="every request was answered well",
        ),
        Panel(
            "How late events are",
            "From the writing of an event until those who watch the job are told. Far above poll_s of farm.yaml, an "
            "API process is too busy.",
            "s",
            "heatmap",
            (Query(buckets("longtake_events_lag_seconds"), "{{le}}"),),
        ),
    ),
)

_STORE = Row(
    "What does it rest on?",
    (
        Panel(
            "Store failures",
            "Times that the database or the artifacts did not answer; each is tried again, and work waits meanwhile.",
            "none",
            "bars",
            (Query(increase("longtake_store_errors_total", "store"), "{{store}}"),),
            width=6,
        ),
        Panel(
            "Bytes of checkpoints",
            "What the artifact store takes in for checkpoints.",
            "Bps",
            "lines",
            (Query(rate("longtake_checkpoint_bytes_total"), "written"),),
            width=6,
        ),
        Panel(
            "Bytes of pictures",
            "Pictures that tenants have sent and that retention has not removed yet.",
            "bytes",
            "lines",
            (Query(gauge("longtake_assets_bytes"), "kept"),),
            width=6,
        ),
        Panel(
            "Controller's actions",
            "What the controller did to the cluster and the farm, and whether it went well.",
            "none",
            "bars",
            (Query(increase("longtake_controller_actions_total", "action", "outcome"), "{{action}} {{outcome}}"),),
            width=6,
            empty_when=_NO_CONTROLLER,
        ),
    ),
)

API = Dashboard(
    "longtake-api",
    "Longtake / API and store",
    "What clients notice, and what everything rests on.",
    (_NOW, _API, _STORE),
)
