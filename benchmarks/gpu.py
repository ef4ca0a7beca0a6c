"""What Longtake costs on a GPU: attention kernels, a whole call, decoding; GPU-seconds for a second of video.

Random weights, so nothing is downloaded. Shapes are those of Wan 1.3B and 14B with chunks of 21 latents at 480p and
720p. Every kernel is first compared with torch's scaled_dot_product_attention in fp32 on a small case: one that is off
by more than 2e-2 is reported as wrong and not timed.

1. attention: each backend that this machine has, over the tokens of one chunk.
2. ring: a chunk's attention in 1, 2, 4 and 8 blocks on one GPU, merged: what the merge costs beside what is computed.
3. call: a whole guided call through our denoiser, with and without torch.compile, beside diffusers' own transformer.
4. decode: the VAE, seconds for a second of video.

    python -m benchmarks.gpu [--only attention|ring|call|decode] [--repeats 5]

`--device cpu --tiny` runs every line of it on a CPU in a minute; its numbers mean nothing.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from serving.models.codec import WanCodec
from serving.models.packed_prompts import PackedPrompts
from serving.models.registry import open_model
from serving.models.testing import write_tiny_checkpoint
from sharding.attention import AttentionBackend, CpuFlash, TorchCuda, Xformers, has_xformers
from sharding.denoiser import PromptPart
from sharding.ring import merge_blocks

TOLERANCE = 2e-2
CHUNK_LATENTS = 21
RING_BLOCKS = (1, 2, 4, 8)
DECODED_LATENTS = 6
FPS = 16


@dataclass(frozen=True)
class Shape:
    """A model's transformer and the size of its pictures."""

    name: str
    heads: int
    layers: int
    ffn: int
    width: int
    height: int
    head_width: int = 128
    latents: int = CHUNK_LATENTS

    @property
    def tokens(self) -> int:
        return self.latents * (self.height // 16) * (self.width // 16)


SHAPES = (
    Shape("Wan 1.3B, 480p", 12, 30, 8960, 832, 480),
    Shape("Wan 14B, 480p", 40, 40, 13824, 832, 480),
    Shape("Wan 14B, 720p", 40, 40, 13824, 1280, 720),
)
TINY = (Shape("tiny", 2, 1, 64, 64, 48, head_width=24, latents=4),)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["attention", "ring", "call", "decode"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        print("there is no GPU that torch can use; nothing was measured")
        return 1
    bench = Bench(given.device, given.repeats)
    shapes = TINY if given.tiny else SHAPES
    print(f"{bench.product}, torch {torch.__version__}, {bench.dtype}, medians of {given.repeats}")
    for name, part in (("attention", bench.attention), ("ring", bench.ring), ("call", bench.call)):
        if given.only in (None, name):
            part(shapes)
    if given.only in (None, "decode"):
        bench.decode(shapes)
    return 0


class Bench:
    """Measures on one device."""

    def __init__(self, device: str, repeats: int) -> None:
        self.device, self.repeats = device, repeats
        self.dtype = torch.bfloat16 if device == "cuda" else torch.float32
        self.product = torch.cuda.get_device_name() if device == "cuda" else "CPU"

    def backends(self) -> list[AttentionBackend]:
        if self.device != "cuda":
            return [CpuFlash()]
        return [TorchCuda(), Xformers()] if has_xformers() else [TorchCuda()]

    # -------------------------------------------------------------------------------------------- attention

    def attention(self, shapes: Sequence[Shape]) -> None:
        print(
            "\n| shape | tokens | backend | off by | ms | block with lse, ms | TFLOP/s |\n|---|---|---|---|---|---|---|"
        )
        for backend in self.backends():
            off = self.error_of(backend)
            for shape in shapes:
                if off > TOLERANCE:
                    print(f"| {shape.name} | {shape.tokens} | {backend.name} | {off:.1e}, wrong | | | |", flush=True)
                    continue
                inputs = self.inputs(shape.tokens, shape)
                whole = self.seconds(lambda: backend.attend(*inputs))  # noqa: B023
                block = self.seconds(lambda: backend.attend_block(*inputs))  # noqa: B023
                flop = 4 * shape.tokens**2 * shape.heads * shape.head_width
                cells = (
                    shape.name,
                    shape.tokens,
                    backend.name,
                    f"{off:.1e}",
                    f"{whole * 1e3:.2f}",
                    f"{block * 1e3:.2f}",
                )
                print("| " + " | ".join(map(str, cells)) + f" | {flop / whole / 1e12:.1f} |", flush=True)

    def error_of(self, backend: AttentionBackend) -> float:
        """The most that it, its blocks merged or its packed sequences differ from the definition."""
        random = torch.Generator().manual_seed(0)
        query, key, value = (torch.randn(1, 96, 4, 64, generator=random) for _ in range(3))
        heads_first = [tensor.transpose(1, 2) for tensor in (query, key, value)]
        expected = torch.nn.functional.scaled_dot_product_attention(*heads_first).transpose(1, 2)
        mine = [tensor.to(self.device, self.dtype) for tensor in (query, key, value)]
        first = backend.attend_block(mine[0], mine[1][:, :40], mine[2][:, :40])
        second = backend.attend_block(mine[0], mine[1][:, 40:], mine[2][:, 40:])
        merged, _ = merge_blocks(first[0].float(), first[1], *second)
        packed = backend.attend_packed(*mine, query_lengths=[30, 66], key_lengths=[50, 46])
        parts = [
            torch.nn.functional.scaled_dot_product_attention(
                *(tensor[:, :, span] for tensor, span in zip(heads_first, spans, strict=True))
            ).transpose(1, 2)
            for spans in ((slice(30), slice(50), slice(50)), (slice(30, None), slice(50, None), slice(50, None)))
        ]
        pairs = ((backend.attend(*mine), expected), (merged, expected), (packed, torch.cat(parts, dim=1)))
        return max(float((found.float().cpu() - right).abs().max()) for found, right in pairs)

    # -------------------------------------------------------------------------------------------- ring

    def ring(self, shapes: Sequence[Shape]) -> None:
        print("\n| shape | backend | blocks | ms | over one block |\n|---|---|---|---|---|")
        for backend in self.backends():
            for shape in shapes:
                query, key, value = self.inputs(shape.tokens, shape)
                times = {}
                for blocks in RING_BLOCKS:
                    pairs = list(zip(key.tensor_split(blocks, dim=1), value.tensor_split(blocks, dim=1), strict=True))

                    def attend(pairs: list[tuple[Tensor, Tensor]] = pairs) -> None:
                        out, lse = backend.attend_block(query, *pairs[0])  # noqa: B023
                        merged = out.float(), lse
                        for pair in pairs[1:]:
                            merged = merge_blocks(*merged, *backend.attend_block(query, *pair))  # noqa: B023

                    times[blocks] = self.seconds(attend)
                    over = times[blocks] / times[1]
                    cells = (shape.name, backend.name, blocks, f"{times[blocks] * 1e3:.2f}", f"{over:.3f}")
                    print("| " + " | ".join(map(str, cells)) + " |", flush=True)

    # -------------------------------------------------------------------------------------------- call

    def call(self, shapes: Sequence[Shape]) -> None:
        print("\n| shape | what | s a guided call | GPU-s for a second of video, 40 steps |\n|---|---|---|---|")
        for shape in shapes:
            with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
                for what, seconds in self.call_times(shape, Path(folder)).items():
                    video = (shape.latents - 1) * 4 / FPS  # seconds; 4 frames a latent
                    print(f"| {shape.name} | {what} | {seconds:.3f} | {40 * seconds / video:.1f} |", flush=True)

    def call_times(self, shape: Shape, folder: Path) -> dict[str, float]:
        transformer = self.transformer(shape)
        write_tiny_checkpoint(folder, "2.1")
        model = open_model(str(folder))
        model = replace(model, capabilities=replace(model.capabilities, window=shape.latents))
        denoiser = model.load_denoiser(device=self.device, dtype=self.dtype)
        text = torch.zeros(512, transformer.config.text_dim)
        part = PromptPart(text, text, torch.ones(shape.latents))
        latents = torch.randn(shape.latents, 16, shape.height // 8, shape.width // 8)

        def ours() -> None:
            denoiser.predict(latents, timestep=500.0, parts=[part], start=0)

        def theirs() -> None:
            batch = latents.to(self.device, self.dtype).transpose(0, 1)[None]
            words = text.to(self.device, self.dtype)[None]
            for _ in range(2):
                transformer(
                    hidden_states=batch, timestep=torch.tensor([500.0], device=self.device),
                    encoder_hidden_states=words, return_dict=False,
                )  # fmt: skip

        times = {"diffusers' transformer, twice": self.seconds(theirs)}
        denoiser._experts[0] = transformer  # in place of the tiny checkpoint's; so large a one need not be written down
        denoiser._prompts[0] = PackedPrompts(transformer, denoiser._backend)
        times["our denoiser"] = self.seconds(ours)
        transformer.compile()
        times["our denoiser, compiled"] = self.seconds(ours)
        return times

    def transformer(self, shape: Shape) -> Any:
        from diffusers import WanTransformer3DModel

        with torch.device("meta"):
            made = WanTransformer3DModel(
                num_attention_heads=shape.heads, attention_head_dim=shape.head_width, ffn_dim=shape.ffn,
                num_layers=shape.layers, text_dim=4096 if shape.layers > 1 else 16,
            )  # fmt: skip
        made = made.to_empty(device=self.device).to(self.dtype).eval().requires_grad_(False)
        for parameter in made.parameters():
            parameter.normal_(std=0.02)
        for name, module in made.named_modules():  # as loading keeps them
            if any(kept in name.split(".") for kept in made._keep_in_fp32_modules):
                module.float()
        made.rope = type(made.rope)(shape.head_width, (1, 2, 2), 1024).to(self.device)  # its tables are no parameters
        return made

    # -------------------------------------------------------------------------------------------- decode

    def decode(self, shapes: Sequence[Shape]) -> None:
        from diffusers import AutoencoderKLWan

        print("\n| VAE | size | s for a second of video |\n|---|---|---|")
        for width, height in sorted({(shape.width, shape.height) for shape in shapes}):
            if self.device == "cuda":  # Wan's own, with random weights
                codec = WanCodec(AutoencoderKLWan().to(self.device).eval().requires_grad_(False))
            else:
                codec = open_model("pocket").open_codec()
            latents = torch.randn(DECODED_LATENTS, 16, height // 8, width // 8)
            frames = []
            for latent in latents:  # the first is one frame, and warms
                self.wait()
                started = time.perf_counter()
                frames.append((len(codec.decode(latent)), time.perf_counter() - started))
            seconds = sum(spent for _, spent in frames[1:]) / sum(count for count, _ in frames[1:]) * FPS
            print(f"| {'Wan' if self.device == 'cuda' else 'pocket'} | {width}x{height} | {seconds:.3f} |", flush=True)

    # -------------------------------------------------------------------------------------------- inner

    def inputs(self, tokens: int, shape: Shape) -> list[Tensor]:
        size = (1, tokens, shape.heads, shape.head_width)
        return [torch.randn(size, device=self.device, dtype=self.dtype) for _ in range(3)]

    def seconds(self, work: Callable[[], Any]) -> float:
        times = []
        with torch.inference_mode():
            for _ in range(self.repeats + 1):  # the first warms
                self.wait()
                started = time.perf_counter()
                work()
                self.wait()
                times.append(time.perf_counter() - started)
        return statistics.median(times[1:])

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main())
