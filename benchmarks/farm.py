"""What does the farm cost beside the bare work? Three ratios, each with its rival in the same run on the same machine.

1. gangs: a film of calls of about a second on a farm of two gangs against one of one gang; the rival is two plain
   processes that share out the same calls, against one.
2. overhead: a film on a warm farm of one gang against `longtake render --gangs 1` of the same storyboard; with pocket,
   and with calls of about a second. The two films must have the same sha256, else the program fails.
3. calls: 5 MB from a host to a gang and 5 MB back, beyond the prediction; the rival is a Serve handle that echoes them.

Rivals take turns, every film has a seed of its own, so nothing is found in the farm's cache. Farms are started by the
real command, one after the other; the first film of each, which is not counted, warms it.

    python -m benchmarks.farm [--only gangs|overhead|calls] [--repeats 3] [--seconds 10] [--shots 3]

Legend: n latents of a call, C channels, h and w height and width of a latent.
"""

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import ray
import torch
import yaml
from ray import serve
from torch import Tensor

from serving.actors.ports import GangActorPort
from serving.actors.ranks import RankActor
from serving.cli.film_plan import plan_film, read_storyboard
from serving.config.farm import FarmConfig
from serving.local_farm.home import FarmHome
from serving.local_farm.leftovers import end_farm
from serving.local_farm.ray_cluster import set_environment, shut_ray_down, start_ray
from serving.models.quiet import quiet_loading
from serving.models.testing import TEXT_DIM, write_tiny_checkpoint
from serving.render.local.film import render_film
from serving.render.local.progress import Progress
from serving.render.messages import Array, CallInput, Part, TakeInputs
from serving.render.rank import Rank, predict_call
from serving.render.takes import open_recipe
from serving.store.records import ENDED, JobStatus
from sharding.gang_shape import GangShape
from sharding.spans import LatentSpan
from testkit.farm_process import Farm, title

EXAMPLE = Path(__file__).parents[1] / "examples" / "demo.yaml"
"""The film that is rendered with pocket."""

STEPS = 24
"""Denoising steps of the film of long calls."""

WARM_STEPS = 2
"""Steps of the film that warms a farm: the same prompts and sizes, few calls."""

LAYERS = 10
"""Of the transformer of the model with long calls: about a second for a call of 16 latents of 8x6 on one core."""

LIMIT_S = 1800.0
"""Seconds that anything that is waited for may take."""

REST_S = 5.0
"""Seconds that a farm is given to come to rest before a film, in which its CPU time is measured."""

LOOK_S = 0.2
"""Interval, in seconds, of checking whether a film is there; its time is read from the store."""

CALL_SHAPE_nChw = (5, 16, 125, 125)
"""Float32 latents of exactly 5 MB."""

WARM_CALLS, NUM_CALLS = 20, 100
"""Of each path in one repeat: first some that are not counted."""

Storyboard = dict[str, Any]


@dataclass(frozen=True)
class FarmFilm:
    """A film that a warm farm rendered. Times are seconds."""

    wall_s: float
    """From just before it is submitted until it is completed."""
    before_s: float
    """Of those, until the first call is given out."""
    after_s: float
    """Of those, after the last take is rendered: the rest of decoding, joining, encoding."""
    calls: int
    busy: float
    """Part of the wall time that gangs had a call."""
    resting_cores: float
    """Cores that the farm used before, with nothing to do."""
    sha256: str
    cpu_s: dict[str, float]
    """CPU seconds by kind of process."""


@dataclass(frozen=True)
class RenderedFilm:
    """A film that was rendered in one process tree by what `longtake render --gangs 1` does. Times are seconds."""

    wall_s: float
    """From the first call given out until the film is there: as with a warm farm, nothing has to start."""
    total_s: float
    """The manifest's total_s: the text encoder and the gang's start as well."""
    sha256: str


