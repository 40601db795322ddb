"""The trainings of the embedded judges with cross-attention, cut down to seconds."""

from dataclasses import replace

import pytest

from reward_tuning.pretrain import judge_configs, judge_cross, judge_image_reward, judge_mps

CROSS_JUDGES = ("image-reward", "mps")


def shrink_cross(patch: pytest.MonkeyPatch) -> None:
    """Two steps of learning to see, small batches, a vocabulary of a few words."""
    patch.setattr(judge_cross, "EYES_SCHEDULE", replace(judge_cross.EYES_SCHEDULE, steps=2))
    for name, value in {"BATCH": 4, "SILHOUETTES": 1, "FADED": 2, "FRAMES": 4, "PAIRS": 2}.items():
        patch.setattr(judge_cross, name, value)
    patch.setattr(judge_image_reward, "MEASURED_PAIRS", 4)
    patch.setattr(judge_configs, "MERGES", 5)
    for module in (judge_configs, judge_image_reward):
        patch.setattr(module, "tokenizer_texts", lambda: ["a red circle 红"] * 3)
    text = {**judge_configs.MPS["text"], "vocab_size": 519}
    patch.setattr(judge_mps, "MPS", {**judge_configs.MPS, "text": text})
