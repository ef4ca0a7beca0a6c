"""What planning needs to know of a model: its window, its sizes, its guidance. Imports no torch, as plans do not."""

from dataclasses import dataclass

from sharding.spans import Grid
from sharding.stitching import JOINT, Stitching


@dataclass(frozen=True)
class PictureSupport:
    """What a model takes beside prompts."""

    first: bool = False
    """A picture at a take's first frame."""
    last: bool = False
    """A picture at a take's last frame."""
    keyframes: bool = False
    """Pictures at any time of a take."""
    sections: bool = False
    """A picture at the start of a shot inside a take, as what the rest of the take begins from."""
    references: bool = False
    """Pictures of a character, at no particular time."""
    strength: bool = False
    """Keyframes that the film follows only so far."""
    context: bool = False
    """Finished latents beside those that it denoises."""
    needs_first: bool = False
    """Every take must have a first picture."""
    needs_last: bool = False
    """Every take must have a last picture."""
    always: bool = False
    """Every take has a condition, also one of words alone: the model reads that there is no picture."""
    given: bool = False
    """Pictures become latents of the take, which are finished from the start. Else the model reads them beside its
    latents."""
    shown: bool = False
    """A window that does not begin with a picture is shown one in a latent of its own, before the others. Else it reads
    what stands beside its latents in the take, which holds no picture there."""


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
    pictures: PictureSupport = PictureSupport()
    stitching: Stitching = JOINT
    """How the chunks of its takes agree if a storyboard does not say."""
    max_width: int | None = None
    """Pixels; the model has no positions beyond. None: there is no such limit."""
    max_height: int | None = None
    """Pixels; as max_width."""

    def latent_shape(self, *, width: int, height: int) -> tuple[int, int, int]:
        """Shape (C, h, w) of one latent at a size in pixels."""
        return self.latent_channels, height // self.pixels_per_cell, width // self.pixels_per_cell