@dataclass(frozen=True)
class PlainRun:
    """The calls of a film in plain processes."""

    wall_s: float
    calls_s: list[float]
    """Seconds of each call."""


@dataclass(frozen=True)
class EchoTimes:
    """Seconds of each exchange of 5 MB against 5 MB."""

    gang_s: list[float]
    serve_s: list[float]
    actor_s: list[float]
    """A plain Ray actor that returns the bare array."""


ECHOES = ("gang_s", "serve_s", "actor_s")

# ---------------------------------------------------------------------------------------------- films


_seeds = itertools.count(int(time.time()))


def pocket_storyboard() -> Storyboard:
    """The example, under a seed that no film had."""
    storyboard: Storyboard = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    return {**storyboard, "seed": next(_seeds)}


def slow_storyboard(model: Path, *, seconds: float, shots: int) -> Storyboard:
    """Takes for the model of long calls."""
    words = ("a red ball moving right day", "a blue box moving left night")
    written = [{"id": f"shot-{k}", "prompt": words[k % 2], "seconds": seconds} for k in range(shots)]
    return {"version": 1, "model": str(model), "seed": next(_seeds), "shots": written}


def write_slow_checkpoint(
    folder: Path, *, layers: int = LAYERS, window: int = 16, width: int = 64, height: int = 48
) -> Path:
    """A checkpoint whose calls take about a second on one core, and whose frames are decoded in little time."""
    from diffusers import WanTransformer3DModel

    write_tiny_checkpoint(folder, "2.1")
    with torch.random.fork_rng(devices=[]), quiet_loading():
        torch.manual_seed(0)
        transformer = WanTransformer3DModel(
            num_attention_heads=12,
            attention_head_dim=64,
            in_channels=16,
            out_channels=16,
            text_dim=TEXT_DIM,
            freq_dim=64,
            ffn_dim=3072,
            num_layers=layers,
            rope_max_seq_len=64,
        ).half()
        shutil.rmtree(folder / "transformer")
        transformer.save_pretrained(folder / "transformer", safe_serialization=True)
    made_for = {"window": window, "width": width, "height": height, "fps": 8, "guidance": [5.0]}
    (folder / "longtake.json").write_text(json.dumps(made_for), encoding="utf-8")
    return folder


# ---------------------------------------------------------------------------------------------- the farm


@contextmanager
def warm_farm(home: Path, model: str, gangs: int, warming: Storyboard) -> Iterator[Farm]:
    """A farm with that many gangs that has rendered a film already."""
    pool = {"MODEL": model, **dict.fromkeys(("GANGS", "MIN_GANGS", "MAX_GANGS"), str(gangs))}
    home.mkdir(parents=True, exist_ok=True)
    farm = Farm(home, extra={f"LONGTAKE_POOLS__0__{key}": value for key, value in pool.items()})
    try:
        farm.up()
        wait_for(lambda: _gangs_ready(farm) == gangs)
        film_of(farm, warming, steps=WARM_STEPS)
        yield farm
    finally:
        farm.down()


