"""How to lay gangs out on a number of GPUs for one film, and why. Pure arithmetic."""

from dataclasses import dataclass

from sharding.gang_shape import GangShape, Workload, shapes_of


@dataclass(frozen=True)
class Advice:
    """So many gangs of this shape."""

    gangs: int
    shape: GangShape
    reasons: tuple[str, ...]
    """In words, the most important first."""


def advise(
    work: Workload, *, gpus: int, calls_at_once: int, parts: int = 1, gpus_per_node: int | None = None
) -> Advice:
    """Gangs for a film that has `calls_at_once` calls which need not wait for each other.

    `parts`: GPUs that a call's tokens must be split over to fit (sharding.gang_shape.fewest_ranks). Chunks first: gangs
    that each have a call of their own exchange nothing. Only GPUs that would have no call make gangs larger: then CFG,
    Ulysses, ring, by what they exchange. Raises ValueError if there are too few GPUs, or no shape would work.
    """
    if parts > gpus:
        raise ValueError(f"a call needs {parts} GPUs to fit, and there are {gpus}")
    wanted = max(parts, gpus // calls_at_once)
    found: GangShape | None = None
    for ranks in [*range(wanted, parts - 1, -1), *range(wanted + 1, gpus + 1)]:
        fitting = [one for one in shapes_of(ranks, work, gpus_per_node=gpus_per_node) if one.sequence >= parts]
        if fitting:
            found = fitting[0]
            break
    if found is None:
        raise ValueError(f"no gang of {parts} to {gpus} ranks can share out {work.heads} heads")
    gangs = gpus // found.ranks
    return Advice(gangs, found, tuple(_reasons(work, found, gangs, gpus, calls_at_once, parts)))


def _reasons(work: Workload, shape: GangShape, gangs: int, gpus: int, calls_at_once: int, parts: int) -> list[str]:
    calls = f"up to {calls_at_once} calls can be computed at once"
    reasons = [f"chunks first: {calls}, and gangs with a call each exchange nothing"]
    if parts > 1:
        reasons.append(f"memory: {work.tokens} tokens of one call fit {parts} GPUs together, not fewer")
    if shape.ranks > parts or shape.cfg > 1:
        reasons.append(f"{gpus} GPUs are more than the film has calls, so {shape.ranks} share one")
    if shape.cfg > 1:
        reasons.append("then CFG: its two branches exchange only their predictions, once a call")
    if shape.ulysses > 1:
        reasons.append(f"then Ulysses: {work.heads} heads shared out, each layer's activations exchanged once")
    if shape.ring > 1:
        why = "heads do not divide further" if work.heads % (shape.ulysses * shape.ring) else "Ulysses stays in a node"
        reasons.append(f"ring last, since {why}: keys and values go round in every layer")
    if gangs > calls_at_once:
        reasons.append(f"{gangs - calls_at_once} gangs will have nothing to do for this film alone")
    if left := gpus - gangs * shape.ranks:
        reasons.append(f"{left} GPUs are left over, for no gang of this shape fits them")
    return reasons
