"""Runs with judges outside this process: they end together, lose nothing, and leave nothing."""

from __future__ import annotations

import hashlib
import json
import random
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from accelerate import Accelerator

from reward_tuning.errors import TuningError
from reward_tuning.runs.undone import UndoneStep
from reward_tuning.tuning.outside_judges import (
    all_or_none,
    close_judges,
    outside_judges,
    remember_answers,
    resumable,
)
from reward_tuning.tuning.trainer import run
from rewards import load_reward
from rewards.core.black_box import BlackBoxReward
from rewards.errors import JudgeUnavailable
from tests.reward_tuning.tiny_run import tiny_recipe
from tests.reward_tuning.tuning import test_trainer as runs
from tests.rewards.judge_server import Reply, Request, grey_clips, replied, serving

world, text_cache = runs.world, runs.text_cache
KEY = "sk-nobody-may-see-this-77"
OVERRIDES = (
    "train.steps=3",
    "train.batch_size=4",
    "train.clips_per_prompt=2",
    "train.checkpoint_every=9",
    "evaluation.prompts=2",
    "evaluation.seeds=1",
    "guards.every=0",
)


def judged(kind: str, **keys: Any) -> tuple[str, ...]:
    judge = {"kind": kind, "name": "mine", "gradient": "group", "retries": 0, **keys}
    return (f"rewards=[{json.dumps(judge)}]", *OVERRIDES)


class Moods:
    """A judge that never answers twice alike, and dies after so many answers."""

    def __init__(self, answers: int) -> None:
        self.left = answers
        self.draw = random.Random(5)
        self.first: dict[str, float] = {}
        self.asked: list[str] = []
        self.repeats = False

    def __call__(self, request: Request) -> Reply:
        fields = dict(request.fields)
        what = hashlib.sha256(fields["clip"] + fields["prompt"]).hexdigest()
        if self.repeats:  # whatever it said the first time
            return replied({"score": self.first[what]})
        if not self.left:
            return Reply(f"no more, Bearer {KEY}".encode(), 503)
        self.left -= 1
        self.asked.append(what)
        score = self.draw.random()
        self.first.setdefault(what, score)
        return replied({"score": score})


def adapter(folder: Path) -> bytes:
    return (folder / "lora" / "adapter_model.safetensors").read_bytes()


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").glob("*"))