def film_of(farm: Farm, storyboard: Storyboard, *, steps: int | None = None) -> FarmFilm:
    """Submit a film after a rest and wait until it is completed."""
    resting = cpu_seconds(farm)
    time.sleep(REST_S)
    body = {"storyboard": storyboard} | ({} if steps is None else {"steps": steps})
    before = cpu_seconds(farm)
    with httpx.Client(base_url=farm.address, timeout=60, trust_env=False) as client:
        begin = time.time()
        answer = client.post("/v1/jobs", json=body)
        answer.raise_for_status()
        job_id = answer.json()["id"]
        with closing(sqlite3.connect(f"file:{farm.home}/farm.db?mode=ro", uri=True)) as store:
            wait_for(lambda: _is_over(store, job_id))
            times = "SELECT started_at, finished_at FROM jobs WHERE id = ?"
            started_at, finished_at = store.execute(times, (job_id,)).fetchone()
            rendered = "SELECT max(at) FROM events WHERE job_id = ? AND kind = 'take_rendered'"
            (rendered_at,) = store.execute(rendered, (job_id,)).fetchone()
        after = cpu_seconds(farm)
        job = client.get(f"/v1/jobs/{job_id}").raise_for_status().json()
    if job["status"] != "completed":
        raise RuntimeError(f"job {job_id} is {job['status']}: {job['error']}")
    if any(take["cached"] for take in job["takes"]):
        raise RuntimeError("a take was found in the cache")
    return FarmFilm(
        wall_s=finished_at - begin,
        before_s=started_at - begin,
        after_s=finished_at - rendered_at,
        calls=sum(take["calls"] for take in job["takes"]),
        busy=job["cost"]["gpu_seconds"] / (finished_at - begin) / _gangs_ready(farm),
        resting_cores=(sum(before.values()) - sum(resting.values())) / REST_S,
        sha256=job["film"]["sha256"],
        cpu_s={kind: after[kind] - before[kind] for kind in after},
    )


def cpu_seconds(farm: Farm) -> dict[str, float]:
    """CPU seconds that the processes of a farm have used, by their kind."""
    spent = dict.fromkeys([*KINDS.values(), OTHERS], 0.0)
    for process in farm.processes():
        name = title(process)
        kind = next((kind for word, kind in KINDS.items() if word in name), OTHERS)
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        spent[kind] += times.user + times.system
    return spent


KINDS = {
    "RankActor": "gangs",
    "Replica:longtake:Decoder": "decoder",
    "TimelineHostActor": "host",
    "DirectorActor": "Director",
    "Replica:longtake:Renderer": "leaders",
    "Replica:longtake:Api": "API",
}
"""What a process calls itself, and what the tables call it."""

OTHERS = "Ray and Serve"


def _gangs_ready(farm: Farm) -> int:
    live = farm.ask("GET", "/v1/pools")["data"][0]["live"]
    return 0 if live is None else int(live["gangs_ready"])


def _is_over(store: sqlite3.Connection, job_id: str) -> bool:
    (status,) = store.execute("SELECT status FROM jobs WHERE id = ?", (job_id,)).fetchone()
    return status in (*ENDED, JobStatus.PAUSED)


def wait_for(met: Callable[[], bool]) -> None:
    """Returns once it is so."""
    until = time.monotonic() + LIMIT_S
    while not met():
        if time.monotonic() > until:
            raise TimeoutError(f"it did not happen in {LIMIT_S:.0f} s")
        time.sleep(LOOK_S)


# ---------------------------------------------------------------------------------------------- without a farm


def render_alone(storyboard: Storyboard, folder: Path) -> RenderedFilm:
    """What `longtake render --gangs 1` does, in a process of its own."""
    path = folder / "film.yaml"
    path.write_text(json.dumps(storyboard), encoding="utf-8")
    with _processes(1, _render, path) as (connection,):
        film: RenderedFilm = connection.recv()
    return film


def _render(connection: Connection, path: Path) -> None:
    plan, model = plan_film(read_storyboard(path, model=None, seed=None), path, steps=None, model_given=False)
    first_call: list[float] = []

    def note(progress: Progress) -> None:
        """The time left is counted from the first call and the pace since; so it tells when that call was."""
        left, done = progress.calls_total - progress.calls_done, progress.calls_done
        if not first_call and progress.seconds_left is not None and left:
            first_call.append(time.monotonic() - progress.seconds_left / left * done)

    begin = time.monotonic()
    manifest = render_film(plan, model=model, out=path.with_suffix(".mp4"), gangs=1, on_progress=note)
    total_s = manifest["timings"]["total_s"]
    connection.send(RenderedFilm(begin + total_s - first_call[0], total_s, manifest["sha256"]))


