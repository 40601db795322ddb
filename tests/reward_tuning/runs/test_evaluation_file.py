from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.runs.evaluation_file import WHOLE, read_evaluation_file
from tests.reward_tuning.cli.finished_run import FOUND


def test_a_sound_file_comes_back_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    assert read_evaluation_file(path) is None
    path.write_text(json.dumps(FOUND | {"of_tomorrow": 1}))
    assert read_evaluation_file(path) == FOUND | {"of_tomorrow": 1}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", "[" * 100_000, '{"base": {}}'])
def test_what_is_no_evaluation_is_damaged(tmp_path: Path, text: str) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(text)
    with pytest.raises(TuningError, match=r"is damaged \(.*\); delete it and resume the run"):
        read_evaluation_file(path, WHOLE)


@pytest.mark.parametrize("wrong", [5, "x", [{}], {"a": "b"}])
@pytest.mark.parametrize(
    "key", ["base", "tuned", "difference", "trained_on", "seeds", "primary", "checkpoint"]
)
def test_a_part_of_another_kind_is_named(tmp_path: Path, key: str, wrong: Any) -> None:
    if (key, wrong) in (("primary", "x"), ("seeds", 5), ("checkpoint", {"a": "b"})):
        return  # a name, a number, a checkpoint with another key
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(FOUND | {key: wrong}))
    with pytest.raises(TuningError, match=rf"is damaged \({key}"):
        read_evaluation_file(path)


def test_a_difference_without_its_means_is_damaged(tmp_path: Path) -> None:
    found = copy.deepcopy(FOUND)
    del found["tuned"]["motion"]
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(found))
    with pytest.raises(TuningError, match="base or tuned has no motion"):
        read_evaluation_file(path, WHOLE)
