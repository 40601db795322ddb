"""A few hundred damaged files for every reader; the script runs 20,000 of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import fuzz_readers
from benchmarks.fuzz_readers import TARGETS, Case, fuzz, main
from reward_tuning.errors import TuningError

CASES = {"prompts": 300, "metadata": 300, "cameras": 300, "trajectories": 300, "yaml": 150,
         "recipes": 60, "pictures": 150, "lora": 300}  # fmt: skip


@pytest.mark.parametrize("target", CASES)
def test_a_damaged_file_is_read_or_told(target: str) -> None:
    found = fuzz(target, CASES[target], seed=1_000_000)
    assert dict(found.faults) == {}, found.examples
    assert found.refused > CASES[target] // 4  # the slips do damage
    assert found.read > 0  # and not every file


def test_faults_are_counted_and_can_be_repeated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(case: Case) -> None:
        if case.draw.random() < 0.5:
            raise KeyError("a defect")
        raise TuningError("x" * (5000 if case.draw.random() < 0.5 else 10))

    monkeypatch.setitem(TARGETS, "prompts", breaks)
    assert main(["prompts", "--cases", "40", "--seed", "3"]) == 1
    told = capsys.readouterr().out
    assert "KeyError at test_fuzz_readers.py" in told
    assert "a message of more than 2000 letters" in told
    first = told.split("KeyError at ")[1].split("--seed ")[1].split()[0]
    again = fuzz("prompts", 1, int(first))
    assert sum(again.faults.values()) == 1


def test_a_case_depends_on_its_seed_alone(tmp_path: Path) -> None:
    import random

    texts = [Case(random.Random("prompts/7"), tmp_path).damaged(fuzz_readers.YAML) for _ in "ab"]
    assert texts[0] == texts[1]
