"""The metric that decides: the names it may have."""

import torch

from base_model.tiny.scenes import ATTRIBUTES
from reward_tuning.schema.primary import (
    MEASURES,
    OF_SEVERAL_CLIPS,
    ORACLE,
    primary_fault,
)
from reward_tuning.tuning.clip_measures import measures


def test_every_metric_of_an_evaluation_may_decide() -> None:
    """The names here are those that the evaluation writes."""
    assert set(MEASURES) == measures(torch.zeros(1, 2, 3, 16, 16)).keys()
    assert set(ORACLE) == {"oracle", "oracle_tone_off", *(f"oracle_{name}" for name in ATTRIBUTES)}
    for name in ("hps", *MEASURES, *OF_SEVERAL_CLIPS, *ORACLE):
        assert primary_fault(name, ["hps"], 2) is None


def test_other_names_are_refused() -> None:
    assert str(primary_fault("moton", ["hps"], 2)).endswith("did you mean motion?")
    assert "allowed: hps, motion" in str(primary_fault("a", ["hps"], 2))
    assert "evaluation.seeds of 2" in str(primary_fault("diversity", ["hps"], 1))
