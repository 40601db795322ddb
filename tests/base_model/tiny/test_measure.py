"""The measures of the embedded generator, on a generator that paints what it is asked."""

import random
from typing import Any

import pytest
import torch

from base_model.generator import load_generator
from base_model.tiny import measure as module
from base_model.tiny.captions import parse_caption
from base_model.tiny.measure import all_right, measure, vae_psnr
from base_model.tiny.render import render
from base_model.tiny.scenes import Scene


class Painter:
    """A generator whose clips are renders of its prompts, with `wrong` colours."""

    def __init__(self, wrong: bool) -> None:
        self.wrong = wrong

    def encode_prompts(self, prompts: list[str], negatives: list[str]) -> list[Scene]:
        assert negatives == [""] * len(prompts)
        return [parse_caption(prompt)[0] for prompt in prompts]

    def latent_shape(self, *size: int) -> tuple[int, ...]:
        return size

    def initial_noise(self, shape: tuple[int, ...], seeds: list[int]) -> list[int]:
        assert shape[0] == len(seeds) == len(set(seeds))
        return seeds

    def condition(self, text: list[Scene]) -> list[Scene]:
        return text

    def decode(self, scenes: list[Scene]) -> torch.Tensor:
        clips = render(scenes, random.Random(0))
        return clips.flip(2) if self.wrong else clips


@pytest.fixture
def painted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "euler_sample", lambda g, condition, *rest: condition)


@pytest.mark.usefixtures("painted")
def test_right_clips_are_counted_by_language() -> None:
    seen: list[tuple[int, int]] = []
    generator: Any = Painter(wrong=False)
    found = all_right(generator, 5, steps=2, report=lambda *told: seen.append(told))
    assert set(found) == {"en", "zh"}
    assert all(share["all_right"] == 1.0 for share in found.values())
    assert seen == [(5, 10), (10, 10)]


@pytest.mark.usefixtures("painted")
def test_wrong_colours_are_wrong_and_nothing_else() -> None:
    generator: Any = Painter(wrong=True)  # red and blue swapped: green and purple stay
    found = all_right(generator, 12, steps=2)
    assert found["en"]["colour"] == found["zh"]["colour"] < 0.7
    assert found["en"]["all_right"] == found["en"]["colour"]
    assert found["en"]["shape"] == found["en"]["motion"] == 1.0


def test_the_psnr_is_a_mean_over_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dimmed:
        def encode(self, frames: torch.Tensor) -> torch.Tensor:
            return frames

        def decode(self, latents: torch.Tensor) -> torch.Tensor:
            return latents - 0.1  # a squared error of 0.01 is 20 dB

    dimmed: Any = Dimmed()
    assert vae_psnr(dimmed, 3) == pytest.approx(20.0, abs=1e-3)


def test_both_measures_of_the_shipped_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "euler_sample", lambda g, condition, noise, *rest: noise)
    found = measure(load_generator("tiny"), vae_clips=1, prompts_per_language=1)
    assert found["vae_psnr"] > 25.0
    assert found["base"]["en"]["all_right"] == 0.0  # noise, which was not sampled from
    assert set(found["base"]) == {"en", "zh"}
