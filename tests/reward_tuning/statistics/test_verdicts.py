"""Verdicts: words, the sentence, and how rarely nine measures without effect get a false one."""

from typing import Any

import numpy as np
import pytest

from reward_tuning.statistics.bootstrap import paired_difference
from reward_tuning.statistics.corrections import adjusted
from reward_tuning.statistics.verdicts import (
    HIGHER,
    LOWER,
    comparisons_line,
    default_primary,
    interval_text,
    primary_of,
    role_of,
    value_text,
    verdict,
    verdict_sentence,
    verdicts,
)


def change(low: float | None, high: float | None, **more: float) -> dict[str, Any]:
    middle = None if low is None or high is None else (low + high) / 2
    return {"mean": middle, "low": low, "high": high, **more}


def evaluation(low: float | None, high: float | None, **more: Any) -> dict[str, Any]:
    difference = {
        "clip": change(low, high, p=0.01, p_adjusted=0.01, prompts=128),
        "hps": change(0.1, 0.2, p=0.001, p_adjusted=0.002, prompts=128),
        "motion": change(0.1, 0.2, p=0.04, p_adjusted=0.08, prompts=128),
    }
    found = {
        "primary": "clip",
        "prompts": 128,
        "trained_on": ["hps"],
        "never_trained_on": ["clip"],
        "difference": difference,
    }
    return found | more


@pytest.mark.parametrize(
    ("low", "high", "prompts", "p", "said"),
    [
        (0.1, 0.2, 32, 0.01, "higher"),
        (-0.2, -0.1, 32, 0.01, "lower"),
        (-0.1, 0.1, 32, 0.5, "no change seen"),
        (0.0, 0.0, 32, 1.0, "no change seen"),
        (-0.1, 0.0, 128, 0.1, "no change seen"),
        (0.1, 0.2, 23, 0.01, "too few prompts"),
        (0.1, 0.2, 24, 0.01, "higher"),
        (0.1, 0.2, 32, 0.06, "may be chance"),
        (None, None, 32, 0.06, "not measured"),
    ],
)
def test_words(low: float | None, high: float | None, prompts: int, p: float, said: str) -> None:
    found = verdict(change(low, high, p_adjusted=p), prompts, decides=False)
    assert found == said


def test_the_others_are_corrected() -> None:
    found = verdicts(evaluation(0.008, 0.022), "clip")
    assert found == {"clip": "higher", "hps": "higher", "motion": "may be chance"}
    side = evaluation(0.008, 0.022)  # not the one that decides: all of it is corrected
    side["difference"]["clip"]["p_adjusted"] = 0.07
    assert verdicts(side, "clip")["clip"] == "may be chance"
    assert verdict_sentence(side).startswith("The held-out judge `clip` rose by +0.0150")
    assert verdict_sentence(side).endswith("may be chance: it is one of several comparisons.")


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (
            0.008,
            0.022,
            "The held-out judge `clip` rose by +0.0150 [+0.0080, +0.0220] on 128 prompts "
            "(95 % interval).",
        ),
        (
            -0.022,
            -0.008,
            "The held-out judge `clip` fell by -0.0150 [-0.0220, -0.0080] on 128 prompts "
            "(95 % interval).",
        ),
        (
            -0.008,
            0.01,
            "No change seen by the held-out judge `clip`: +0.0010 [-0.0080, +0.0100] on 128 "
            "prompts (95 % interval). A change within it may have happened.",
        ),
        (None, None, "No verdict: the held-out judge `clip` gave no finite value."),
    ],
)
def test_the_sentence(low: float | None, high: float | None, said: str) -> None:
    assert verdict_sentence(evaluation(low, high)) == said


