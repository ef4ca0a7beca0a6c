"""What computes on this machine, and how a model's numbers are kept there."""

import platform
from typing import Literal

import torch

from serving.models.transformer_size import bytes_per_number

GuidanceBatching = Literal["batched", "split"]
"""Whether prompt and negative go through the transformer as one batch of two or one after the other."""


def default_device() -> str:
    """`cuda` where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_product(device: str) -> str:
    """What computes: the GPU's product name, or a CPU's architecture and the instruction set that torch uses of it."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def default_dtype(device: str) -> torch.dtype:
    """bf16 on a GPU, fp32 on a CPU: see bytes_per_number."""
    return torch.bfloat16 if bytes_per_number(device) == 2 else torch.float32


def default_guidance_batching(device: str) -> GuidanceBatching:
    """Batched on a CPU: 10 to 20 % faster at pocket's size on one thread (2026-11-23). Split on a GPU, where one window
    of a real model fills the device and a batch of two only takes more memory.
    """
    return "split" if device.startswith("cuda") else "batched"
