"""What does a farm do beside each call of the model, and how much is that of the call? On one thread of a CPU.

Each cost stands as a ratio to one of pocket's calls, the cheapest of any model, measured in the same run; the bars are
shares of it that nobody would notice.

    python -m benchmarks.beside_a_call [--repeats 20]
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from serving.models.latent_rgb import shipped_rgb
from serving.models.registry import POCKET, open_model
from serving.models.schedulers import DiffusersSolver
from serving.models.wan import WanModel
from serving.render.latent_preview import LatentPreview
from sharding.denoiser import PromptPart
from sharding.solver import History, Solver

BARS = {"a preview of 100 latents": 0.25, "a step of Euler, each latent": 0.01, "a step of UniPC, each latent": 0.02}
"""The most that each may cost, as a share of a call. A take is shown at most once in two seconds."""

STEPS = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; returns 1 if a cost is over its bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args(arguments).repeats
    torch.set_num_threads(1)
    model = open_model(POCKET)
    call_s = best_s(prepare_call(model), repeats)
    unipc = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    costs_s = {
        "a preview of 100 latents": best_s(prepare_preview(model), repeats),
        "a step of Euler, each latent": steps_s(DiffusersSolver(FlowMatchEulerDiscreteScheduler(), STEPS), repeats),
        "a step of UniPC, each latent": steps_s(DiffusersSolver(unipc, STEPS), repeats),
    }
    print(f"a call of pocket: {1000 * call_s:.1f} ms of CPU, the best of {repeats}\n\n| what | ms | of a call | bar |")
    print("|---|---|---|---|")
    for what, cost_s in costs_s.items():
        print(f"| {what} | {1000 * cost_s:.3f} | {cost_s / call_s:.4f} | {BARS[what]} |")
    return int(any(cost_s / call_s > BARS[what] for what, cost_s in costs_s.items()))


def prepare_call(model: WanModel) -> Callable[[], object]:
    """A call of the model's full window at its own size."""
    made_for, denoiser = model.capabilities, model.load_denoiser(device="cpu")
    latents = torch.zeros(made_for.window, *made_for.latent_shape(width=made_for.width, height=made_for.height))
    prompt, negative = model.encode_prompts(["a red ball circling, day", ""], device="cpu")
    parts = [PromptPart(prompt, negative, torch.ones(made_for.window))]
    return lambda: denoiser.predict(latents, timestep=900.0, parts=parts, start=0)


def prepare_preview(model: WanModel) -> Callable[[], object]:
    """A strip of 100 latents, shown and made a PNG file."""
    rgb = shipped_rgb(model.folder)
    assert rgb is not None
    preview = LatentPreview(100, rgb)
    latents = np.random.default_rng(0).standard_normal((100, 16, 8, 12)).astype(np.float32)

    def show() -> None:
        preview.show(0, latents)
        preview.png()

    return show


def steps_s(solver: Solver, repeats: int) -> float:
    """CPU seconds of one step of one latent."""
    x, v_SChw = torch.randn(16, 8, 12), torch.randn(STEPS, 16, 8, 12)

    def run() -> None:
        history: History = ()
        latent = x
        for i in range(STEPS):
            latent, history = solver.step(i, latent, v_SChw[i], history, None)

    return best_s(run, repeats) / STEPS


def best_s(action: Callable[[], object], repeats: int) -> float:
    """CPU seconds of the fastest of several, since other processes may hold the caches."""
    action()
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        action()
        seconds.append(time.process_time() - started)
    return min(seconds)


if __name__ == "__main__":
    sys.exit(main())
