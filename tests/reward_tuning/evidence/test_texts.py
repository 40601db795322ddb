"""Sentences: the number of comparisons, whether a gain holds, and what is left of it."""

from __future__ import annotations

from typing import Any

import pytest

from reward_tuning.evidence.texts import comparisons, gain_kept, sentences


def change(mean: float, p: float = 0.001) -> dict[str, Any]:
    half = 0.9 * abs(mean) if p <= 0.05 else 2 * abs(mean)
    return {
        "mean": mean,
        "low": mean - half,
        "high": mean + half,
        "p": p,
        "p_adjusted": p,
        "prompts": 32,
    }


def side(name: str, against: int | None, *, steps: int = 25, **difference: Any) -> dict[str, Any]:
    found = {
        "name": name,
        "adapter": None if against is None else "lora",
        "strength": 0.0 if against is None else 1.0,
        "steps": steps,
        "guidance_scale": 6.0,
        "against": against,
        "means": {"clip": 0.5 + (0.1 if name == "other" else 0.0)},
    }
    return found if against is None else found | {"difference": difference}


SIDES = [
    side("base", None),
    side("mine", 0, clip=change(0.1), hps=change(0.2)),
    side("base, 8 steps", None, steps=8),
    side("mine, 8 steps", 2, steps=8, clip=change(0.1, 0.4), hps=change(0.2)),
    side("base, 50 steps", None, steps=50),
    side("mine, 50 steps", 4, steps=50, clip=change(0.1), hps=change(0.2)),
]


def found(sides: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    return {"sides": sides, "primary": "clip", "prompts": 32, "features_of": None} | changes


def test_the_number_of_comparisons() -> None:
    assert comparisons(SIDES) == 6
    assert sentences(found(SIDES))[0].startswith(
        "6 comparisons with the base: 3 sides x 2 metrics; clip decides"
    )
    first, *_ = sentences(found(SIDES[:2]))
    assert first.startswith(
        "2 comparisons with the base: 1 side x 2 metrics; clip was named before"
    )
    assert "nothing is compared" in sentences(found(SIDES[:1]))[0]


def test_whether_a_gain_holds() -> None:
    lines = sentences(found(SIDES))
    assert lines[1] == "mine: the rise of clip holds at 50 steps; it was not seen at 8 steps"
    falls = [SIDES[0], side("mine", 0, clip=change(-0.1)), *SIDES[2:]]
    assert "did not rise with the main sampling" in sentences(found(falls))[1]


def test_too_few_prompts_say_nothing_about_holding() -> None:
    lines = sentences(found(SIDES, prompts=8))
    assert lines[1] == "too few prompts for verdicts: 8; 24 or more are needed"
    assert not any("holds" in line for line in lines)


def test_what_is_left_of_a_gain() -> None:
    difference = {
        "hps": change(0.2),
        "sharpness_hps": change(0.15),
        "clip": change(0.1, p=0.5),
        "sharpness_clip": change(0.1),
    }
    assert gain_kept(difference) == {"hps": pytest.approx(0.25)}  # clip did not rise
    tuned = side("mine", 0, **difference) | {"gain_kept": {"hps": 0.25}}
    assert any(
        "mine: 25% of the rise of hps is left" in t for t in sentences(found([SIDES[0], tuned]))
    )


def test_the_highest_of_several_is_named_with_a_warning() -> None:
    several = [*SIDES[:2], side("other", 0, clip=change(0.2)), *SIDES[2:]]
    lines = [line for line in sentences(found(several)) if line.startswith("highest")]
    assert len(lines) == 1
    assert "clip: other, chosen among 2, so its own gain is flattered" in lines[0]
    assert not any(line.startswith("highest") for line in sentences(found(SIDES)))


def test_the_features_are_named() -> None:
    lines = sentences(found(SIDES, features_of="clip_held_out"))
    assert "image features of clip_held_out" in lines[-1]
