"""How judges of frames and of latents are measured, on judges whose answers are known."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from base_model.generator import load_generator
from base_model.tiny.captions import parse_caption
from base_model.tiny.scenes import FRAMES
from reward_tuning.pretrain.judge_accuracy import (
    appeal_correlation,
    attribute_accuracy,
    latent_accuracy,
    preference_accuracy,
)
from reward_tuning.pretrain.judge_aesthetic import appeal
from reward_tuning.pretrain.judge_data import VISIBLE
from tests.reward_tuning.pretrain.oracle_words import words_in

WEIGHTS = torch.tensor([0.2, 0.3, 0.5])[:, None, None]


def brightness(frames: Tensor, prompts: Sequence[str]) -> Tensor:
    """Another number for every change of a frame, a change of colour included."""
    return (frames * WEIGHTS).square().mean(dim=(1, 2, 3, 4))


def oracle(frames: Tensor, prompts: Sequence[str]) -> Tensor:
    """Number of the prompt's visible words that the oracle reads in a single frame."""
    scores = []
    for frame, prompt in zip(frames, prompts, strict=True):
        read, (scene, _) = words_in(frame.expand(FRAMES, -1, -1, -1)), parse_caption(prompt)
        scores.append(float(sum(read[name] == getattr(scene, name) for name in VISIBLE)))
    return torch.tensor(scores)


def test_a_judge_that_reads_words_is_right_and_its_opposite_wrong() -> None:
    found = attribute_accuracy(oracle, 12, 0)  # type: ignore[arg-type]
    assert set(found) == {f"{name}/{lang}" for name in VISIBLE for lang in ("en", "zh")}
    assert min(found.values()) > 0.9
    opposite = attribute_accuracy(lambda x, p: -oracle(x, p), 12, 0)  # type: ignore[arg-type]
    assert max(opposite.values()) < 0.1


def test_preferences_are_counted_by_reason() -> None:
    found = preference_accuracy(lambda x, p: -brightness(x, p), 60, 0)  # type: ignore[arg-type]
    other = preference_accuracy(brightness, 60, 0)  # type: ignore[arg-type]
    assert found.keys() == other.keys() > {"all", *VISIBLE}
    for reason, share in found.items():  # every pair is right for one of the two
        assert share + other[reason] == pytest.approx(1.0), reason
    # Equal scores are no preference.
    assert set(preference_accuracy(lambda x, _: x.new_zeros(len(x)), 20, 0).values()) == {0.0}  # type: ignore[arg-type]


def test_the_target_itself_correlates_with_the_target() -> None:
    found = appeal_correlation(lambda x, _: -3 * appeal(x[:, 0]), 40, 0)  # type: ignore[arg-type]
    assert found == pytest.approx(-1.0, abs=1e-5)


def test_latents_are_shown_at_every_noise_level() -> None:
    seen: list[tuple[float, float]] = []

    def judge(latents: Tensor, sigma: float, prompts: list[str]) -> Tensor:
        seen.append((sigma, float(latents.std())))
        return torch.tensor([float(parse_caption(p)[0].colour == "red") for p in prompts])

    vae = load_generator("tiny", text_encoder=False).vae
    found = latent_accuracy(judge, vae, 8, 0, sigmas=(0.0, 1.0))  # type: ignore[arg-type]
    assert set(found) == {0.0, 1.0}
    assert set(found[0.0]) == {f"{n}/{lang}" for n in (*VISIBLE, "motion") for lang in ("en", "zh")}
    # The judge always says "red", whatever the noise: right where the scene is.
    assert found[0.0] == found[1.0]
    assert found[0.0]["colour/en"] == found[0.0]["colour/zh"] < 0.6
    assert {sigma for sigma, _ in seen} == {0.0, 1.0}
    assert all(deviation == pytest.approx(1.0, abs=0.05) for sigma, deviation in seen if sigma)
