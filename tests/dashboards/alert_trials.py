"""For every alert: series by which it fires, and when, and series that come near and leave it silent.

Values are promtool's: `0+3x5` is 0, then 3 more for each of 5 minutes. The text of the alert is written out, so that
what an operator reads is tested too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

POOL = 'cluster="eu",namespace="films",pool="wan"'
FARM = 'cluster="eu",namespace="films"'
OF_POOL = {"cluster": "eu", "namespace": "films", "pool": "wan"}
OF_FARM = {"cluster": "eu", "namespace": "films"}


@dataclass(frozen=True)
class Trial:
    """Of one alert. Minutes are from the beginning of the series."""

    fires: Mapping[str, str]
    silent: Mapping[str, str]
    before_m: int
    """Minute at which it does not fire yet."""
    at_m: int
    """Minute at which it fires, and at which it is silent with the other series."""
    description: str
    labels: Mapping[str, str] = field(default_factory=lambda: OF_POOL)


def _done(outcome: str) -> str:
    return f'longtake_calls_total{{{POOL},outcome="{outcome}",reason=""}}'


def _gpu(use: str) -> str:
    return f'longtake_gpu_seconds_total{{{POOL},use="{use}"}}'


def _lost(reason: str) -> str:
    return f'longtake_gangs_lost_total{{{POOL},reason="{reason}"}}'


def _answered(code: str) -> str:
    return f'longtake_api_request_seconds_count{{{FARM},route="/v1/jobs",method="GET",code="{code}"}}'


BACKLOG = f"longtake_pool_backlog_gpu_seconds{{{POOL}}}"
DEMAND = f"longtake_demand_timestamp_seconds{{{POOL}}}"
SPENT = f"longtake_spent_usd_total{{{POOL}}}"
LIMIT = f"longtake_spend_limit_usd_per_day{{{FARM}}}"
LAST_ROUND = f"longtake_controller_last_round_timestamp_seconds{{{FARM}}}"

TRIALS = {
    "LongtakeNoProgress": Trial(
        fires={BACKLOG: "7200x60", _done("done"): "0+10x5 50x60", _done("failed"): "0+1x60"},
        silent={BACKLOG: "7200x60", _done("done"): "0 0x15 1x60 "},
        before_m=30,
        at_m=36,
        description="2h 0m 0s of GPU time wait for pool wan of films, and no call was done for 20 minutes.",
    ),
    "LongtakeBacklogGrowing": Trial(
        fires={BACKLOG: "3600+60x100"},
        silent={BACKLOG: "0x30 36000-60x100"},  # one large job that is being done
        before_m=60,
        at_m=62,
        description="The backlog of pool wan of films has grown for an hour, by 1 GPU-seconds each second.",
    ),
    "LongtakeDueTimesAtRisk": Trial(
        fires={f"longtake_pool_jobs_at_risk{{{POOL}}}": "0x5 2x30"},
        silent={f"longtake_pool_jobs_at_risk{{{POOL}}}": "0x5 2x5 0 2x20"},
        before_m=15,
        at_m=17,
        description="2 jobs of pool wan of films will probably be late.",
    ),
    "LongtakeDueTimesMissed": Trial(
        fires={f'longtake_due_times_total{{{POOL},outcome="missed"}}': "0x60 1x60"},
        silent={
            f'longtake_due_times_total{{{POOL},outcome="missed"}}': "1x120",
            f'longtake_due_times_total{{{POOL},outcome="met"}}': "0+1x120",
        },
        before_m=60,
        at_m=70,
        description="1 jobs of pool wan of films missed their due time in the last hour.",
    ),
    "LongtakeGangsCrashLooping": Trial(
        fires={_lost("died"): "0+1x60", _lost("broken"): "0x60"},
        silent={_lost("died"): "0x30 3x30", _lost("drained"): "0+1x60", _lost("scaled_down"): "0+1x60"},
        before_m=5,
        at_m=40,
        description="30 gangs of pool wan of films were lost to faults in 30 minutes.",
    ),
    "LongtakeGangsFlapping": Trial(
        fires={
            f"longtake_gangs_started_total{{{POOL}}}": "0+1x120",
            f"longtake_pool_gangs_wanted{{{POOL}}}": "_x0 0 2 0 2 0 2x120",
        },
        silent={
            f"longtake_gangs_started_total{{{POOL}}}": "0+1x120",
            f"longtake_pool_gangs_wanted{{{POOL}}}": "30x120",
        },
        before_m=5,
        at_m=90,
        description="60 gangs of pool wan of films came in an hour, over three times as many as were ever wanted.",
    ),
    "LongtakeGpuSecondsWasted": Trial(
        fires={_gpu("wasted"): "0+60x120", _gpu("useful"): "0+60x120"},
        silent={_gpu("wasted"): "0+60x120", _gpu("useful"): "0+600x120"},
        before_m=15,
        at_m=90,
        description="50% of the GPU time of pool wan of films was wasted in the last hour.",
    ),
    "LongtakeDemandUnknown": Trial(
        fires={DEMAND: "0 60 120 stale"},
        silent={DEMAND: "0+60x20"},
        before_m=7,
        at_m=10,
        labels={},
        description=(
            "No Director says what its pools need. What scales by it stands still, and other alerts are silent."
        ),
    ),
    "LongtakeDemandStale": Trial(
        fires={DEMAND: "0 60 60x20"},
        silent={DEMAND: "0+60x20"},
        before_m=4,
        at_m=6,
        labels=OF_FARM,
        description="The demand of films was measured 5m 0s ago.",
    ),
    "LongtakeStoreErrors": Trial(
        fires={f'longtake_store_errors_total{{{FARM},store="database"}}': "0x10 0+2x20"},
        silent={f'longtake_store_errors_total{{{FARM},store="database"}}': "0x10 1x20"},
        before_m=14,
        at_m=20,
        labels={**OF_FARM, "store": "database"},
        description="The database of films did not answer 10 times in 5 minutes.",
    ),
    "LongtakeCheckpointsFailing": Trial(
        fires={f'longtake_checkpoints_total{{{FARM},outcome="failed"}}': "0+1x60"},
        silent={
            f'longtake_checkpoints_total{{{FARM},outcome="failed"}}': "2x60",
            f'longtake_checkpoints_total{{{FARM},outcome="written"}}': "0+1x60",
        },
        before_m=9,
        at_m=30,
        labels=OF_FARM,
        description="15 checkpoints of films could not be written in 15 minutes.",
    ),
    "LongtakeCheckpointsOld": Trial(
        fires={f"longtake_checkpoint_age_seconds{{{FARM}}}": "0+60x60"},
        silent={f"longtake_checkpoint_age_seconds{{{FARM}}}": "0+60x15 0+60x15 0x30"},
        before_m=25,
        at_m=30,
        labels=OF_FARM,
        description="A take of films was saved 30m 0s ago; with its host that much would be lost.",
    ),
    "LongtakeApiErrors": Trial(
        fires={_answered("2xx"): "0+60x30", _answered("5xx"): "0+20x30"},
        silent={_answered("2xx"): "0+60x30", _answered("4xx"): "0+60x30", _answered("5xx"): "0+2x30"},
        before_m=5,
        at_m=20,
        labels=OF_FARM,
        description="25% of requests to films were answered with 5xx.",
    ),
    "LongtakeSpendNearLimit": Trial(
        fires={SPENT: "0+0.75x1440", LIMIT: "1000x1440"},
        silent={SPENT: "0+0.5x1440", LIMIT: "1000x1440"},
        before_m=60,
        at_m=1440,
        labels=OF_FARM,
        description="108% of the daily limit of films was spent in the last 24 hours.",
    ),
    "LongtakeSpendFast": Trial(
        fires={SPENT: "0+2x120", LIMIT: "1000x120"},
        silent={SPENT: "0+2x120", LIMIT: "NaN " * 121},  # no limit
        before_m=14,
        at_m=100,
        labels=OF_FARM,
        description="In 12 hours like the last one films would spend 144% of its daily limit.",
    ),
    "LongtakeJobsNearBudget": Trial(
        fires={f"longtake_jobs_near_budget{{{POOL}}}": "1x20"},
        silent={f"longtake_jobs_near_budget{{{POOL}}}": "0x20"},
        before_m=4,
        at_m=6,
        description="1 jobs of pool wan of films have spent 80 % of their budget or more.",
    ),
    "LongtakeControllerMissing": Trial(
        fires={
            f'longtake_controller_leads{{{FARM},pod="a"}}': "1x5 0x20",
            f'longtake_controller_leads{{{FARM},pod="b"}}': "0x25",
        },
        silent={
            f'longtake_controller_leads{{{FARM},pod="a"}}': "1x5 0x20",
            f'longtake_controller_leads{{{FARM},pod="b"}}': "0x7 1x18",
        },
        before_m=10,
        at_m=12,
        labels=OF_FARM,
        description="0 controllers of films lead.",
    ),
    "LongtakeControllerStuck": Trial(
        fires={LAST_ROUND: "0+60x5 300x20"},
        silent={LAST_ROUND: "0+60x30", f'{LAST_ROUND[:-1]},pod="b"}}': "0x30"},
        before_m=15,
        at_m=20,
        labels=OF_FARM,
        description="The last good round of the controller of films was 15m 0s ago.",
    ),
    "LongtakePoolNotReady": Trial(
        fires={f"longtake_controller_pool_ready{{{POOL}}}": "0x20"},
        silent={f"longtake_controller_pool_ready{{{POOL}}}": "0x5 1x20"},
        before_m=9,
        at_m=11,
        description="The farm does not have pool wan of films as its RenderPool says.",
    ),
}
