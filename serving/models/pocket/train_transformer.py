"""Trains pocket's transformer together with its text encoder: flow matching on crops of encoded clips.

Every latent has a noise level of its own, as in Wan 2.2's 5B model (`expand_timesteps`: one timestep a token): in most
samples some latents are given clean, as pictures or as a run of the clip, and do not count in the loss
(serving/models/pocket/given.py draws them). Captions are drawn afresh at every step. Muon updates the hidden matrices
(clearly more sample efficient here than AdamW), AdamW the rest; the result is the exponential average of the weights.

Legend: B batch, C latent channels, N latents, H height, W width (latent cells), L tokens, A heads, D head size.
"""

import copy
import random
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttention
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from serving.models.pocket.given import Given, draw_given
from serving.models.pocket.latents import LatentSet
from serving.models.pocket.muon import BatchedMuon
from serving.models.pocket.prompts import TEXT_DIM, draw_prompt, embed

WINDOW = 8
"""Latents of a full chunk."""
SHORTEST = 3
"""Latents of the shortest chunk that a take may hold (ceil(3 * WINDOW / 8))."""
SHORT_RATE = 0.15
START_RATE = 0.35
"""Share of crops that start with a clip's first latent, which encodes one frame and looks different."""
DROP_RATE = 0.1
"""Share of prompts dropped for classifier-free guidance."""
SHIFT = 3.0
DECIDING_RATE = 0.4
"""Share of samples with a noise level around 0.86, where motion and layout are decided."""
BATCH = 24
STEPS = 5500
MUON_RATE = 3e-3
ADAMW_RATE = 1.5e-3
DECAY_FROM = 0.4
"""Share of the run after which the learning rate falls linearly to zero."""
AVERAGING = 0.998
SAVE_EVERY_S = 240.0


def build_transformer(channels: int) -> WanTransformer3DModel:
    """An untrained transformer of 3.3 M parameters, 24 tokens a latent."""
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=4,
        attention_head_dim=48,
        in_channels=channels,
        out_channels=channels,
        text_dim=TEXT_DIM,
        freq_dim=64,
        ffn_dim=512,
        num_layers=6,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=1024,
    )
    nn.init.zeros_(transformer.proj_out.weight)
    nn.init.zeros_(transformer.proj_out.bias)
    return transformer


