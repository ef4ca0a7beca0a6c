"""The procedural world: clips continue exactly, captions name what is seen, held-out combinations never train."""

import random

import pytest
import torch

from serving.models.pocket import world
from serving.models.pocket.prompts import build_tokenizer, draw_prompt


@pytest.mark.parametrize("motion", world.MOTIONS)
@pytest.mark.parametrize("frames", [4, 37])
def test_a_shifted_clip_continues_where_the_first_one_left_off(motion: str, frames: int) -> None:
    clip = world.Clip("red", "star", motion, "day", pan=True, phase=0.3, pan_phase=0.6)
    late = world.render(clip, frames + 10)[:, frames:]
    assert torch.allclose(world.render(clip.shifted(frames), 10), late, atol=2e-3)


def test_sixty_combinations_are_held_out_and_never_drawn_for_training() -> None:
    rng = random.Random(0)
    assert len(world.held_out_clips()) == 60
    assert not any(world.held_out(world.draw_training_clip(rng)) for _ in range(2000))


def test_every_word_of_a_caption_is_in_the_vocabulary() -> None:
    rng, tokenizer = random.Random(0), build_tokenizer()
    captions = [world.caption(world.draw_clip(rng), rng) for _ in range(300)]
    tokens = tokenizer([*captions, *world.NEGATIVES]).input_ids
    assert tokenizer.unk_token_id not in {token for sentence in tokens for token in sentence}
    assert max(map(len, tokens)) <= tokenizer.model_max_length


def test_prompts_are_dropped_at_the_asked_rate() -> None:
    rng, clip = random.Random(0), world.Clip("red", "ball", "left", "night")
    dropped = sum(draw_prompt(clip, rng, drop_rate=0.25) in world.NEGATIVES for _ in range(2000))
    assert 400 < dropped < 600
