"""What Longtake costs on a GPU: attention kernels, a whole call, decoding; GPU-seconds for a second of video.

Random weights, so nothing is downloaded. Shapes are those of Wan 1.3B and 14B with chunks of 21 latents at 480p and
720p. Every kernel is first compared with torch's scaled_dot_product_attention in fp32 on a small case: one that is off
by more than 2e-2 is reported as wrong and not timed.

1. attention: each backend that this machine has, over the tokens of one chunk.
2. ring: a chunk's attention in 1, 2, 4 and 8 blocks on one GPU, merged: what the merge costs beside what is computed.
3. call: a whole guided call through our denoiser, in several ways, beside a step of diffusers' own WanPipeline.
4. decode: the VAE, seconds for a second of video.
5. ranks: pocket on a gang whose ranks share the one GPU and exchange by gloo: is what they predict what one rank does?

    python -m benchmarks.gpu [--only attention ring ranks decode call] [--shapes 0 1 2] [--repeats 5]

A part that fails is reported and the others go on. A large case is repeated for LIMIT_S seconds at most.

`--device cpu --tiny` runs every line of it on a CPU in a minute; its numbers mean nothing.
"""

import argparse
import gc
import socket
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from serving.models.codec import WanCodec
from serving.models.denoiser import ContextParallel
from serving.models.devices import GuidanceBatching
from serving.models.packed_prompts import PackedPrompts
from serving.models.registry import open_model
from serving.models.testing import write_tiny_checkpoint
from sharding.attention import AttentionBackend, CpuFlash, CudnnCuda, TorchCuda, Xformers, has_xformers
from sharding.denoiser import PromptPart
from sharding.gang_groups import make_groups
from sharding.gang_shape import GangShape
from sharding.ring import OWN_MERGE, Merge, choose_merge, merge_blocks

TOLERANCE = 2e-2
LIMIT_S = 20.0
HUGE_TOKENS = 50_000
"""Calls of more tokens are measured in fewer ways and steps."""
STEPS = 40
GUIDANCE = 5.0
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
PARTS = ("attention", "ring", "ranks", "decode", "call")
TINY = (Shape("tiny", 2, 1, 64, 64, 48, head_width=24, latents=4),)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--shapes", nargs="+", choices=range(len(SHAPES)), type=int, default=range(len(SHAPES)))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        print("there is no GPU that torch can use; nothing was measured")
        return 1
    bench = Bench(given.device, given.repeats)
    shapes = TINY if given.tiny else [SHAPES[index] for index in given.shapes]
    print(f"{bench.product}, torch {torch.__version__}, {bench.dtype}, medians of {given.repeats}")
    for name in PARTS:
        if name in given.only:
            try:
                getattr(bench, name)(shapes)
            except Exception:  # a GPU's time is dear: the other parts are still worth having
                print(f"\n{name} failed:\n{traceback.format_exc()}", flush=True)
    return 0