class PlainAttention:
    """diffusers' attention as two matrix products: on CPU the fused kernel's backward is several times slower."""

    def __call__(
        self,
        attn: WanAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Attend from [B, L, A*D] to itself or to the text; same result as WanAttnProcessor."""
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q = attn.norm_q(attn.to_q(hidden_states)).unflatten(2, (attn.heads, -1))
        k = attn.norm_k(attn.to_k(source)).unflatten(2, (attn.heads, -1))
        v = attn.to_v(source).unflatten(2, (attn.heads, -1))
        if rotary_emb is not None:
            q, k = _rotate(q, *rotary_emb), _rotate(k, *rotary_emb)
        q, k, v = (tensor.transpose(1, 2).to(v.dtype) for tensor in (q, k, v))
        scores_BALL = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
        mixed = scores_BALL.softmax(-1).to(v.dtype) @ v
        out: Tensor = attn.to_out[0](mixed.transpose(1, 2).flatten(2))
        return out


def _rotate(x_BLAD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    even, odd = x_BLAD.view(*x_BLAD.shape[:-1], -1, 2).unbind(-1)
    cos, sin = cos[..., 0::2], sin[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


def draw_noise_level(batch: int) -> Tensor:
    """Noise levels in 0..1 [B]: some spread as the sampler's steps, some where layout and phase are decided."""
    as_sampled = _shifted(torch.rand(batch), SHIFT)
    deciding = _shifted(torch.randn(batch).sigmoid(), 2 * SHIFT)
    return torch.where(torch.rand(batch) < DECIDING_RATE, deciding, as_sampled)


def _shifted(level: Tensor, shift: float) -> Tensor:
    return shift * level / (1 + (shift - 1) * level)


def split_parameters(models: nn.ModuleDict) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The matrices inside the blocks, for Muon; embeddings, norms, biases and the output head, for AdamW."""
    hidden: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in models.named_parameters():
        inner = parameter.ndim == 2 and (".blocks." in name or ".block." in name) and "relative_attention" not in name
        (hidden if inner else rest).append(parameter)
    return hidden, rest


def learning_rate(done: float, step: int) -> float:
    """Factor on the learning rates: warm-up over 100 steps, constant, then linear to zero."""
    return min(1.0, (step + 1) / 100, max(0.0, (1 - done) / (1 - DECAY_FROM)))


def _average(average: nn.ModuleDict, models: nn.ModuleDict, step: int) -> None:
    """Move the averaged weights towards the current ones, faster in the beginning."""
    keep = min(AVERAGING, (1 + step) / (10 + step))
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(models.parameters()), 1 - keep)


def _save(models: nn.ModuleDict, out: Path) -> None:
    for name in ("transformer", "text_encoder"):
        model: Any = models[name]
        model.save_pretrained(out / name)


def train_transformer(
    latents: LatentSet,
    *,
    tokenizer: PreTrainedTokenizerFast,
    text_encoder: UMT5EncoderModel,
    seed: int,
    out: Path,
    seconds: float | None = None,
    start: Path | None = None,
) -> None:
    """Train both models and write `out`/transformer and `out`/text_encoder; until then the newest to `out`/partial,
    from where an interrupted run goes on. Without either it begins from the checkpoint folder `start`, if one is named.

    With `seconds` the run ends after that time instead of after `STEPS`.
    """
    torch.manual_seed(seed)
    rng = random.Random(seed)
    transformer, partial = build_transformer(latents.clips_KCNHW.shape[1]), out / "partial"
    origin = partial if partial.exists() else start  # an interrupted run goes on from its averaged weights
    if origin is not None:
        transformer.load_state_dict(WanTransformer3DModel.from_pretrained(origin / "transformer").float().state_dict())
        text_encoder.load_state_dict(UMT5EncoderModel.from_pretrained(origin / "text_encoder").float().state_dict())
    models = nn.ModuleDict({"transformer": transformer, "text_encoder": text_encoder}).train()
    average = copy.deepcopy(models).eval()
    transformer.set_attn_processor(PlainAttention())
    compiled: Any = torch.compile(transformer)  # a third faster; short crops are rare and not worth a compilation each
    hidden, rest = split_parameters(models)
    muon = BatchedMuon(hidden, lr=MUON_RATE)
    adamw = torch.optim.AdamW(rest, lr=ADAMW_RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    started = saved = time.monotonic()
    step, done, smooth = 0, 0.0, 2.0
    while done < 1:
        factor = learning_rate(done, step)
        muon.lr, adamw.param_groups[0]["lr"] = MUON_RATE * factor, ADAMW_RATE * factor
        length = rng.randint(SHORTEST, WINDOW - 1) if rng.random() < SHORT_RATE else WINDOW
        crops = [latents.crop(rng, length=length, start_rate=START_RATE) for _ in range(BATCH * WINDOW // length)]
        texts = [draw_prompt(clip, rng, drop_rate=DROP_RATE) for clip, _, _ in crops]
        clean_BCNHW = torch.stack([crop for _, crop, _ in crops])
        stills_BCNHW = torch.stack([stills for _, _, stills in crops])
        given = [draw_given(rng, length) for _ in crops]
        model = compiled if length == WINDOW else transformer
        loss = flow_loss(model, clean_BCNHW, stills_BCNHW, given, embed(text_encoder, tokenizer, texts))
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(models.parameters(), 1.0)
        muon.step()
        adamw.step()
        adamw.zero_grad()
        _average(average, models, step)
        step += 1
        now = time.monotonic()
        done = step / STEPS if seconds is None else (now - started) / seconds
        smooth += (loss.item() - smooth) * max(0.02, 1 / step)
        if step % 50 == 0:
            print(f"transformer step {step}  loss {smooth:.3f}  {now - started:.0f} s", flush=True)
        if now - saved > SAVE_EVERY_S:
            _save(average, partial)
            saved = now
    _save(average, out)


def flow_loss(
    transformer: WanTransformer3DModel,
    clean_BCNHW: Tensor,
    stills_BCNHW: Tensor,
    given: list[Given],
    text_BSD: Tensor,
) -> Tensor:
    """Mean squared error of the predicted flow (noise minus clean) over the latents that are not given.

    Noise levels are random, lower at context; given latents have level 0, and a still stands for what it shows.
    """
    level_BN = draw_noise_level(len(clean_BCNHW)).unsqueeze(1) * torch.tensor([sample.level_share for sample in given])
    still_BN = torch.tensor([sample.still for sample in given])
    clean_BCNHW = torch.where(_over_cells(still_BN), stills_BCNHW, clean_BCNHW)
    noise = torch.randn_like(clean_BCNHW)
    mix = _over_cells(level_BN)
    tokens = clean_BCNHW.shape[3] * clean_BCNHW.shape[4] // 4
    with torch.autocast("cpu", torch.bfloat16):
        noisy = (1 - mix) * clean_BCNHW + mix * noise
        timestep_BL = (level_BN * 1000).repeat_interleave(tokens, 1)
        flow: Tensor = transformer(noisy, timestep_BL, text_BSD, return_dict=False)[0]
    error_BN = (flow.float() - (noise - clean_BCNHW)).square().mean((1, 3, 4))
    counts_BN = (level_BN > 0).float()
    return (error_BN * counts_BN).sum() / counts_BN.sum()


def _over_cells(value_BN: Tensor) -> Tensor:
    return value_BN[:, None, :, None, None]
