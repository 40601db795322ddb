"""What the measures of clips say; that all of them are here is in test_metric_texts.py."""

from reward_tuning.report.measure_texts import MEASURES
from reward_tuning.schema.guards_section import DiversityRule, DriftRule, MotionRule
from reward_tuning.schema.primary import MEASURES as OF_EVERY_CLIP
from reward_tuning.schema.primary import OF_SEVERAL_CLIPS, ORACLE


def test_every_metric_that_may_decide_has_a_text() -> None:
    assert {*OF_EVERY_CLIP, *OF_SEVERAL_CLIPS, *ORACLE} <= set(MEASURES)


def test_bounds_are_those_of_the_guards() -> None:
    motion, bounds = MEASURES["motion"].healthy, MotionRule()
    assert motion.startswith(f"{bounds.low:g} to {bounds.high:g} of the base")
    for name in ("diversity", "feature_diversity"):
        assert MEASURES[name].healthy.startswith(f"{DiversityRule().low:g} of the base or more")
    assert MEASURES["drift"].healthy.startswith(f"Below {DriftRule().high:g},")
