"""Findings are collected instead of raised, and refused together."""

from pathlib import Path

import pytest

from base_model.errors import GeneratorError
from reward_tuning.errors import TuningError
from reward_tuning.runs.findings import Findings, check_output
from rewards.errors import RewardError


def test_what_is_refused_is_collected_with_its_key_and_once() -> None:
    found = Findings()
    with found.collect("prompts.train"):
        raise TuningError("no such file")
    with found.collect("prompts.train"):
        raise TuningError("prompts.train: no such file")  # names its key itself
    with found.collect():
        raise GeneratorError("no checkpoint")
    with found.collect():
        pass
    assert found.mistakes == ["prompts.train: no such file", "no checkpoint"]


@pytest.mark.parametrize("error", [RewardError("no judge"), KeyError("a bug")])
def test_anything_else_is_raised(error: Exception) -> None:
    with pytest.raises(type(error)), Findings().collect():
        raise error


def test_a_training_with_judges_collects_their_errors() -> None:
    class WithJudges(Findings):
        refusals = (*Findings.refusals, RewardError)

    found = WithJudges()
    with found.collect():
        raise RewardError("no judge")
    assert found.mistakes == ["no judge"]


def test_everything_is_refused_together() -> None:
    Findings().refuse()
    found = Findings(["one", "two"], ["fetch it"])
    with pytest.raises(TuningError, match=r"^one\ntwo\nfetch it$"):
        found.refuse()


def test_a_taken_folder_and_a_file_in_the_way(tmp_path: Path) -> None:
    assert check_output(str(tmp_path / "new")) == []
    (tmp_path / "recipe.yaml").write_text("")
    (taken,) = check_output(str(tmp_path))
    assert taken.startswith(f"output: {tmp_path} holds a run already")
    (tmp_path / "file").write_text("")
    (blocked,) = check_output(str(tmp_path / "file" / "run"))
    assert blocked.startswith("output: ")
    assert "file" in blocked