def predict_plainly(storyboard: Storyboard, folder: Path, count: int) -> PlainRun:
    """The calls of a film in that many plain processes, each of which takes the next that is left."""
    path = folder / "film.yaml"
    path.write_text(json.dumps(storyboard), encoding="utf-8")
    context = multiprocessing.get_context("spawn")
    next_call = context.Value("i", 0)
    with _processes(count, _predict, path, next_call) as connections:
        for connection in connections:
            connection.recv()  # it is warm
        for connection in connections:
            connection.send("go")
        begin = time.monotonic()
        calls_s = [seconds for connection in connections for seconds in connection.recv()]
        return PlainRun(time.monotonic() - begin, calls_s)


def _predict(connection: Connection, path: Path, next_call: Any) -> None:
    torch.set_num_threads(1)
    plan, model = plan_film(read_storyboard(path, model=None, seed=None), path, steps=None, model_given=False)
    solver, denoiser = model.solver(plan.steps), model.load_denoiser()
    shape_Chw = model.capabilities.latent_shape(width=plan.width, height=plan.height)
    spans: list[tuple[int, LatentSpan]] = []
    for take in plan.takes:
        cover = open_recipe(plan, take, capabilities=model.capabilities, solver_of=model.solver).cover
        spans += [(step, span) for step in range(plan.steps) for span in cover(step)]
    assert len(spans) == plan.calls
    prompt = plan.takes[0].prompts[0]
    texts = (prompt.text, prompt.negative)
    inputs = TakeInputs({text: e.numpy() for text, e in zip(texts, model.encode_prompts(texts), strict=True)})
    noise = np.random.default_rng(0)

    def predict(step: int, span: LatentSpan) -> float:
        begin = time.monotonic()
        latents_nChw = noise.standard_normal((len(span), *shape_Chw), dtype=np.float32)
        part = Part(*texts, np.ones(len(span), np.float32))
        predict_call(denoiser, CallInput(latents_nChw, solver.timestep(step), (part,), span.start), inputs)
        return time.monotonic() - begin

    predict(*spans[0])
    connection.send("warm")
    connection.recv()
    calls_s: list[float] = []
    while True:
        with next_call.get_lock():
            index = next_call.value
            next_call.value += 1
        if index >= len(spans):
            connection.send(calls_s)
            return
        calls_s.append(predict(*spans[index]))


@contextmanager
def _processes(count: int, run: Callable[..., None], *arguments: object) -> Iterator[Sequence[Connection]]:
    """Fresh processes that run `run(connection, *arguments)`, until the block ends; our ends of their connections."""
    context = multiprocessing.get_context("spawn")
    processes, connections = [], []
    try:
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=run, args=(theirs, *arguments))
            process.start()
            theirs.close()
            processes.append(process)
            connections.append(ours)
        yield connections
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.terminate()


# ---------------------------------------------------------------------------------------------- calls of 5 MB


class EchoDenoiser:
    """Predicts what it is given, in no time."""

    def predict(self, latents_NChw: Tensor, **arguments: object) -> Tensor:
        return latents_NChw


class RankOfNothing(Rank):
    """A rank around a model that does nothing."""

    def __init__(self) -> None:
        self._shape, self._rank = GangShape(), 0
        self._denoiser: Any = EchoDenoiser()
        self._inputs = OrderedDict()


class EchoRank(RankActor):
    """A gang's rank as it is, but for its model."""

    def __init__(self) -> None:
        self._rank, self._others = RankOfNothing(), ()


class Echo:
    """The rival: a deployment, or an actor, that returns the array."""

    async def __call__(self, array: Array) -> Array:
        return array

    def echo(self, array: Array) -> Array:
        return array


