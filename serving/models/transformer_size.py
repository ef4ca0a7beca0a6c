"""How large a Wan transformer is, reckoned from its config: plans and shapes of gangs need it without loading anything.

The sums follow diffusers' WanTransformer3DModel and WanVACETransformer3DModel; a test holds them against both.
"""

from dataclasses import dataclass
from math import prod
from pathlib import Path

from serving.models.checkpoint import VACE_TRANSFORMER
from serving.models.config_files import ConfigFile, read_config


@dataclass(frozen=True)
class TransformerSize:
    """The numbers of a transformer's config that decide how much memory it takes."""

    inner: int
    """Width of the residual stream: heads times the dimension of a head."""
    ffn: int
    """Width of the feed-forward's hidden layer."""
    layers: int
    text: int
    """Dimension of a prompt's tokens."""
    frequencies: int
    """Sines and cosines that a timestep is written in."""
    patch_in: int
    """Numbers of a patch of latents, as it comes in."""
    patch_out: int
    """Numbers of a patch of the prediction."""
    cross_norm: bool
    """Whether the cross-attention's input is normed with weights of its own."""
    image: int
    """Dimension of picture embeddings; 0 if it reads none."""
    image_keys: int
    """Dimension that keys and values of picture embeddings are made from."""
    image_positions: int
    """Positions of picture embeddings that it has learned; 0 for one picture."""
    control_blocks: int = 0
    """Blocks that read a control clip (VACE)."""
    patch_control: int = 0
    """Numbers of a patch of the control clip."""

    @property
    def parameters(self) -> int:
        """Numbers in its weights."""
        inner = self.inner
        attention = 4 * _linear(inner, inner) + 2 * inner  # queries, keys, values, output; norms of queries and keys
        feed_forward = _linear(inner, self.ffn) + _linear(self.ffn, inner)
        modulation = 6 * inner
        block = 2 * attention + feed_forward + modulation + 2 * inner * self.cross_norm
        time = _linear(self.frequencies, inner) + _linear(inner, inner) + _linear(inner, 6 * inner)
        text = _linear(self.text, inner) + _linear(inner, inner)
        ends = _linear(self.patch_in, inner) + _linear(inner, self.patch_out) + 2 * inner
        blocks = (self.layers + self.control_blocks) * (block + self._image_keys)
        return blocks + self._control + time + text + ends + self._image_embedder

    @property
    def _control(self) -> int:
        """What VACE has beside blocks: each is read through a projection, the first is written through one too."""
        inner = self.inner
        projections = (self.control_blocks + 1) * _linear(inner, inner) + _linear(self.patch_control, inner)
        return projections if self.control_blocks else 0

    @property
    def _image_keys(self) -> int:
        """Keys and values of picture embeddings in one block, and the norm of the keys."""
        return 2 * _linear(self.image_keys, self.inner) + self.inner if self.image else 0

    @property
    def _image_embedder(self) -> int:
        image = self.image
        norms = 2 * image + 2 * self.inner
        return norms + _linear(image, image) + _linear(image, self.inner) + self.image_positions * image if image else 0


def read_transformer_size(config: Path, name: str) -> TransformerSize:
    """From a transformer's config.json; what it leaves out is the default of diffusers' class. Raises ModelError."""
    content = read_config(config, name)
    cells = prod(content.get("patch_size", (1, 2, 2)))  # integers: the checkpoint was opened
    channels = content.integer("in_channels", 16)
    return TransformerSize(
        inner=content.integer("num_attention_heads", 40) * content.integer("attention_head_dim", 128),
        ffn=content.integer("ffn_dim", 13824),
        layers=content.integer("num_layers", 40),
        text=content.integer("text_dim", 4096),
        frequencies=content.integer("freq_dim", 256),
        patch_in=cells * channels,
        patch_out=cells * (channels if _is_nothing(content, "out_channels") else content.integer("out_channels", 16)),
        cross_norm=bool(content.get("cross_attn_norm", True)),
        image=_or_nothing(content, "image_dim"),
        image_keys=_or_nothing(content, "added_kv_proj_dim"),
        image_positions=_or_nothing(content, "pos_embed_seq_len"),
        **_control_sizes(content, cells),
    )


def _control_sizes(config: ConfigFile, cells: int) -> dict[str, int]:
    """Of VACE; nothing for others."""
    if config.get("_class_name") != VACE_TRANSFORMER:
        return {}
    layers = config.get("vace_layers", range(0, 40, 5))  # a list: the checkpoint was opened
    return {"control_blocks": len(layers), "patch_control": cells * config.integer("vace_in_channels", 96)}


def bytes_per_number(device: str) -> int:
    """Of the dtype that weights and activations have there: bf16 on a GPU; fp32 on a CPU, since many have no bf16
    units."""
    return 2 if device.startswith("cuda") else 4


def _or_nothing(config: ConfigFile, key: str) -> int:
    return 0 if config.get(key) is None else config.integer(key, 0)


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _is_nothing(config: ConfigFile, key: str) -> bool:
    """True if the config says null: diffusers then takes as many as come in."""
    return key in config.values and not config.get(key)
