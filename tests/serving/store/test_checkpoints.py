"""A checkpoint restores a timeline that goes on to the same bits; damaged ones are skipped, replaced writers fenced."""

import json
import logging
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor

from serving.errors import Fenced
from serving.models.schedulers import DiffusersSolver
from serving.store.artifacts import Artifacts
from serving.store.checkpoints import Checkpoints, _seal
from sharding.chunks import ChunkLimits, plan_chunks
from sharding.solver import EulerSolver, Solver, TwoStepSolver, flow_sigmas
from sharding.timeline import Recipe, Snapshot, Timeline

STEPS, NUM_LATENTS, SHAPE = 6, 11, (4, 2, 3)
KEY = "ab" * 32


def unipc(**settings: Any) -> Solver:
    kwargs = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0, **settings}
    return DiffusersSolver(UniPCMultistepScheduler(**kwargs), STEPS)


SOLVERS: dict[str, Any] = {
    "euler": lambda: EulerSolver(flow_sigmas(STEPS, shift=3)),
    "two-step": lambda: TwoStepSolver(flow_sigmas(STEPS, shift=3)),
    "diffusers euler": lambda: DiffusersSolver(FlowMatchEulerDiscreteScheduler(shift=3.0), STEPS),
    "unipc": unipc,
    "unipc of order 3": lambda: unipc(solver_order=3),
}


@pytest.fixture(params=["folder", "s3"])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> Artifacts:
    return Artifacts.open(str(tmp_path / "a") if request.param == "folder" else request.getfixturevalue("s3_url"))


@pytest.fixture
def folder(tmp_path: Path) -> Artifacts:
    return Artifacts.open(str(tmp_path / "a"))


@pytest.fixture
def checkpoints(folder: Artifacts) -> Checkpoints:
    return Checkpoints(folder, KEY)


def recipe_of(solver: Solver) -> Recipe:
    return Recipe(solver=solver, cover=lambda step: plan_chunks(NUM_LATENTS, ChunkLimits(4), step, STEPS))


def noise() -> Tensor:
    return torch.randn(NUM_LATENTS, *SHAPE, generator=torch.Generator().manual_seed(0))


def predict(x: Tensor, step: int) -> Tensor:
    return torch.tanh(1.3 * x + x.mean(0, keepdim=True) + 0.1 * step)


def advance(timeline: Timeline, calls: int, order: random.Random) -> None:
    for _ in range(calls):
        if ready := timeline.ready():
            call = order.choice(ready)
            timeline.accept(call, predict(timeline.input_of(call), call.step))


def finished(timeline: Timeline) -> Tensor:
    advance(timeline, 10_000, random.Random(0))
    assert timeline.done
    return torch.stack([timeline.latent(n) for n in range(NUM_LATENTS)])


def snapshot_after(calls: int, solver: Solver | None = None) -> Snapshot:
    timeline = Timeline(noise(), recipe_of(solver or unipc()))
    advance(timeline, calls, random.Random(1))
    return timeline.snapshot()


def same(one: Snapshot, other: Snapshot) -> bool:
    def same_value(a: Any, b: Any) -> bool:
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            return a.dtype == b.dtype and torch.equal(a, b)
        return type(a) is type(b) and a == b

    return (
        same_value(one.latents, other.latents)
        and one.steps == other.steps
        and one.predictions.keys() == other.predictions.keys()
        and all(same_value(value, other.predictions[key]) for key, value in one.predictions.items())
        and all(
            len(a) == len(b) and all(map(same_value, a, b)) for a, b in zip(one.histories, other.histories, strict=True)
        )
    )


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32).map(random.Random), st.lists(st.integers(0, 12), max_size=6))
@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS.keys())
def test_a_take_that_is_restored_again_and_again_ends_with_the_same_bits(
    tmp_path_factory: pytest.TempPathFactory, solver: Any, order: random.Random, stretches: list[int]
) -> None:
    recipe = recipe_of(solver())
    checkpoints = Checkpoints(Artifacts.open(str(tmp_path_factory.mktemp("a"))), KEY)
    timeline = Timeline(noise(), recipe)
    for sequence, calls in enumerate(stretches):
        advance(timeline, calls, order)
        checkpoints.save(timeline.snapshot(), token=1, sequence=sequence)
        advance(timeline, order.randrange(5), order)  # lost
        loaded = checkpoints.load_newest()
        assert loaded is not None
        timeline = Timeline.restore(loaded.snapshot, recipe)
    assert torch.equal(finished(timeline), finished(Timeline(noise(), recipe)))