class EchoHost:
    """Calls from an actor with an event loop, as timeline hosts are."""

    async def time_calls(self, rank: list[Any], actor: list[Any]) -> EchoTimes:
        """Each path in turn. Handles are in lists, so that they arrive as they are."""
        latents_nChw = np.random.default_rng(0).standard_normal(CALL_SHAPE_nChw, dtype=np.float32)
        part = Part("a red ball", "", np.ones(len(latents_nChw), np.float32))
        call = CallInput(latents_nChw, 500.0, (part,), 0)
        gang, bare = GangActorPort(rank[0]), serve.get_deployment_handle("Echo", "echo")
        embeddings = {text: np.zeros((12, 16), np.float32) for text in (part.text, part.negative)}
        await gang.keep_inputs("take", TakeInputs(embeddings))

        async def ask_gang() -> float:
            begin = time.perf_counter()
            output = await asyncio.wait_for(gang.predict(call, "take"), LIMIT_S)
            seconds = time.perf_counter() - begin - output.seconds
            assert output.prediction_nChw.nbytes == latents_nChw.nbytes
            return seconds

        async def ask_bare(ask: Any) -> float:
            begin = time.perf_counter()
            array = await ask(latents_nChw)
            seconds = time.perf_counter() - begin
            assert array.nbytes == latents_nChw.nbytes
            return seconds

        times = EchoTimes([], [], [])
        for number in range(WARM_CALLS + NUM_CALLS):
            found = (await ask_gang(), await ask_bare(bare.remote), await ask_bare(actor[0].echo.remote))
            if number >= WARM_CALLS:
                for measured, seconds in zip((times.gang_s, times.serve_s, times.actor_s), found, strict=True):
                    measured.append(seconds)
        return times


def time_calls(folder: Path) -> EchoTimes:
    """In a Ray of this process alone, started as a farm starts its own."""
    home = FarmHome(folder)
    ray_folder = home.make_ray_folder()
    set_environment(home, ray_folder)
    try:
        start_ray(FarmConfig(), ray_folder, deadline=time.monotonic() + LIMIT_S)
        serve.start(proxy_location="Disabled")
        deployment: Any = serve.deployment(Echo)
        serve.run(deployment.options(ray_actor_options={"num_cpus": 0}).bind(), name="echo", route_prefix=None)
        as_rank: Any = {"num_cpus": 1, "max_restarts": 0, "concurrency_groups": {"control": 2}}  # as start_rank does
        rank: Any = ray.remote(**as_rank)(EchoRank).remote()
        actor: Any = ray.remote(Echo).remote()
        host: Any = ray.remote(EchoHost).options(num_cpus=0, max_concurrency=1000).remote()
        times: EchoTimes = ray.get(host.time_calls.remote([rank], [actor]), timeout=LIMIT_S)
        return times
    finally:
        shut_ray_down()


def time_calls_apart(folder: Path) -> EchoTimes:
    """The same in a fresh process: Ray is not easily started twice in one."""
    command = [sys.executable, "-m", "benchmarks.farm", "--time-calls-in", str(folder)]
    home = FarmHome(folder)
    home.prepare()
    ray_folder = home.make_ray_folder()
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=LIMIT_S, check=True)
        return EchoTimes(**json.loads(done.stdout.splitlines()[-1]))
    finally:
        end_farm(ray_folder)
        home.keep_ray_logs(ray_folder)


# ---------------------------------------------------------------------------------------------- the benchmark


@dataclass
class Measured:
    """What was measured, one entry a repeat."""

    farm: dict[str, list[FarmFilm]]
    """By what the film is called."""
    alone: dict[str, list[RenderedFilm]]
    plain: dict[int, list[PlainRun]]
    """By the number of processes."""
    echo: list[EchoTimes]


POCKET, LONG, LONG_ON_TWO = "pocket", "long calls", "long calls, two gangs"


