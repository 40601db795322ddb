"""The works of the three kinds of training satisfy the protocol."""

from __future__ import annotations

from benchmarks.small_shape import SMALL
from reward_tuning.estimate.estimate import work_of
from reward_tuning.estimate.work import COUNTED_STEPS, Work
from reward_tuning.evidence.any_recipe import load_any_recipe


def test_tokens_of_a_call() -> None:
    """Text and clip, of both guidance branches where a call has both."""
    rows = {}
    for name in ("tiny-demo", "finetune/tiny-lora", "distil/tiny-4-steps"):
        recipe = load_any_recipe(name, ["train.batch_size=3"], check_files=False)
        work: Work = work_of(recipe, SMALL)
        rows[name] = work.rows
    clip = 3 * (16 + 3 * 4 * 4)  # 9 frames of 64 x 64
    assert rows == {
        "tiny-demo": 2 * clip,
        "finetune/tiny-lora": clip,
        "distil/tiny-4-steps": 2 * clip,
    }
    assert COUNTED_STEPS > 1