def test_the_sentence_on_other_measures() -> None:
    trained = verdict_sentence(evaluation(0.1, 0.2, primary="hps"))
    assert trained.startswith("The training judge `hps` rose by +0.150 [+0.100, +0.200]")
    assert "proves nothing" in trained
    fallen = evaluation(0.1, 0.2, primary="hps")
    fallen["difference"]["hps"] = change(-0.2, -0.1, prompts=128)
    assert "proves nothing" not in verdict_sentence(fallen)
    assert verdict_sentence(evaluation(0.1, 0.2, primary="motion")).startswith(
        "The measure `motion`"
    )
    few = evaluation(0.1, 0.2)
    few["difference"]["clip"]["prompts"] = 12
    assert verdict_sentence(few) == (
        "Too few prompts for a verdict: the held-out judge `clip` changed by +0.150 [+0.100, "
        "+0.200] on 12 prompts; 24 or more are needed."
    )
    assert "No metric was named" in verdict_sentence(evaluation(0.1, 0.2, primary=None))
    right = {"oracle": change(0.099, 0.266, prompts=128)}
    of_oracle = verdict_sentence({"primary": "oracle", "difference": right})
    assert of_oracle.startswith("The oracle (`oracle`) rose by +18.2 points [+9.9, +26.6]")


def test_the_number_of_comparisons() -> None:
    assert comparisons_line(evaluation(0.1, 0.2)) == (
        "3 metrics compared; clip decides (named beforehand); verdicts on the other 2 allow for "
        "their number (Holm), intervals do not"
    )
    assert "verdicts on all 3 allow" in comparisons_line(evaluation(0.1, 0.2, primary=None))
    old = evaluation(0.1, 0.2)
    del old["difference"]["hps"]["p_adjusted"]
    assert "without corrections" in comparisons_line(old)
    assert verdicts(old, "clip") == {
        "clip": "higher",
        "hps": "not corrected",
        "motion": "may be chance",
    }
    assert verdict(change(0.1, 0.2), 32, decides=True) == "higher"
    old["difference"] = {"clip": change(0.1, 0.2)}
    assert comparisons_line(old) == "1 metric compared; clip decides (named beforehand)"


def test_which_measure_decides() -> None:
    assert default_primary(["clip", "pick"], ["hps"]) == "clip"
    assert default_primary([], ["hps"]) == "hps"
    assert default_primary([], []) is None
    old = evaluation(0.1, 0.2)
    del old["primary"]
    assert primary_of(old) == "clip"
    assert primary_of(evaluation(0.1, 0.2, primary="gone")) is None
    roles = [role_of(one, old) for one in ("clip", "hps", "oracle_size", "motion")]
    assert roles == ["held-out judge", "training judge", "oracle", "measure"]


def test_digits_follow_the_interval() -> None:
    assert interval_text("a", change(-0.5, 2.5)) == "+1.0 [-0.5, +2.5]"
    assert interval_text("a", change(0.0, 0.0)) == "+0.0000 [+0.0000, +0.0000]"
    assert interval_text("a", change(-2e-4, 1e-4)) == "-0.00005 [-0.00020, +0.00010]"


def test_means_are_shown_as_shares_or_with_four_digits() -> None:
    assert value_text("oracle_size", 0.59375) == "59.4 %"
    assert value_text("oracle_tone_off", 0.59375) == "0.5938"
    assert value_text("hps", None) == "-"


def test_nine_measures_without_effect_rarely_get_a_verdict() -> None:
    """In 200 runs, 32 prompts, correlated measures: 5 % of runs are expected at most, and 5 %.

    Without the correction, about one run in four has a false verdict.
    """
    rng = np.random.default_rng(0)
    raw = corrected = deciding = 0
    for run in range(200):
        shared = rng.normal(size=32)
        difference = {}
        for name in "abcdefghi":
            values = 0.6 * shared + 0.8 * rng.normal(size=32)
            found = paired_difference([0.0] * 32, values.tolist(), seed=run, resamples=400)
            difference[name] = vars(found) | {"prompts": 32}
        for name, p in adjusted({n: one["p"] for n, one in difference.items()}, "a").items():
            difference[name]["p_adjusted"] = p
        said = verdicts({"difference": difference}, "a")
        deciding += said["a"] in (HIGHER, LOWER)
        corrected += any(said[name] in (HIGHER, LOWER) for name in "bcdefghi")
        raw += any(one["p"] <= 0.05 for one in difference.values())
    assert raw >= 40
    assert deciding <= 20
    assert corrected <= 20