def measure(only: str | None, *, repeats: int, seconds: float, shots: int, folder: Path) -> Measured:
    """Everything that was asked for; rivals take turns."""
    measured = Measured({POCKET: [], LONG: [], LONG_ON_TWO: []}, {POCKET: [], LONG: []}, {1: [], 2: []}, [])
    model = write_slow_checkpoint(folder / "model")

    def on_farm(name: str, gangs: int, storyboard: Storyboard, warming: Storyboard) -> None:
        home = folder / f"home-{gangs}-{name.split()[0]}"
        with warm_farm(home, storyboard["model"], gangs, warming) as farm:
            measured.farm[name].append(film_of(farm, storyboard))

    def alone(name: str, storyboard: Storyboard) -> None:
        measured.alone[name].append(render_alone(storyboard, folder))

    for repeat in range(repeats):
        if only in (None, "calls"):
            _say("calls of 5 MB", repeat)
            measured.echo.append(time_calls_apart(folder / "home-calls"))
        if only in (None, "overhead"):
            _say("pocket on a farm of one gang, then alone", repeat)
            storyboard = pocket_storyboard()
            on_farm(POCKET, 1, storyboard, pocket_storyboard())
            alone(POCKET, storyboard)
        if only != "calls":
            storyboard = slow_storyboard(model, seconds=seconds, shots=shots)
            warming = slow_storyboard(model, seconds=seconds, shots=shots)
            _say("long calls on a farm of one gang", repeat)
            on_farm(LONG, 1, storyboard, warming)
        if only in (None, "overhead"):
            _say("long calls alone", repeat)
            alone(LONG, storyboard)
        if only in (None, "gangs"):
            _say("long calls on a farm of two gangs", repeat)
            on_farm(LONG_ON_TWO, 2, storyboard, warming)
            for count in (1, 2):
                _say(f"long calls in plain processes: {count}", repeat)
                measured.plain[count].append(predict_plainly(storyboard, folder, count))
        _check_films(measured)
    return measured


def _say(what: str, repeat: int) -> None:
    load = " ".join(f"{load:.1f}" for load in os.getloadavg())
    print(f"{time.strftime('%H:%M:%S')} load {load}, repeat {repeat + 1}: {what}", file=sys.stderr, flush=True)


def _check_films(measured: Measured) -> None:
    """Raises ValueError if the same film came out in different bytes."""
    pairs: list[tuple[str, str, Mapping[str, Sequence[FarmFilm | RenderedFilm]]]]
    pairs = [(POCKET, POCKET, measured.alone), (LONG, LONG, measured.alone), (LONG, LONG_ON_TWO, measured.farm)]
    for ours, name, theirs in pairs:
        for film, other in zip(measured.farm[ours], theirs[name], strict=False):  # not all may be measured
            if film.sha256 != other.sha256:
                raise ValueError(f"{ours} on a farm is {film.sha256}, but {name} elsewhere {other.sha256}")


def report(measured: Measured) -> None:
    """The ratios, and below them what they came from."""
    print("| | ours | rival | ratio | goal |\n|---|---|---|---|---|")
    farm, alone, plain, echo = measured.farm, measured.alone, measured.plain, measured.echo
    if plain[2]:
        ours, theirs = (
            _median(one) / _median(two)
            for one, two in ((_walls(farm[LONG]), _walls(farm[LONG_ON_TWO])), (_walls(plain[1]), _walls(plain[2])))
        )
        _row("two gangs over one; rival: two processes over one", ours, theirs, "at least 0.95")
    for name, goal in ((POCKET, 1.15), (LONG, 1.03)):
        if alone[name]:
            what = f"farm over render, {name}, s"
            _row(what, _median(_walls(farm[name])), _median(_walls(alone[name])), f"at most {goal}")
    if echo:
        gang_ms, serve_ms = (_median([1000 * t for times in echo for t in getattr(times, key)]) for key in ECHOES[:2])
        _row("5 MB to a gang and back over a Serve handle, p50 ms", gang_ms, serve_ms, "at most 1.3")
    if any(farm.values()):
        _report_times(measured)
        _report_farm(farm)
    if echo:
        _report_echo(echo)


