"""How far the latents of each take of a job are, and which of its calls are with gangs. Pure, and cheap enough to be
asked every second.

Two tell it: the Director of a job that it holds, from what timeline hosts said last; and the store of any job.
"""

from collections.abc import Sequence
from typing import Any

from serving.director.runs import JobRun, TakeRun
from serving.render.farm_messages import Runs
from serving.scheduler.state import FarmState, Flight
from serving.store.records import Take


def describe_timeline(run: JobRun, state: FarmState) -> list[dict[str, Any]]:
    """The takes of a job that the Director holds, as JSON: see TimelineTake in api/wire/answers.py."""
    job = state.jobs.get(run.id)
    flights: dict[str, list[dict[str, Any]]] = {}
    for key, flight in job.flights.items() if job else ():
        trouble = job.trouble.get(key) if job else None
        tries = 1 + (len(trouble.attempts) if trouble else 0)
        flights.setdefault(key.take_key, []).append(_describe_call(flight, tries))
    return [_describe_take(take, run.plan.steps, flights.get(take.plan.key, [])) for take in run.takes]


def describe_stored(takes: Sequence[Take], *, steps: int) -> list[dict[str, Any]]:
    """The takes of any job as the store knows them. Nothing is in flight as far as it knows."""
    return [
        {
            "key": take.key,
            "latents": take.latents,
            "steps": steps,
            "reached": _of_counts(take.step_counts, take.latents),
            "exact": sum(count > 0 for count in take.step_counts) < 2,
            "in_flight": [],
            "retries": take.retries,
        }
        for take in takes
    ]


def _describe_call(flight: Flight, tries: int) -> dict[str, Any]:
    call = flight.call
    return {
        "start": call.start,
        "stop": call.start + call.latents,
        "step": call.key.step,
        "gang": flight.gang,
        "since": round(flight.since, 3),
        "try": tries,
    }


def _describe_take(take: TakeRun, steps: int, in_flight: list[dict[str, Any]]) -> dict[str, Any]:
    stored = describe_stored([take.record()], steps=steps)[0]
    reached: Runs = () if take.done or take.progress is None else take.progress.reached
    if reached:
        stored |= {"reached": reached, "exact": True}
    return {**stored, "in_flight": in_flight}


def _of_counts(counts: Sequence[int], latents: int) -> list[tuple[int, int]]:
    """Runs from how many latents have reached each step: the furthest first, as heads go first."""
    if not counts:
        return [(0, latents)]
    return [(step, counts[step]) for step in reversed(range(len(counts))) if counts[step]]
