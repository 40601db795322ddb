"""Every kind of judge has a text."""

import re

from reward_tuning.report.judge_texts import JUDGE_TEXTS
from scripts.recipe_keys import page


def test_every_kind_of_judge_has_a_text() -> None:
    (kinds,) = re.findall(r"### `rewards\.N`\n\n.*`kind` is one of (.*)\.\n", page())
    assert set(JUDGE_TEXTS) == set(re.findall(r"`(\w+)`", kinds))
    assert all(text.better == "higher" for text in JUDGE_TEXTS.values())
