"""Sections of judges outside this process, and that checking a recipe leaves them alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from reward_tuning.cli.judges import judges_of_options
from reward_tuning.errors import TuningError
from reward_tuning.evidence.judge_identity import judge_identity
from reward_tuning.files.yaml_text import write_yaml
from reward_tuning.schema.black_box_kinds import BLACK_BOXES
from reward_tuning.schema.judge_roles import HELD_OUT
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.locate import locate_argument, locate_program
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning.preflight import check_run
from tests.reward_tuning.recipes_for_tests import recipe_data
from tests.reward_tuning.tiny_run import RECIPE, tiny_recipe, write_world
from tests.rewards.judge_server import replied, serving

URL = "http://localhost:8000/score"
HTTP = {"kind": "http", "url": URL}
COMMAND = {"kind": "command", "command": ["sh", "judge.sh"]}
VLM = {"kind": "vlm", "url": "http://localhost:8000/v1", "model": "seer"}


@pytest.mark.parametrize(
    ("judge", "key", "told"),
    [
        (HTTP | {"url": "localhost"}, "url", "begins with http:// or https://"),
        (HTTP | {"url": "http://a:b@c/"}, "url", "a user name or a password"),
        (VLM | {"url": "http://h/?a=1"}, "url", "has a query"),
        (HTTP | {"batch": 2, "pairwise": True}, None, "compares one pair in a request"),
        (HTTP | {"both_orders": True}, None, "both_orders is for pairs"),
        (HTTP | {"pairwise": True, "chunk": 1}, None, "leave chunk out"),
        (HTTP | {"pairwise": True, "prompt": "a cat"}, None, "leave prompt out"),
        (HTTP | {"timeout": 0.0}, "timeout", "greater than 0"),
        (HTTP | {"retries": -1}, "retries", "greater than or equal to 0"),
        (HTTP | {"key_env": "sk-pasted"}, "key_env", "match pattern"),
        (COMMAND | {"command": []}, "command", "at least 1"),
        (COMMAND | {"command": "sh judge.sh"}, "command", "valid list"),
        (VLM | {"pairwise": True, "answer": "score"}, None, "answers with A or B"),
        (VLM | {"lowest": 3.0, "highest": 3.0}, None, "lowest must be smaller"),
    ],
)
def test_mistakes_are_told(judge: dict[str, Any], key: str | None, told: str) -> None:
    with pytest.raises(ValidationError, match=told) as caught:
        BLACK_BOXES[judge["kind"]].model_validate(judge)
    (found,) = caught.value.errors()
    assert found["loc"][:1] == (() if key is None else (key,))


@pytest.mark.parametrize("judge", [HTTP, COMMAND, VLM])
def test_a_judge_of_pairs_is_not_held_out(judge: dict[str, Any]) -> None:
    HELD_OUT[judge["kind"]].model_validate(judge)
    with pytest.raises(ValidationError, match="no score of a clip by itself"):
        HELD_OUT[judge["kind"]].model_validate(judge | {"pairwise": True})
    with pytest.raises(TuningError, match="no score of a clip by itself"):
        judges_of_options([str(judge | {"pairwise": True}).replace("True", "true")])


def test_identities_tell_judges_apart() -> None:
    """Two judges of a kind may be trained on and held out if they are not the same."""
    other = HTTP | {"url": "http://localhost:8001/score", "name": "other"}
    judges = [HTTP | {"name": "one"}, other]
    data = recipe_data(evaluation__held_out_rewards=judges)
    assert len(Recipe.model_validate(data).evaluation.held_out_rewards) == 2
    identities = [
        BLACK_BOXES[judge["kind"]].model_validate(judge).identity  # type: ignore[index]
        for judge in (HTTP, COMMAND, VLM, VLM | {"question": "{prompt}?"})
    ]
    seer = "seer at http://localhost:8000/v1"
    assert identities == [URL, "sh judge.sh", seer, seer]


@pytest.mark.parametrize(("judge", "key"), [(HTTP, "url"), (COMMAND, "command"), (VLM, "url")])
def test_a_held_out_judge_that_is_trained_on_is_named_by_its_key(
    judge: dict[str, Any], key: str
) -> None:
    data = recipe_data(
        rewards=[judge | {"gradient": "paired"}], evaluation__held_out_rewards=[judge]
    )
    with pytest.raises(ValidationError, match=rf"held_out_rewards\.0\.{key}\n.*another {key}"):
        Recipe.model_validate(data)


def test_scores_are_reused_whatever_the_timeout() -> None:
    def identity(judge: dict[str, Any]) -> str:
        return judge_identity(HELD_OUT[judge["kind"]].model_validate(judge))

    same = {"timeout": 1.0, "retries": 0, "parallel": 9, "max_mb": 2.0, "key_env": "K", "batch": 2}
    assert identity(HTTP) == identity(HTTP | same)
    assert len({identity(HTTP), identity(HTTP | {"fps": 9.0}), identity(VLM)}) == 3


def test_paths_of_a_command_start_from_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, elsewhere = tmp_path / "world", tmp_path / "elsewhere"
    for folder in (world, elsewhere):
        folder.mkdir()
    write_world(world)
    (world / "judge.sh").write_text("touch started")
    (world / "bin").symlink_to(sys.executable)
    monkeypatch.chdir(elsewhere)

    def loaded(*command: str) -> list[str]:
        judge = {"kind": "command", "command": list(command)}
        evaluation = RECIPE["evaluation"] | {"held_out_rewards": [judge]}
        path = world / "commands.yaml"
        path.write_text(write_yaml(RECIPE | {"evaluation": evaluation}))
        (found,) = load_recipe(path).evaluation.held_out_rewards
        return found.command  # type: ignore[attr-defined, no-any-return]

    assert loaded("sh", "judge.sh", "-v", "x") == ["sh", str(world / "judge.sh"), "-v", "x"]
    assert loaded("./bin", "-c", "judge") == [str(world / "bin"), "-c", "judge"]
    with pytest.raises(TuningError, match=r"command\.0: got 'no-such'; no such program"):
        loaded("no-such", "judge.sh")
    with pytest.raises(TuningError, match=r"judge\.sh is not executable; run: chmod \+x"):
        loaded("./judge.sh")
    (elsewhere / "mine.sh").write_text("")
    (section,) = judges_of_options(["{kind: command, command: [sh, mine.sh]}"])
    assert section.command == ["sh", str(elsewhere / "mine.sh")]  # type: ignore[attr-defined]


def test_checking_a_recipe_starts_and_contacts_nothing(tmp_path: Path) -> None:
    write_world(tmp_path)
    (tmp_path / "judge.sh").write_text(f"touch {tmp_path / 'started'}")
    with serving(lambda request: replied({"score": 1.0})) as server:
        judges = [
            f"{{kind: command, command: [sh, {tmp_path / 'judge.sh'}]}}",
            f"{{kind: http, url: '{server.url}', key_env: NOT_SET_HERE}}",
            f"{{kind: vlm, url: '{server.url}', model: seer}}",
        ]
        held_out = f"evaluation.held_out_rewards=[{', '.join(judges)}]"
        recipe = tiny_recipe(tmp_path, tmp_path / "run", held_out)
        found = check_run(recipe, torch.device("cpu"))
        assert (found.mistakes, found.missing) == ([], [])
        assert server.requests == []
    assert not (tmp_path / "started").exists()


def test_an_argument_with_the_home_of_nobody_is_passed_on(tmp_path: Path) -> None:
    assert locate_argument("~nobody-has-this-home", tmp_path) == "~nobody-has-this-home"
    with pytest.raises(TuningError, match=r"no such program: neither at .*~nobody-has"):
        locate_program("~nobody-has-this-home/a", tmp_path)
