"""Initial noise, latent by latent, from counters instead of a running generator: no order, no communication.

Latent n of a take starts from sqrt(rho) * g(n mod W) + sqrt(1 - rho) * xi(n). g is shared by all takes of a
storyboard and carries identity across cuts; xi is the take's own. Every window of at most W latents is independent
unit normal noise. The bits come from Philox (Salmon et al., SC 2011), the normal numbers from Box and Muller, both
independent of a library's choice of algorithm, so that a storyboard gives the same noise with every release.
"""

import hashlib
import math

import numpy as np
import torch
from torch import Tensor


def initial_noise(
    shape: tuple[int, int, int],
    *,
    num_latents: int,
    storyboard_seed: int,
    take_seed: int,
    take_key: str,
    window: int,
    identity: float,
) -> Tensor:
    """The noise a take starts from, float32 [N, C, h, w].

    `shape` is that of one latent (C, h, w); `identity` is rho, 0 (takes share nothing) to 1 (all noise is shared).
    Raises ValueError for a rho outside 0..1.
    """
    if not 0 <= identity <= 1:
        raise ValueError(f"identity must be 0..1, not {identity}")
    own = torch.stack([unit_normal(shape, "take", take_seed, take_key, n) for n in range(num_latents)])
    if identity == 0:
        return own
    shared = [unit_normal(shape, "identity", storyboard_seed, n) for n in range(min(window, num_latents))]
    repeated = torch.stack([shared[n % window] for n in range(num_latents)])
    return math.sqrt(identity) * repeated + math.sqrt(1 - identity) * own


def renewed_noise(
    shape: tuple[int, int, int],
    n: int,
    step: int,
    *,
    storyboard_seed: int,
    take_seed: int,
    take_key: str,
    window: int,
    identity: float,
) -> Tensor:
    """The new noise of latent n at a step, float32 `shape`: shared among takes as their first noise is."""
    own = unit_normal(shape, "step", take_seed, take_key, n, step)
    if identity == 0:
        return own
    shared = unit_normal(shape, "identity step", storyboard_seed, n % window, step)
    return math.sqrt(identity) * shared + math.sqrt(1 - identity) * own


def unit_normal(shape: tuple[int, ...], *key: str | int) -> Tensor:
    """Independent unit normal numbers, float32 of `shape`, that depend on `key` alone."""
    count = math.prod(shape)
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    bits = np.random.Philox(key=np.frombuffer(digest, dtype="<u8")).random_raw(2 * ((count + 1) // 2))
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius = np.sqrt(-2.0 * np.log(uniform[0::2]))
    angle = 2.0 * np.pi * uniform[1::2]
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
    return torch.from_numpy(normal.astype(np.float32).reshape(shape))
