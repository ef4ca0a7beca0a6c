"""The timeline of a job that the Director holds: how far its latents are, and which calls are with gangs.

Pure, from what timeline hosts reported last, and cheap enough to be asked every second. jobs/stored_timeline.py answers
for every other job.
"""

from typing import Any

from serving.director.runs import JobRun, TakeRun
from serving.jobs.stored_timeline import describe_stored
from serving.render.farm_messages import Runs
from serving.scheduler.state import FarmState, Flight
from sharding.spans import LatentSpan


def describe_timeline(run: JobRun, state: FarmState) -> list[dict[str, Any]]:
    """The takes of a job that the Director holds, as JSON: see TimelineTake in api/wire/timelines.py."""
    job = state.jobs.get(run.id)
    flights: dict[str, list[dict[str, Any]]] = {}
    plans = {take.plan.key: take.plan for take in run.takes}
    for key, flight in job.flights.items() if job else ():
        trouble = job.trouble.get(key) if job else None
        tries = 1 + (len(trouble.attempts) if trouble else 0)
        span = plans[key.take_key].schedule(run.plan.steps).cover(key.step)[key.chunk]
        flights.setdefault(key.take_key, []).append(_describe_call(flight, tries, span))
    return [_describe_take(take, run.plan.steps, flights.get(take.plan.key, [])) for take in run.takes]


def _describe_call(flight: Flight, tries: int, span: LatentSpan) -> dict[str, Any]:
    return {
        "start": span.start,
        "stop": span.stop,
        "step": flight.call.key.step,
        "gang": flight.gang,
        "since": round(flight.since, 3),
        "try": tries,
    }


def _describe_take(take: TakeRun, steps: int, in_flight: list[dict[str, Any]]) -> dict[str, Any]:
    stored = describe_stored([take.record()], steps=steps)[0]
    reached: Runs = () if take.done or take.progress is None else take.progress.reached
    if reached:
        stored |= {"reached": reached, "exact": True}
    return {**stored, "draft_steps": take.plan.draft_steps(steps), "in_flight": in_flight}
