"""A job of the API in a person's words: times, money, states. Pure; `now` is unix seconds."""

from collections import Counter
from datetime import datetime
from typing import Any

from serving.store.records import ENDED

Json = dict[str, Any]

STYLES = {
    "queued": "blue",
    "in_progress": "yellow",
    "paused": "magenta",
    "completed": "green",
    "failed": "red",
    "cancelled": "bright_black",
    "waiting": "bright_black",
    "rendering": "yellow",
    "rendered": "cyan",
    "decoded": "green",
}
"""Colours of the states of jobs and takes."""


def status_word(status: str) -> str:
    """As people write it."""
    return status.replace("_", " ")


def span(seconds: float) -> str:
    """A length of time: 0.4 s, 42 s, 3:05 min, 2:05 h, 3 d 4 h."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    if whole < 86_400:
        return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def ago(at: float | None, now: float) -> str:
    """How long something is past."""
    return "" if at is None else f"{rough(now - at)} ago"


def rough(seconds: float) -> str:
    """A length of time in one number."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size or (unit == "min" and seconds >= 60):
            return f"{seconds // size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def clock(at: float, now: float) -> str:
    """A moment, in local time: the time of today, or with its date."""
    moment, today = datetime.fromtimestamp(at), datetime.fromtimestamp(now)
    return moment.strftime("%H:%M" if moment.date() == today.date() else "%Y-%m-%d %H:%M")


def money(usd: float) -> str:
    """Dollars, with as many digits as say something."""
    if usd >= 0.995 or usd == 0:
        return f"${usd:,.2f}"
    return f"${usd:.4f}" if usd >= 0.001 else f"${usd:.6f}"


def cost_words(job: Json) -> str:
    """Seconds and money so far, what was wasted, and the budget."""
    cost = job["cost"]
    words = f"{span(cost['gpu_seconds'] + cost['wasted_gpu_seconds'])} of GPU"
    if cost["wasted_gpu_seconds"] >= 0.05:
        words += f" ({span(cost['wasted_gpu_seconds'])} wasted)"
    if cost["usd"] or job["budget_usd"] is not None:
        words += f", {money(cost['usd'])}"
    if job["budget_usd"] is not None:
        words += f" of {money(job['budget_usd'])}"
    return words


def left_words(job: Json, now: float) -> str:
    """When it will be, or was, finished; nothing while that is unknown."""
    if job["status"] in ENDED:
        began = job["started_at"]
        return f"took {span(job['finished_at'] - began)}" if job["finished_at"] and began else ""
    if job["eta"] is None or job["status"] == "paused":
        return ""
    return f"{span(max(0.0, job['eta'] - now))} left"


def due_words(job: Json, now: float) -> str:
    """When it has to be there, and whether it will."""
    if job["due_at"] is None:
        return ""
    words = f"due {clock(job['due_at'], now)}"
    if job["status"] in ENDED:
        late = (job["finished_at"] or now) > job["due_at"]
        return f"{words}, missed" if late else words
    return f"{words}, at risk" if job["at_risk"] else words


def take_counts(takes: list[Json]) -> str:
    """How many takes are in which state: 2 decoded, 1 rendering."""
    counts = Counter(take["status"] for take in takes)
    return ", ".join(
        f"{counts[state]} {state}" for state in ("decoded", "rendered", "rendering", "waiting") if counts[state]
    )


def calls_words(job: Json) -> str:
    """Calls done of all."""
    done, total = sum(take["calls_done"] for take in job["takes"]), sum(take["calls"] for take in job["takes"])
    return f"calls {done}/{total}"


def progress_line(job: Json, now: float) -> str:
    """One line on how far a job is."""
    parts = [
        f"{job['id']} {status_word(job['status'])} {job['progress']:.0f} %",
        calls_words(job),
        left_words(job, now),
        cost_words(job),
        job["reason"] if job["status"] in ("paused", "failed", "cancelled") else "",
    ]
    return ", ".join(part for part in parts if part)


def film_words(film: Json) -> str:
    """What a film is: length, size, bytes."""
    size = f", {film['width']}x{film['height']}" if film.get("width") else ""
    weight = f", {byte_words(film['bytes'])}" if film.get("bytes") else ""
    return f"{film['frames']} frames, {film['seconds']:.1f} seconds{size}{weight}"


def byte_words(num_bytes: int) -> str:
    """Bytes in the unit that fits."""
    size, units = float(num_bytes), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{num_bytes} bytes" if units[0] == "bytes" else f"{size:.1f} {units[0]}"
