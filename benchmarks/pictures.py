"""Does a film follow its pictures? 60 held-out cases of pocket's world, what a call costs in bytes, and preparation.

For each combination that was held out of training a clip of one window is drawn at a random phase. Its first frame, or
its first and last, are given as pictures with a caption; the film is judged by benchmarks.adherence's detector, beside
the pictures and the clip that they were taken from, and by benchmarks.movement: is the path between whole? The last
frame of such a clip follows from the first, so a model that knows the world can meet both. Then both ends of takes of
two windows, under every stitching.

    python -m benchmarks.pictures [--checkpoint DIR] [--steps 24] [--cases 60]

Legend: F frames, H height, W width (pixels), N latents.
"""

import argparse
import pickle
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.adherence import WINDOW_FRAMES, Detection, detect, held_out_prompts, score
from benchmarks.movement import find_faults
from serving.models.conditions import PlacedPicture, TakePictures
from serving.models.pocket import world
from serving.models.registry import open_model
from serving.models.testing import Variant, write_tiny_checkpoint
from serving.models.wan import WanModel
from serving.planning.compile import compile_storyboard
from serving.planning.stitching import stitchings_of
from serving.render.conditions import arrays_of
from serving.render.messages import GangCall, TakeInputs
from serving.render.takes import call_input, open_recipe, open_timeline
from serving.render.threads import one_thread
from serving.storyboard import parse_storyboard
from sharding.denoiser import Condition, PromptPart
from sharding.noise import initial_noise, unit_normal
from sharding.spans import Frames, Latents
from sharding.stitching import StitchingKind, schedule
from sharding.timeline import Recipe, Timeline

Picture = npt.NDArray[np.uint8]

LONG_LATENTS = 16
"""Of a take of two windows and more between its first picture and its last."""
LONG_EVERY = 4
"""One case of so many is rendered that long."""


@dataclass(frozen=True)
class Case:
    """A clip at its phase and a caption of it."""

    clip: world.Clip
    prompt: str
    number: int

    def truth(self, frames: int = WINDOW_FRAMES) -> npt.NDArray[np.float32]:
        """The clip, [F, H, W, 3] in 0..1."""
        truth: npt.NDArray[np.float32] = world.render(self.clip, frames).permute(1, 2, 3, 0).numpy()
        return truth

    def picture(self, frame: int) -> Picture:
        """One frame of the clip as a file would hold it."""
        picture: Picture = (self.truth(frame + 1)[frame] * 255).round().astype(np.uint8)
        return picture


@dataclass(frozen=True)
class Seen:
    """How a film came out."""

    case: Case
    detection: Detection
    first_error: float
    """Mean difference of its first frame from the picture, of a range of 1."""
    last_error: float
    """The same of its last frame and the clip's."""
    place_error: float
    """Pixels between the object and where the clip has it, mean over the first half second; nan if it is not seen."""
    broken: bool
    """There is a frame with no object, with several, or with a jump (benchmarks.movement)."""