def attend_plainly(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention by its definition: tensors with heads first -> [batch, tokens, heads, width]."""
    return torch.nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)


class Bench:
    """Measures on one device."""

    def __init__(self, device: str, repeats: int) -> None:
        self.device, self.repeats = device, repeats
        self.dtype = torch.bfloat16 if device == "cuda" else torch.float32
        self.product = torch.cuda.get_device_name() if device == "cuda" else "CPU"

    def backends(self) -> list[AttentionBackend]:
        if self.device != "cuda":
            return [CpuFlash()]
        return [TorchCuda(), CudnnCuda(), *([Xformers()] if has_xformers() else [])]

    # -------------------------------------------------------------------------------------------- attention

    def attention(self, shapes: Sequence[Shape]) -> None:
        print(
            "\n| shape | tokens | backend | off by | ms | TFLOP/s | block with lse, ms | two prompts packed, ms |"
            "\n|---|---|---|---|---|---|---|---|"
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
                packed = self.seconds(lambda: self.packed(backend, inputs[0]))  # noqa: B023
                flop = 4 * shape.tokens**2 * shape.heads * shape.head_width
                times = (
                    f"{whole * 1e3:.2f}",
                    f"{flop / whole / 1e12:.1f}",
                    f"{block * 1e3:.2f}",
                    f"{packed * 1e3:.2f}",
                )
                cells = (shape.name, str(shape.tokens), backend.name, f"{off:.1e}", *times)
                print("| " + " | ".join(cells) + " |", flush=True)

    def packed(self, backend: AttentionBackend, query: Tensor) -> Tensor:
        """Cross-attention of both branches to prompts of different length."""
        half = query.shape[1] // 2
        keys = query[:, : min(600, half)].contiguous()
        queries, longer = [half, query.shape[1] - half], keys.shape[1] * 2 // 3
        lengths = [longer, keys.shape[1] - longer]
        return backend.attend_packed(query, keys, keys, query_lengths=queries, key_lengths=lengths)

    def error_of(self, backend: AttentionBackend) -> float:
        """The most that it, its blocks merged or its packed sequences differ from the definition."""
        random = torch.Generator().manual_seed(0)
        query, key, value = (torch.randn(1, 96, 4, 64, generator=random) for _ in range(3))
        heads_first = [tensor.transpose(1, 2) for tensor in (query, key, value)]
        expected = attend_plainly(*heads_first)
        mine = [tensor.to(self.device, self.dtype) for tensor in (query, key, value)]
        first = backend.attend_block(mine[0], mine[1][:, :40], mine[2][:, :40])
        second = backend.attend_block(mine[0], mine[1][:, 40:], mine[2][:, 40:])
        merged, _ = merge_blocks(first[0].float(), first[1], *second)
        packed = backend.attend_packed(*mine, query_lengths=[30, 66], key_lengths=[50, 46])
        parts = [
            attend_plainly(*(tensor[:, :, span] for tensor, span in zip(heads_first, spans, strict=True)))
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
                alone = 0.0
                for name, blocks, merge in self.merges(backend):
                    pairs = list(zip(key.tensor_split(blocks, dim=1), value.tensor_split(blocks, dim=1), strict=True))
                    spent = self.seconds(lambda: attend_blocks(backend, merge, query, pairs))  # noqa: B023
                    alone = alone or spent
                    cells = (shape.name, name, blocks, f"{spent * 1e3:.2f}", f"{spent / alone:.3f}")
                    print("| " + " | ".join(map(str, cells)) + " |", flush=True)

    def merges(self, backend: AttentionBackend) -> Iterator[tuple[str, int, Merge]]:
        for blocks in RING_BLOCKS:
            yield backend.name, blocks, OWN_MERGE
        chosen = choose_merge(self.device)  # compared with ours in value, or it would be ours
        if chosen.name != OWN_MERGE.name:
            for blocks in RING_BLOCKS[1:]:
                yield f"{backend.name}, {chosen.name}", blocks, chosen

    # -------------------------------------------------------------------------------------------- call

    def call(self, shapes: Sequence[Shape]) -> None:
        per_second = f"GPU-s for a second of video, {STEPS} steps"
        print(f"\n| shape | what | s a guided call | {per_second} | weights GiB | call GiB |")
        print("|---|---|---|---|---|---|")
        for shape in shapes:
            with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
                for what, call in self.calls(shape, Path(folder)):
                    held = self.begin_watching()
                    seconds = call()
                    video = (shape.latents - 1) * 4 / FPS  # seconds; 4 frames a latent
                    cells = (shape.name, what, f"{seconds:.3f}", f"{STEPS * seconds / video:.1f}", *self.watched(held))
                    print("| " + " | ".join(cells) + " |", flush=True)

    def calls(self, shape: Shape, folder: Path) -> Iterator[tuple[str, Callable[[], float]]]:
        transformer = self.transformer(shape)
        write_tiny_checkpoint(folder, "2.1")
        model = open_model(str(folder))
        model = replace(model, capabilities=replace(model.capabilities, window=shape.latents, guidance=(GUIDANCE,)))
        text = torch.randn(512, transformer.config.text_dim)
        part = PromptPart(text, text.flip(0), torch.ones(shape.latents))
        latents = torch.randn(shape.latents, 16, shape.height // 8, shape.width // 8)

        def ours(guidance_batching: GuidanceBatching = "split") -> float:
            denoiser = model.load_denoiser(device=self.device, dtype=self.dtype, guidance_batching=guidance_batching)
            # in place of the tiny checkpoint's: so large a one need not be written down
            denoiser._experts[0] = transformer
            denoiser._prompts[0] = PackedPrompts(transformer, denoiser._backend)
            return self.seconds(lambda: denoiser.predict(latents, timestep=500.0, parts=[part], start=0))

        def pipeline() -> float:
            return self.pipeline_step(shape, transformer, text)

        yield "a step of diffusers' WanPipeline", pipeline
        yield "our denoiser", ours
        if shape.tokens < HUGE_TOKENS:
            yield "our denoiser, both branches in one batch", lambda: ours("batched")
        transformer.compile_repeated_blocks()
        yield "our denoiser, compiled", ours

    def pipeline_step(self, shape: Shape, transformer: Any, text: Tensor) -> float:
        """Seconds of one of its steps, the first not counted."""
        from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline

        times: list[float] = []

        def note(_: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
            self.wait()
            times.append(time.perf_counter())
            return given

        pipeline = WanPipeline(
            tokenizer=None, text_encoder=None, vae=AutoencoderKLWan(base_dim=4), transformer=transformer,
            scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        )  # fmt: skip
        pipeline.set_progress_bar_config(disable=True)
        words = text.to(self.device, self.dtype)[None]
        pipeline(
            prompt_embeds=words, negative_prompt_embeds=words.flip(1), guidance_scale=GUIDANCE, output_type="latent",
            height=shape.height, width=shape.width, num_frames=(shape.latents - 1) * 4 + 1,
            num_inference_steps=4 if shape.tokens < HUGE_TOKENS else 2,
            callback_on_step_end=note,
        )  # fmt: skip
        return statistics.median(after - before for before, after in pairwise(times))

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

    # -------------------------------------------------------------------------------------------- ranks

    def ranks(self, _: Sequence[Shape]) -> None:
        print("\n| shape | split by | largest difference over the largest number |\n|---|---|---|")
        for shape in ("cfg=2", "ulysses=2", "ring=2", "ulysses=2 x ring=2", "ulysses=3"):
            ranks = GangShape.parse(shape).ranks
            apart = self.device == "cuda" and torch.cuda.device_count() >= ranks
            for split_by in ("longtake", "diffusers") if apart else ("longtake",):
                with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
                    out = Path(folder, "off")
                    try:
                        spawn(
                            predict_shared, (shape, free_port(), self.device, apart, split_by, str(out)), nprocs=ranks
                        )
                        found = out.read_text(encoding="utf-8")
                    except Exception as error:
                        found = next(line for line in reversed(str(error).splitlines()) if line.strip())
                print(f"| {shape} | {split_by} | {found} |", flush=True)

    # -------------------------------------------------------------------------------------------- inner

    def inputs(self, tokens: int, shape: Shape) -> list[Tensor]:
        size = (1, tokens, shape.heads, shape.head_width)
        return [torch.randn(size, device=self.device, dtype=self.dtype) for _ in range(3)]

    def seconds(self, work: Callable[[], Any]) -> float:
        """The median of at least one, at most `repeats`, after one that warms."""
        times: list[float] = []
        began = time.perf_counter()
        with torch.inference_mode():
            while len(times) <= self.repeats and (len(times) < 2 or time.perf_counter() - began < LIMIT_S):
                self.wait()
                started = time.perf_counter()
                work()
                self.wait()
                times.append(time.perf_counter() - started)
        return statistics.median(times[1:])

    def begin_watching(self) -> int:
        """Bytes that are held on the GPU now."""
        gc.collect()
        if self.device != "cuda":
            return 0
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()

    def watched(self, held: int) -> tuple[str, str]:
        """GiB that were held before, and that came on top at most."""
        peak = torch.cuda.max_memory_allocated() if self.device == "cuda" else 0
        return f"{held / (1 << 30):.2f}", f"{(peak - held) / (1 << 30):.2f}"

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def stage_through_memory() -> None:
    """Let gloo, which sends nothing from a GPU to one other rank, pass the blocks of a ring on by way of the CPU."""
    from sharding import ring

    pass_on = ring._pass_on

    def staged(block: Tensor, arriving: Tensor, **named: Any) -> list[Any]:
        received = torch.empty_like(arriving, device="cpu")
        for work in pass_on(block.cpu(), received, **named):
            work.wait()
        arriving.copy_(received)
        return []

    ring._pass_on = staged


def attend_blocks(
    backend: AttentionBackend, merge: Merge, query: Tensor, pairs: Sequence[tuple[Tensor, Tensor]]
) -> Tensor:
    """As a ring does it, but that all keys and values are here."""
    return merge(backend.attend_block(query, *pair) for pair in pairs)


def predict_shared(
    rank: int, shape: str, port: int, device: str, apart: bool, split_by: ContextParallel, out: str
) -> None:
    """One rank of a gang; rank 0 writes how far it is off a single rank. NCCL where each has a GPU of its own, else all
    share the one device and exchange by gloo."""
    import torch.distributed as dist

    store = dist.TCPStore("127.0.0.1", port, is_master=rank == 0, wait_for_workers=False)  # type: ignore[attr-defined]
    given = GangShape.parse(shape)
    if apart:
        torch.cuda.set_device(rank)
    backend = "cpu:gloo,cuda:nccl" if apart else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=given.ranks)
    groups = make_groups(given, timeout=timedelta(seconds=60))
    if not apart and device == "cuda":
        stage_through_memory()
    model = open_model("pocket")
    random = torch.Generator().manual_seed(0)
    window, (channels, height, width) = model.capabilities.window, model.capabilities.latent_shape(width=96, height=64)
    latents = torch.randn(window, channels, height, width, generator=random)
    prompt, negative = model.encode_prompts(["a red ball moving right, day", "blurry"])
    part = PromptPart(prompt, negative, torch.ones(window))
    alone = model.load_denoiser(device=device)
    together = model.load_denoiser(device=device, groups=groups, context_parallel=split_by)
    mine, whole = (one.predict(latents, timestep=500.0, parts=[part], start=0) for one in (together, alone))
    if rank == 0:
        off = float((mine - whole).abs().max() / whole.abs().max())
        Path(out).write_text(f"{off:.1e} (bits equal: {torch.equal(mine, whole)})", encoding="utf-8")
    dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
