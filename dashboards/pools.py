"""Gangs: how many there should be, are, and went, and what the nodes under them do."""

from dashboards.panels import Dashboard, Panel, Query, Row, Threshold
from dashboards.promql import RANGE, gauge, increase, largest, rate, select, share, smallest

_BY_POOL = "{{pool}}"
_NO_CONTROLLER = "no controller runs: the farm is not on Kubernetes"

_NOW = Row(
    "Now",
    (
        Panel(
            "Idle",
            "Gangs with nothing to do, of those that are ready. Much for long is money for nothing.",
            "percentunit",
            "stat",
            (Query(share(gauge("longtake_pool_gangs_idle"), gauge("longtake_pool_gangs_ready"))),),
            width=6,
            empty_when="no gang is ready",
        ),
        Panel(
            "Gangs lost",
            "Gangs that went without being asked to, in the time shown: dead, hung, broken, or with their node.",
            "none",
            "stat",
            (Query(increase("longtake_gangs_lost_total", where='reason=~"died|hung|broken|node_lost"', window=RANGE)),),
            width=6,
            threshold=Threshold(1),
        ),
        Panel(
            "Age of the demand",
            "Time since the Director measured what pools need. While it is old nothing scales by it.",
            "s",
            "stat",
            (Query(f"time() - {smallest('longtake_demand_timestamp_seconds')}"),),
            width=6,
            threshold=Threshold(120),
        ),
        Panel(
            "Pools not as wished",
            "RenderPools that the farm does not have as they say.",
            "none",
            "stat",
            (Query(f"sum(1 - max by (cluster, namespace, pool) ({select('longtake_controller_pool_ready')}))"),),
            width=6,
            threshold=Threshold(1),
            empty_when=_NO_CONTROLLER,
        ),
    ),
)

_SCALING = Row(
    "Does supply follow demand?",
    (
        Panel(
            "Gangs wanted and ready",
            "They should meet within a cold start. Where ready stays below, nodes do not come, or gangs do not start.",
            "none",
            "lines",
            (
                Query(gauge("longtake_pool_gangs_wanted", "pool"), "{{pool}} wanted"),
                Query(gauge("longtake_pool_gangs_ready", "pool"), "{{pool}} ready"),
            ),
        ),
        Panel(
            "Gangs on their way",
            "Gangs that start, and gangs that finish what they have and go.",
            "none",
            "lines",
            (
                Query(gauge("longtake_pool_gangs_starting", "pool"), "{{pool}} starting"),
                Query(gauge("longtake_pool_gangs_draining", "pool"), "{{pool}} draining"),
            ),
        ),
        Panel(
            "Time until the backlog is done",
            "At the speed of the last minutes and if nothing more comes. What the planner tries to keep short.",
            "s",
            "lines",
            (
                Query(
                    share(
                        gauge("longtake_pool_backlog_gpu_seconds", "pool"),
                        rate("longtake_gpu_seconds_total", "pool", where='use="useful"'),
                    ),
                    _BY_POOL,
                ),
            ),
            width=8,
        ),
        Panel(
            "Calls ready",
            "Calls that could begin at once. 0 with idle gangs: the films at work allow no more at a time.",
            "none",
            "lines",
            (Query(gauge("longtake_pool_calls_ready", "pool"), _BY_POOL),),
            width=8,
        ),
        Panel(
            "Cold start",
            "From asking for a gang until it takes calls, as measured lately. The planner keeps gangs longer than this "
            "after they were last needed.",
            "s",
            "lines",
            (Query(largest("longtake_pool_cold_start_seconds", "pool"), _BY_POOL),),
            width=8,
        ),
    ),
)

_LOSSES = Row(
    "What was lost, and what will go?",
    (
        Panel(
            "Gangs that went",
            "drained and node_lost are what spot nodes cost; died, hung, broken are faults; scaled_down is as planned.",
            "none",
            "bars",
            (Query(increase("longtake_gangs_lost_total", "reason"), "{{reason}}"),),
        ),
        Panel(
            "Gangs that came",
            "Many that come while as many go is flapping: each cold start is paid for and renders nothing.",
            "none",
            "bars",
            (Query(increase("longtake_gangs_started_total", "pool"), _BY_POOL),),
        ),
        Panel(
            "Nodes that will go",
            "Ray nodes with a notice, those that are drained, and those whose drain waits so that a pool keeps gangs.",
            "none",
            "lines",
            (
                Query(gauge("longtake_controller_nodes_in_danger"), "in danger"),
                Query(gauge("longtake_controller_nodes_draining"), "draining"),
                Query(gauge("longtake_controller_drains_waiting"), "waiting"),
            ),
            width=8,
            empty_when=_NO_CONTROLLER,
        ),
        Panel(
            "Drains",
            "Drains that the farm was asked for, by what the cloud or an operator put on the node.",
            "none",
            "bars",
            (Query(increase("longtake_controller_drains_total", "cause"), "{{cause}}"),),
            width=8,
            empty_when=_NO_CONTROLLER,
        ),
        Panel(
            "GPUs of the nodes",
            "GPUs that Kubernetes' nodes offer, by product and whether they may be taken away.",
            "none",
            "stacked",
            (Query(gauge("longtake_controller_node_gpus", "product", "spot"), "{{product}} spot={{spot}}"),),
            width=8,
            empty_when="no controller runs, or no node has GPUs",
        ),
    ),
)

POOLS = Dashboard(
    "longtake-pools",
    "Longtake / Pools and autoscaling",
    "How many gangs there should be, are, come and go.",
    (_NOW, _SCALING, _LOSSES),
)
