"""What planning needs to know of a model: its window, its sizes, its guidance. Imports no torch, as plans do not."""

from dataclasses import dataclass

from sharding.spans import Grid


@dataclass(frozen=True)
class Capabilities:
    """What a model can do, as far as planning needs it."""

    grid: Grid
    """How frames and latents relate."""
    window: int
    """W: the most latents that one call may hold."""
    latent_channels: int
    pixels_per_cell: int
    """Pixels per latent cell, along height and width alike."""
    size_multiple: int
    """Width and height in pixels must be multiples of this."""
    width: int
    """Pixels; what the model was made for."""
    height: int
    """Pixels; what the model was made for."""
    fps: int
    """Frames per second; what the model was made for."""
    guidance: tuple[float, ...]
    """Guidance scale per expert, from the noisiest; one entry for a model without experts. 1.0 means no guidance."""
    global_positions: bool = False
    """True if a window must be told its place in the take; else positions are local to the window."""
    max_width: int | None = None
    """Pixels; the model has no positions beyond. None: there is no such limit."""
    max_height: int | None = None
    """Pixels; as max_width."""

    def latent_shape(self, *, width: int, height: int) -> tuple[int, int, int]:
        """Shape (C, h, w) of one latent at a size in pixels."""
        return self.latent_channels, height // self.pixels_per_cell, width // self.pixels_per_cell