def draw_cases(count: int) -> list[Case]:
    """Held-out combinations, each at a phase of its own at which the object is wholly in the frame at first."""
    rng = random.Random(1)
    cases = []
    for number, (clip, prompt) in enumerate(held_out_prompts()):
        while True:
            placed = world.Clip(clip.colour, clip.shape, clip.motion, clip.backdrop, phase=rng.random())
            x, y = (float(path[0]) for path in world.object_path(placed, 1))
            room = world.RADIUS
            if room <= x <= world.WIDTH - room and room <= y <= world.HEIGHT - room:
                break
        cases.append(Case(placed, prompt, number))
    return cases[:: max(1, len(cases) // count)][:count]


def render(
    model: WanModel,
    case: Case,
    frames: Sequence[int],
    *,
    steps: int,
    latents: int,
    stitching: StitchingKind = "joint",
) -> npt.NDArray[np.float32]:
    """A take [F, H, W, 3] in 0..1 with the clip's pictures given at these frames."""
    grid, window, size = model.capabilities.grid, model.capabilities.window, (world.HEIGHT, world.WIDTH)
    last = grid.frames_of(Latents(latents)) - 1
    placed = [PlacedPicture(grid.latent_at(Frames(f)), f == last, case.picture(f)) for f in frames]
    condition = model.make_condition(TakePictures(placed), size=size, latents=latents)
    denoiser = model.load_denoiser(guidance_batching="batched")
    embedding, negative = model.encode_prompts([case.prompt, ""])
    shape = model.capabilities.latent_shape(width=world.WIDTH, height=world.HEIGHT)
    noise = initial_noise(
        shape, num_latents=latents, storyboard_seed=case.number, take_seed=case.number, take_key="case",
        window=window, identity=0.0,
    )  # fmt: skip
    start = torch.stack([condition.given.get(n, noise[n]) for n in range(latents)])
    plan = schedule(
        replace(model.capabilities.stitching, kind=stitching),
        num_latents=latents, window=window, steps=steps, given=sorted(condition.given),
    )  # fmt: skip
    recipe = Recipe.of(
        plan,
        solver_of=model.solver,
        step_noise=lambda n, step: unit_normal(shape, "step", case.number, n, step),
        shares=tuple(0.0 if n in condition.given else 1.0 for n in range(latents)),
    )
    timeline = Timeline(start, recipe)
    while not timeline.done:
        call = timeline.ready()[0]
        prediction = denoiser.predict(
            timeline.input_of(call), timestep=timeline.solver.timestep(call.step),
            parts=[PromptPart(embedding, negative, torch.ones(len(call.reads)))], start=call.reads.start,
            shares=timeline.shares_of(call), beside=condition.beside,
        )  # fmt: skip
        timeline.accept(call, prediction)
    codec = model.open_codec()
    film = torch.cat([codec.decode(timeline.latent(n)) for n in range(latents)])
    pixels: npt.NDArray[np.float32] = (film / 2 + 0.5).permute(0, 2, 3, 1).numpy()
    return pixels


def judge(case: Case, film: npt.NDArray[np.float32]) -> Seen:
    """Compare a film with its case."""
    truth, detection = case.truth(len(film)), detect(film)
    path = torch.stack(world.object_path(case.clip, len(film)), -1).numpy()
    apart = np.linalg.norm(detection.track - path, axis=1)[: world.FPS // 2]
    return Seen(
        case=case,
        detection=detection,
        first_error=float(np.abs(film[0] - truth[0]).mean()),
        last_error=float(np.abs(film[-1] - truth[-1]).mean()),
        place_error=float(np.nanmean(apart)) if np.isfinite(apart).any() else float("nan"),
        broken=find_faults(film, case.clip).events > 0,
    )


def report(name: str, seen: Sequence[Seen], *, seconds: float) -> None:
    """One row of the table."""
    scores = score([(one.case.clip, one.detection) for one in seen])
    places = [one.place_error for one in seen if np.isfinite(one.place_error)]
    cells = [f"{aspect} {share:6.1%}" for aspect, share in scores.items()]
    cells += [f"first {statistics.mean(one.first_error for one in seen):.3f}"]
    cells += [f"last {statistics.mean(one.last_error for one in seen):.3f}"]
    cells += [f"met {sum(one.first_error <= 0.05 for one in seen)}/{len(seen)}"]
    cells += [f"place {statistics.median(places):4.1f} px"]
    cells += [f"broken {sum(one.broken for one in seen)}"]
    print(f"{name:22s} " + "  ".join(cells) + f"  {seconds:.0f} s", flush=True)


# ---------------------------------------------------------------------------------------------- bytes and seconds

FILM = """
version: 1
model: {model}
shots:
  - {{id: a, prompt: a red ball moving right, seconds: {seconds}{image}}}
"""


def measure_bytes(model: WanModel, *, seconds: float) -> None:
    """What a gang is sent with and without a first picture."""
    rows, support = {}, model.capabilities.pictures
    images = [""] * (not support.needs_first) + [f", image: 'sha256:{'0' * 64}'"] * support.first
    for image in images:
        text = FILM.format(model=model.name, seconds=seconds, image=image)
        plan = compile_storyboard(parse_storyboard(text.encode()), model_name="model", capabilities=model.capabilities)
        take, can = plan.takes[0], model.capabilities
        pixels = np.zeros((plan.height, plan.width, 3), np.uint8)
        begin = time.perf_counter()
        pictures = TakePictures([PlacedPicture(picture.latent, False, pixels) for picture in take.pictures])
        size = (plan.height, plan.width)
        condition = model.make_condition(pictures, size=size, latents=take.latents) if take.conditioned else Condition()
        prepare_s = time.perf_counter() - begin
        given = {n: latent.numpy() for n, latent in condition.given.items()}
        recipe = open_recipe(plan, take, capabilities=can, solver_of=model.solver)
        timeline = open_timeline(plan, take, capabilities=can, recipe=recipe, given=given)
        call = timeline.ready()[0]
        each = len(pickle.dumps(GangCall(take.key, call_input(timeline, call, take=take)), protocol=5))
        once = len(pickle.dumps(TakeInputs({}, arrays_of(condition.beside)), protocol=5))
        rows[bool(image)] = (len(call.reads), each, once, prepare_s)
    for with_picture, (latents, each, once, prepare_s) in rows.items():
        name = "with a picture" if with_picture else "words alone"
        print(
            f"  {name:16s} {latents} latents a call, {each:7d} bytes a call ({each / latents:.0f} a latent),"
            f" {once:8d} bytes once, {prepare_s * 1000:.0f} ms to prepare"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--checkpoint", default="pocket")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--tiny", type=Path, help="folder for tiny checkpoints of Wan")
    options = parser.parse_args(arguments)
    model, cases, last = open_model(options.checkpoint), draw_cases(options.cases), WINDOW_FRAMES - 1
    with one_thread():
        report("rendered truth", [judge(case, case.truth()) for case in cases], seconds=0)
        for name, frames in (("words alone", ()), ("first", (0,)), ("first and last", (0, last)), ("last", (last,))):
            begin = time.monotonic()
            window = model.capabilities.window
            films = [render(model, case, frames, steps=options.steps, latents=window) for case in cases]
            report(name, [judge(*one) for one in zip(cases, films, strict=True)], seconds=time.monotonic() - begin)
        ends = 0, model.capabilities.grid.frames_of(Latents(LONG_LATENTS)) - 1
        print(f"first and last of takes of {LONG_LATENTS} latents:")
        for kind in stitchings_of(model.capabilities):
            begin = time.monotonic()
            long = [
                judge(case, render(model, case, ends, steps=options.steps, latents=LONG_LATENTS, stitching=kind))
                for case in cases[::LONG_EVERY]
            ]
            report(kind, long, seconds=time.monotonic() - begin)
        print(f"{options.checkpoint}, 10 seconds:")
        measure_bytes(model, seconds=10)
        if options.tiny is not None:
            print("a tiny Wan 2.1 text-to-video, image-to-video and VACE, 10 seconds:")
            variants: tuple[Variant, ...] = ("2.1", "2.1-i2v", "2.1-vace")
            for variant in variants:
                measure_bytes(open_model(str(write_tiny_checkpoint(options.tiny / variant, variant))), seconds=10)


if __name__ == "__main__":
    main()