def test_a_snapshot_comes_back_as_it_was_with_the_token_and_sequence_of_its_save(artifacts: Artifacts) -> None:
    checkpoints, snapshot = Checkpoints(artifacts, KEY), snapshot_after(17)
    assert snapshot.predictions
    assert checkpoints.load_newest() is None
    size = checkpoints.save(snapshot, token=3, sequence=5)
    loaded = checkpoints.load_newest()
    assert loaded is not None
    assert (loaded.token, loaded.sequence) == (3, 5)
    assert same(loaded.snapshot, snapshot)
    assert [(info.key, info.bytes) for info in artifacts.list()] == [
        (f"takes/{KEY}/checkpoints/000000000003-00000005.ckpt", size)
    ]


def test_numbers_of_a_history_keep_every_bit_and_their_kind(checkpoints: Checkpoints) -> None:
    history = (1, 1.0, 0.1 + 0.2, float("inf"), None, 2**70, torch.tensor(1.5, dtype=torch.bfloat16))
    snapshot = Snapshot(torch.zeros(1, 1, 1, 1), (1,), (history,), {})
    checkpoints.save(snapshot, token=1, sequence=0)
    loaded = checkpoints.load_newest()
    assert loaded is not None
    assert same(loaded.snapshot, snapshot)


def test_only_the_newest_two_are_kept(artifacts: Artifacts) -> None:
    checkpoints = Checkpoints(artifacts, KEY)
    artifacts.put(f"takes/{KEY}/latents.safetensors", b"not one of them")
    for sequence in range(5):
        checkpoints.save(snapshot_after(sequence), token=1 + sequence // 4, sequence=sequence)
    names = [info.key.rsplit("/", 1)[1] for info in artifacts.list(f"takes/{KEY}/checkpoints")]
    assert names == ["000000000001-00000003.ckpt", "000000000002-00000004.ckpt"]
    checkpoints.clear()
    assert checkpoints.load_newest() is None
    assert len(artifacts.list()) == 1


# -------------------------------------------------------------------------------------------- fencing


def test_a_writer_with_an_older_token_is_fenced_and_changes_nothing(artifacts: Artifacts) -> None:
    old, new = Checkpoints(artifacts, KEY), Checkpoints(artifacts, KEY)
    old.save(snapshot_after(3), token=1, sequence=7)
    new.save(snapshot_after(5), token=2, sequence=0)
    before = artifacts.list()
    with pytest.raises(Fenced, match="held by token 2; 1 must stop"):
        old.save(snapshot_after(9), token=1, sequence=8)
    assert artifacts.list() == before


def test_an_older_token_that_slips_past_the_check_is_still_not_the_newest(
    folder: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = Checkpoints(folder, KEY), Checkpoints(folder, KEY)
    old.save(snapshot_after(3), token=1, sequence=7)
    seen_by_old = old._names()
    new.save(snapshot_after(5), token=2, sequence=0)
    new.save(snapshot_after(6), token=2, sequence=1)
    monkeypatch.setattr(old, "_names", lambda: seen_by_old)
    old.save(snapshot_after(9), token=1, sequence=8)
    loaded = new.load_newest()
    assert loaded is not None
    assert (loaded.token, loaded.sequence) == (2, 1)


def test_a_second_writer_with_the_same_token_is_fenced(artifacts: Artifacts) -> None:
    Checkpoints(artifacts, KEY).save(snapshot_after(3), token=1, sequence=0)
    with pytest.raises(Fenced, match="another writer with token 1"):
        Checkpoints(artifacts, KEY).save(snapshot_after(4), token=1, sequence=0)


# -------------------------------------------------------------------------------------------- damage


def newest_key(folder: Artifacts) -> str:
    return folder.list(f"takes/{KEY}/checkpoints")[-1].key


DAMAGES: dict[str, Any] = {
    "empty": lambda data: b"",
    "torn": lambda data: data[: len(data) // 2],
    "without its end": lambda data: data[:-1],
    "longer": lambda data: data + b"\0",
    "zeroed": lambda data: bytes(len(data)),
    "bit flipped in the header": lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
    "bit flipped in a latent": lambda data: data[:-100] + bytes([data[-100] ^ 16]) + data[-99:],
    "bit flipped in its sha256": lambda data: data[:-1] + bytes([data[-1] ^ 128]),
    "sealed nothing": lambda data: _seal(b""),
    "sealed garbage": lambda data: _seal(b"garbage" * 99),
    "a sealed pickle": lambda data: _seal(b"\x80\x04cos\nsystem\n(S'true'\ntR."),
    "sealed safetensors of others": lambda data: _seal(save({"latents": torch.zeros(1, 1, 1, 1)})),
    "sealed with an endless header": lambda data: _seal(b"\xff" * 8 + data),
    "sealed with nested lists": lambda data: _seal((10**6).to_bytes(8, "little") + b"[" * 10**6),
    "of a later format": lambda data: _seal(
        save({"latents": torch.zeros(1, 1, 1, 1)}, metadata={"format": "longtake-checkpoint-2", "state": "{}"})
    ),
    "with a state that is no object": lambda data: _seal(
        save({"latents": torch.zeros(1, 1, 1, 1)}, metadata={"format": "longtake-checkpoint-1", "state": "[]"})
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_checkpoint_is_skipped_for_the_one_before_it_and_its_name_used_again(
    folder: Artifacts, checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture, damage: Any
) -> None:
    good = snapshot_after(10)
    checkpoints.save(good, token=1, sequence=0)
    checkpoints.save(snapshot_after(20), token=1, sequence=1)
    key = newest_key(folder)
    folder.put(key, damage(folder.get(key)))
    with caplog.at_level(logging.WARNING):
        loaded = checkpoints.load_newest()
    assert loaded is not None
    assert loaded.sequence == 0
    assert same(loaded.snapshot, good)
    assert key in caplog.text

    checkpoints.save(snapshot_after(21), token=1, sequence=1)
    again = checkpoints.load_newest()
    assert again is not None
    assert again.sequence == 1


@settings(max_examples=80)
@given(st.data())
def test_no_single_flipped_bit_goes_unnoticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    artifacts = Artifacts.open(str(tmp_path_factory.mktemp("a")))
    checkpoints = Checkpoints(artifacts, KEY)
    checkpoints.save(snapshot_after(12), token=1, sequence=0)
    key = newest_key(artifacts)
    content = bytearray(artifacts.get(key))
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    artifacts.put(key, bytes(content))
    assert checkpoints.load_newest() is None


def test_a_checkpoint_of_another_take_or_under_another_name_is_skipped(
    folder: Artifacts, checkpoints: Checkpoints
) -> None:
    other = Checkpoints(folder, "cd" * 32)
    other.save(snapshot_after(10), token=9, sequence=9)
    foreign = folder.get(f"takes/{'cd' * 32}/checkpoints/000000000009-00000009.ckpt")
    checkpoints.save(snapshot_after(5), token=1, sequence=0)
    own = folder.get(newest_key(folder))
    prefix = f"takes/{KEY}/checkpoints"
    folder.put(f"{prefix}/000000000009-00000009.ckpt", foreign)
    folder.put(f"{prefix}/000000000008-00000000.ckpt", own)
    folder.put(f"{prefix}/zzz.ckpt", own)
    loaded = checkpoints.load_newest()
    assert loaded is not None
    assert (loaded.token, loaded.sequence) == (1, 0)


def test_a_checkpoint_of_another_shape_is_skipped(checkpoints: Checkpoints) -> None:
    checkpoints.save(snapshot_after(5), token=1, sequence=0)
    assert checkpoints.load_newest(shape=(NUM_LATENTS, *SHAPE)) is not None
    assert checkpoints.load_newest(shape=(NUM_LATENTS + 1, *SHAPE)) is None


@pytest.mark.parametrize("bad", ["steps", "histories", "dtype", "dimensions", "prediction"])
def test_a_snapshot_that_does_not_fit_together_is_skipped(checkpoints: Checkpoints, bad: str) -> None:
    fields: dict[str, Any] = vars(snapshot_after(17)).copy()
    fields |= {
        "steps": {"steps": fields["steps"][:-1]},
        "histories": {"histories": fields["histories"] + ((),)},
        "dtype": {"latents": fields["latents"].double()},
        "dimensions": {"latents": fields["latents"][0]},
        "prediction": {"predictions": {(0, 0): torch.zeros(3, 4, 2, 9)}},
    }[bad]
    checkpoints.save(Snapshot(**fields), token=1, sequence=0)
    assert checkpoints.load_newest() is None


def test_a_checkpoint_holds_no_pickle_and_says_what_it_is(folder: Artifacts, checkpoints: Checkpoints) -> None:
    checkpoints.save(snapshot_after(5), token=1, sequence=0)
    content = folder.get(newest_key(folder))
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header["__metadata__"]["format"] == "longtake-checkpoint-1"
    assert json.loads(header["__metadata__"]["state"])["content_key"] == KEY


def test_checkpoints_that_are_pruned_while_they_are_read_give_way_to_newer_ones(
    folder: Artifacts, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.save(snapshot_after(5), token=1, sequence=0)
    listing = checkpoints._names
    calls = 0

    def names() -> list[tuple[int, int]]:
        nonlocal calls
        calls += 1
        found = listing()
        if calls == 1:  # meanwhile the writer goes on
            for sequence in (1, 2):
                Checkpoints(folder, KEY).save(snapshot_after(6), token=1, sequence=sequence)
        return found

    monkeypatch.setattr(checkpoints, "_names", names)
    loaded = checkpoints.load_newest()
    assert loaded is not None
    assert loaded.sequence == 2
