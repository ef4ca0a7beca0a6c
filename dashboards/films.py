"""How good films come out, and how much work was done in vain."""

from dashboards.panels import Dashboard, Panel, Query, Row, Threshold
from dashboards.promql import RANGE, buckets, increase, largest, quantile, rate, share

_BY_POOL = "{{pool}}"

_NOW = Row(
    "In the time shown",
    (
        Panel(
            "Jobs failed",
            "Jobs that ended without a film, cancelled ones left out.",
            "none",
            "stat",
            (Query(increase("longtake_jobs_finished_total", where='outcome="failed"', window=RANGE)),),
            width=5,
            threshold=Threshold(1),
        ),
        Panel(
            "GPU time wasted",
            "Of all GPU time of calls, what was lost with gangs or thrown away.",
            "percentunit",
            "stat",
            (
                Query(
                    share(
                        increase("longtake_gpu_seconds_total", where='use="wasted"', window=RANGE),
                        increase("longtake_gpu_seconds_total", window=RANGE),
                    )
                ),
            ),
            width=5,
            threshold=Threshold(0.2),
            empty_when="nothing was rendered in the time shown",
        ),
        Panel(
            "Takes not rendered again",
            "Of all takes, those whose frames the farm had already: what revising one shot saves.",
            "percentunit",
            "stat",
            (
                Query(
                    share(
                        increase("longtake_takes_total", where='source="cache"', window=RANGE),
                        increase("longtake_takes_total", window=RANGE),
                    )
                ),
            ),
            width=5,
            empty_when="no take was finished in the time shown",
        ),
        Panel(
            "Hosts lost",
            "Timeline hosts that went with what their takes had done since the last checkpoint.",
            "none",
            "stat",
            (Query(increase("longtake_hosts_lost_total", window=RANGE)),),
            width=5,
            threshold=Threshold(1),
        ),
        Panel(
            "Oldest checkpoint",
            "Of the takes at work, the longest time since one was saved: what would be lost with its host.",
            "s",
            "stat",
            (Query(largest("longtake_checkpoint_age_seconds")),),
            width=4,
            threshold=Threshold(900),
        ),
    ),
)

_QUALITY = Row(
    "How do films come out?",
    (
        Panel(
            "Jumps at seams",
            "How much the picture changes where two chunks met, against the change between other frames. 1 is a seam "
            "that cannot be seen; a band that climbs is a model or a recipe that stitches badly.",
            "none",
            "heatmap",
            (Query(buckets("longtake_seam_jump_ratio"), "{{le}}"),),
        ),
        Panel(
            "From acceptance to film",
            "How long makers wait for a whole film: half of them, and all but 5 %.",
            "s",
            "lines",
            (
                Query(quantile(0.5, "longtake_job_duration_seconds", "pool"), "{{pool}} half"),
                Query(quantile(0.95, "longtake_job_duration_seconds", "pool"), "{{pool}} 95 %"),
            ),
        ),
    ),
)

_LOST = Row(
    "What was done in vain?",
    (
        Panel(
            "GPU time, useful and wasted",
            "GPUs at work on average: GPU time of calls in each second. Wasted is what gangs had begun when they went, "
            "and what was not a number or came too late.",
            "none",
            "stacked",
            (Query(rate("longtake_gpu_seconds_total", "use"), "{{use}}"),),
        ),
        Panel(
            "Calls done again",
            "Calls that did not end well, by why; each is tried again elsewhere.",
            "none",
            "bars",
            (Query(increase("longtake_calls_total", "reason", where='outcome="failed"'), "{{reason}}"),),
        ),
        Panel(
            "Why jobs failed",
            "By the code that the API shows. `longtake explain JOB` has the evidence.",
            "none",
            "bars",
            (Query(increase("longtake_jobs_finished_total", "code", where='outcome="failed"'), "{{code}}"),),
        ),
        Panel(
            "Checkpoints",
            "Checkpoints of takes that were written, and that could not be.",
            "none",
            "bars",
            (Query(increase("longtake_checkpoints_total", "outcome"), "{{outcome}}"),),
        ),
    ),
)

_TIME = Row(
    "Where does time go?",
    (
        Panel(
            "Stages of a call",
            "All but 5 % of calls are faster. compute should be nearly all; much wait is slots that hold too many, "
            "much input or answer is a host with too many takes.",
            "s",
            "lines",
            (Query(quantile(0.95, "longtake_call_seconds", "stage"), "{{stage}}"),),
            width=8,
        ),
        Panel(
            "Cost model",
            "Measured over predicted seconds of calls. Far from 1, due times, backlog and quotes are wrong too.",
            "none",
            "heatmap",
            (Query(buckets("longtake_cost_model_error_ratio"), "{{le}}"),),
            width=8,
        ),
        Panel(
            "Decoding and encoding",
            "All but 5 % are faster: one order of a decoder, and one film put together. They run beside the gangs.",
            "s",
            "lines",
            (
                Query(quantile(0.95, "longtake_decode_seconds"), "decode"),
                Query(quantile(0.95, "longtake_encode_seconds"), "encode"),
            ),
            width=8,
        ),
    ),
)

FILMS = Dashboard(
    "longtake-films",
    "Longtake / Film quality and lost work",
    "How good films come out, how much work was done in vain, and where time goes.",
    (_NOW, _QUALITY, _LOST, _TIME),
)
