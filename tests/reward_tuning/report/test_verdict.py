from pathlib import Path

import pytest

from reward_tuning.report.evaluations import Change, Evaluation, Side, read_evaluation
from reward_tuning.report.verdict import deciding_side, side_verdicts, verdict_of
from reward_tuning.statistics.verdicts import verdict_sentence
from tests.reward_tuning.report.evaluation_folder import write_evaluation

CHANGE = Change(mean=0.1, low=0.05, high=0.2, p=0.001, p_adjusted=0.001, prompts=32)
MEASURES = ("motion", "diversity", "feature_diversity")
CHANCE = CHANGE.model_copy(update={"p_adjusted": 0.2})


def evaluation(**means: float) -> Evaluation:
    return Evaluation(
        primary="hps",
        trained_on=("hps",),
        prompts=32,
        sides=(
            Side(name="base", means=dict.fromkeys((*MEASURES, "hps"), 1.0)),
            Side(name="half", strength=0.5, against=0),
            Side(
                name="tuned",
                strength=1.0,
                against=0,
                means={"hps": 1.1, **means},
                difference={"hps": CHANGE, "motion": CHANCE},
            ),
        ),
    )


def test_the_verdict_is_on_full_strength_and_in_the_words_of_the_statistics() -> None:
    found = evaluation()
    assert deciding_side(found) == 2
    changes = {name: c.model_dump() for name, c in found.sides[2].difference.items()}
    plain = {"primary": "hps", "trained_on": ["hps"], "prompts": 32, "difference": changes}
    assert verdict_of(found).sentence == verdict_sentence(plain)
    assert "rose by +0.100 [+0.050, +0.200] on 32 prompts" in verdict_of(found).sentence
    assert "strength 1, on 32 held-out prompts" in verdict_of(found).detail


def test_one_of_several_adapters_is_named() -> None:
    found = evaluation()
    one, other = found.sides[2], found.sides[2].model_copy(update={"name": "b", "adapter": "b"})
    assert "Base against the tuned model at" in verdict_of(found).detail
    several = found.model_copy(update={"sides": (found.sides[0], one, other)})
    assert "Base against tuned at strength 1" in verdict_of(several).detail


def test_measures_that_do_not_decide_are_corrected() -> None:
    found = evaluation()
    words = side_verdicts(found.sides[2], found)
    assert words == {"hps": "higher", "motion": "may be chance"}


@pytest.mark.parametrize(
    ("means", "warned"),
    [
        ({"motion": 0.7}, ["Motion is 0.70"]),
        ({"motion": 1.3, "diversity": 0.75}, ["Motion is 1.30", "Diversity is 0.75"]),
        ({"feature_diversity": 0.5}, ["Diversity is 0.50"]),
        ({"motion": 0.85, "diversity": 1.5}, []),
    ],
)
def test_motion_and_diversity_far_from_the_base_are_warned_of(
    means: dict[str, float], warned: list[str]
) -> None:
    warnings = verdict_of(evaluation(**means)).warnings
    assert len(warnings) == len(warned)
    assert all(text.startswith(start) for text, start in zip(warnings, warned, strict=True))


def test_what_no_judge_sees_depends_on_whether_one_was_held_out(tmp_path: Path) -> None:
    assert "all of them were trained on" in verdict_of(evaluation()).unseen[0]
    found = read_evaluation(write_evaluation(tmp_path, prompts=2))
    assert found is not None
    assert "What `clip_held_out` overlooks" in verdict_of(found).unseen[0]


def test_without_a_comparison_there_is_no_verdict() -> None:
    assert verdict_of(Evaluation()).sentence == "There is no verdict yet."
