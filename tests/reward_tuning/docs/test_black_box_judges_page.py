"""What docs/black-box-judges.md shows works: its recipes, its server and its program."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from reward_tuning.cli.judges import judges_of_options
from reward_tuning.files.yaml_text import read_yaml
from reward_tuning.schema.recipe import Recipe
from rewards import load_reward
from rewards.core.black_box import BlackBoxReward
from tests.reward_tuning.recipes_for_tests import recipe_data
from tests.rewards.judge_server import grey_clips

PAGE = (Path(__file__).parents[3] / "docs" / "black-box-judges.md").read_text(encoding="utf-8")
RECIPES: list[Any] = [
    read_yaml(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
]
SERVER, PROGRAM = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
PROMPTS = ["a cat", 'a "café" with \\ and 猫']
SCORES = [len(prompt) / 100 for prompt in PROMPTS]


@pytest.mark.parametrize("shown", RECIPES)
def test_the_recipes_are_valid(shown: dict[str, Any]) -> None:
    changes = {"rewards": shown["rewards"]} if "rewards" in shown else {}
    held_out = shown.get("evaluation", {}).get("held_out_rewards", [])
    data = recipe_data(**changes, evaluation__held_out_rewards=held_out)
    data["train"] = data["train"] | shown.get("train", {})
    recipe = Recipe.model_validate(data)
    kinds = [judge.kind for judge in [*recipe.rewards, *recipe.evaluation.held_out_rewards]]
    assert [*changes.get("rewards", []), *held_out][-1]["kind"] == kinds[-1]


def test_the_judge_given_to_score_is_valid() -> None:
    (text,) = re.findall(r"--reward '([^']*)'", PAGE)
    assert [judge.kind for judge in judges_of_options([text])] == ["vlm"]


def test_the_server_can_be_copied(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "server.py").write_text(SERVER.replace("8000", str(port)), encoding="utf-8")
    server = subprocess.Popen(
        [sys.executable, "server.py"], cwd=tmp_path, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 20
        while True:
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < until
            time.sleep(0.05)
        judge = load_reward("http", url=f"http://127.0.0.1:{port}/score", retries=0)
        assert judge(grey_clips(0.2, 0.7), PROMPTS).tolist() == pytest.approx(SCORES)
    finally:
        server.kill()
        server.wait()


def test_the_program_can_be_copied(tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, "judge.py"]
    judge = load_reward("command", command=command, folder=tmp_path, retries=0)
    assert judge(grey_clips(0.2, 0.7), PROMPTS).tolist() == pytest.approx(SCORES)
    assert isinstance(judge, BlackBoxReward)
    judge.close()
