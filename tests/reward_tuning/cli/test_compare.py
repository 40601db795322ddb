"""`reward-tuning compare`: evaluate with several runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reward_tuning.evidence import evaluating
from tests.reward_tuning.command_line import Command, command

run = pytest.fixture(command, name="run")


def test_it_is_an_evaluation_at_strength_1(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked: list[Any] = []

    def evaluated(request: Any, output: Path, *rest: Any) -> dict[str, Any]:
        asked.extend([request, output])
        sides = [{"name": "base", "means": {"clip": 0.5}}]
        roles = {"trained_on": [], "never_trained_on": [], "primary": "clip"}
        return {"sides": sides, "texts": ["done"], "prompts": 3, "seeds": 2} | roles

    monkeypatch.setattr(evaluating, "evaluate_adapters", evaluated)
    done = run("compare", "a", "b", "--checkpoint", "tiny", "--seeds", 2, "--judges", "flicker")
    assert done.code == 0, done.err
    request, output = asked
    assert request.sources == [Path("a"), Path("b")]
    assert tuple(request.strengths) == (1.0,)
    assert (request.checkpoint, request.seeds, output) == ("tiny", 2, Path("compare"))
    assert [judge.kind for judge in request.judges] == ["flicker"]
    assert done.out.splitlines()[-1] == "done"


def test_one_run_is_nothing_to_compare(run: Command) -> None:
    done = run("compare", "a")
    assert done.code == 2
    assert "got a alone; give two or more" in done.err