def _row(what: str, ours: float, theirs: float, goal: str) -> None:
    print(f"| {what} | {ours:.3f} | {theirs:.3f} | **{ours / theirs:.3f}** | {goal} |")


def _report_times(measured: Measured) -> None:
    print("\nSeconds, the median and in brackets each repeat\n\n| | seconds |\n|---|---|")
    for name, films in measured.farm.items():
        _row_of(f"{name} on a farm, from submit to completed", _walls(films))
    for name, rendered in measured.alone.items():
        _row_of(f"{name} alone, from the first call to the film", _walls(rendered))
        _row_of(f"{name} alone, with the start of its processes", [film.total_s for film in rendered])
    for count, runs in measured.plain.items():
        _row_of(f"long calls in plain processes: {count}", _walls(runs))
        _row_of("one of these calls, median", [_median(run.calls_s) for run in runs])


def _row_of(what: str, values: Sequence[float]) -> None:
    if values:
        print(f"| {what} | {_median(values):.2f} ({' '.join(f'{value:.2f}' for value in values)}) |")


def _report_farm(farm: Mapping[str, Sequence[FarmFilm]]) -> None:
    kinds = [*KINDS.values(), OTHERS]
    print(
        "\nWhere a farm's time goes, medians in seconds. Gangs busy: part of the time that they have a call; at rest:"
    )
    print("cores that a farm uses that has nothing to do. The last columns are CPU seconds while the film is made\n")
    print(
        "| film | calls | wall | to first call | after the last take | gangs busy | at rest |", " | ".join(kinds), "|"
    )
    print("|---" * (7 + len(kinds)) + "|")
    for name, films in farm.items():
        if films:
            keys = ("wall_s", "before_s", "after_s", "busy", "resting_cores")
            cells = [f"{_median([getattr(film, key) for film in films]):.2f}" for key in keys]
            cells += [f"{_median([film.cpu_s[kind] for film in films]):.2f}" for kind in kinds]
            print(f"| {name} | {films[0].calls} |", " | ".join(cells), "|")


def _report_echo(echo: Sequence[EchoTimes]) -> None:
    megabytes = 4 * np.prod(CALL_SHAPE_nChw) / 1e6
    print(f"\n{megabytes:g} MB in and {megabytes:g} MB out, {NUM_CALLS} calls of each path in a repeat, milliseconds\n")
    print("| path | p50 of each repeat | p50 | p90 |\n|---|---|---|---|")
    for name, key in zip(("host, gang, host", "Serve handle", "plain Ray actor"), ECHOES, strict=True):
        times_ms = [[1000 * seconds for seconds in getattr(times, key)] for times in echo]
        every = sorted(itertools.chain(*times_ms))
        each = " ".join(f"{_median(one):.2f}" for one in times_ms)
        print(f"| {name} | {each} | {_median(every):.2f} | {every[int(0.9 * len(every))]:.2f} |")


def _walls(runs: Sequence[FarmFilm | RenderedFilm] | Sequence[PlainRun]) -> list[float]:
    return [run.wall_s for run in runs]


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def main() -> None:
    """Measure what was asked for and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("gangs", "overhead", "calls"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each shot of the film of long calls")
    parser.add_argument("--shots", type=int, default=3, help="shots of that film, a take each")
    parser.add_argument("--time-calls-in", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["RAY_AUTH_MODE"] = "disabled"
    if options.time_calls_in:
        print(json.dumps(asdict(time_calls(options.time_calls_in))))
        return
    with tempfile.TemporaryDirectory(prefix="farmbench-") as name:
        folder = Path(name)
        os.environ["LONGTAKE_HOME"] = str(folder / "home-alone")
        measured = measure(
            options.only, repeats=options.repeats, seconds=options.seconds, shots=options.shots, folder=folder
        )
    report(measured)


if __name__ == "__main__":
    main()