@pytest.mark.slow
def test_a_run_whose_judge_dies_resumes_into_the_same_bytes(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge draws a new number each time, so any answer that is asked for twice shows."""
    monkeypatch.setenv("MOODS_KEY", KEY)
    moods, output, straight = Moods(6), tmp_path / "run", tmp_path / "straight"
    with serving(moods) as server:
        judge = judged("http", url=server.url, parallel=1, key_env="MOODS_KEY")
        recipe = tiny_recipe(world, output, *judge)
        with pytest.raises(UndoneStep) as caught:
            run(recipe)
        told = str(caught.value)
        assert told.startswith(f"the judge mine at {server.url} gave no usable answer in one try: ")
        assert "HTTP 503 Service Unavailable: no more, Bearer ***" in told
        assert told.endswith(f"Nothing is lost: continue with `reward-tuning resume {output}`")
        assert checkpoints(output) == ["step-000001"]
        moods.left = 999
        run(recipe, resume=True)
        sent = {request.headers["authorization"] for request in server.requests}
        assert sent == {f"Bearer {KEY}"}
        answers = (output / "answers" / "mine-rank0.jsonl").read_text().splitlines()
        assert len(answers) == len(moods.asked) == len(set(moods.asked)) == 3 * 4 + 2 * 2
        moods.repeats = True
        run(tiny_recipe(world, straight, *judge))
    assert adapter(straight) == adapter(output)
    for file in [*output.rglob("*"), *straight.rglob("*")]:
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file


PROGRAM = """
import json, os, sys
with open(sys.argv[1], "a") as file:
    file.write(f"{os.getpid()}\\n")
for line in sys.stdin:
    row = json.loads(line)
    a, b = (os.path.getsize(row[name]) for name in ("clip_a", "clip_b"))
    print(json.dumps({"id": row["id"], "preference": a / (a + b)}), flush=True)
"""


@pytest.mark.slow
def test_a_program_that_compares_is_trained_on_and_ended_with_the_run(
    world: Path, tmp_path: Path
) -> None:
    (tmp_path / "judge.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "judge.py"), str(tmp_path / "pids")]
    output = tmp_path / "run"
    keys = {"command": command, "pairwise": True, "both_orders": True, "gradient": "paired"}
    done = run(tiny_recipe(world, output, *judged("command", **keys)))
    (pid,) = map(int, (tmp_path / "pids").read_text().split())
    assert not psutil.pid_exists(pid)
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert all(row["grad_norm"] > 0 for row in rows)
    # Of the clips and those near them; each comparison raises one score by what it lowers another.
    assert all(abs(row["reward"]["mine"]) < 0.5 for row in rows)
    assert done.evaluation["trained_on"] == []
    assert "mine" not in done.evaluation["base"]


@pytest.mark.slow
def test_a_batch_is_rolled_out_while_the_one_before_is_judged(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two batches a step: the same bytes as with a judge that is waited for."""
    moods, one, two = Moods(999), tmp_path / "one", tmp_path / "two"
    with serving(moods) as server:
        judge = judged("http", url=server.url, parallel=1)
        short = ("train.gradient_accumulation=2", "train.steps=1")
        run(tiny_recipe(world, one, *judge, *short))
        moods.repeats = True
        monkeypatch.setattr("reward_tuning.tuning.parts.Background", lambda: None)
        run(tiny_recipe(world, two, *judge, *short))
    assert adapter(one) == adapter(two)


@pytest.mark.slow
def test_an_unavailable_judge_of_the_evaluation_names_the_command_that_resumes(
    world: Path, tmp_path: Path
) -> None:
    moods, output = Moods(12), tmp_path / "run"
    with serving(moods) as server:
        recipe = tiny_recipe(world, output, *judged("http", url=server.url))
        with pytest.raises(TuningError, match=f"continue with `reward-tuning resume {output}`$"):
            run(recipe)
        assert checkpoints(output) == ["step-000003"]
        moods.left = 99
        run(recipe, resume=True)
    assert len(moods.asked) == len(set(moods.asked)) == 12 + 4


def test_a_step_is_left_where_a_judge_does_not_answer() -> None:
    with all_or_none(Accelerator(cpu=True)):
        pass
    with pytest.raises(UndoneStep, match=r"^no answer$"), all_or_none(Accelerator(cpu=True)):
        raise JudgeUnavailable("no answer")
    with pytest.raises(ValueError, match="other") as caught, all_or_none(Accelerator(cpu=True)):
        raise ValueError("other")
    assert type(caught.value) is ValueError
    told = r"no answer\. Nothing is lost: .*resume /runs/a`"
    with pytest.raises(TuningError, match=told), resumable(Path("/runs/a")):
        raise JudgeUnavailable("no answer")


def test_each_judge_and_process_has_a_file_of_its_own(tmp_path: Path) -> None:
    with serving(lambda request: replied({"score": 0.5})) as server:
        names = ["mine", "a/b", "a_b", "猫", "x" * 300]
        judges = [load_reward("http", url=server.url, name=name) for name in names]
        outside = [judge for judge in judges if isinstance(judge, BlackBoxReward)]
        assert outside_judges([]) == []
        remember_answers(outside, tmp_path / "answers", 3)
        for judge in judges:
            judge(grey_clips(0.5), ["a"])
    files = sorted(path.name for path in (tmp_path / "answers").iterdir())
    assert len(files) == 5
    assert {"mine-rank3.jsonl", "a_b-rank3.jsonl", "猫-rank3.jsonl"} <= set(files)
    assert all(len(name) < 100 for name in files)
    close_judges(outside)
    with pytest.raises(JudgeUnavailable, match="has been closed"):
        judges[0](grey_clips(0.7), ["a"])
