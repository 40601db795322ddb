"""A whole run with secrets in the environment and a hostile name: where both end up."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.reward_tuning.command_line import Ran
from tests.reward_tuning.tiny_run import tiny_recipe, write_world
from tests.rewards.judge_server import Reply, Request, replied, serving

SECRETS = {
    "HF_TOKEN": "hf_QqWwEeRrTtYyUuIiOoPp0123",
    "WANDB_API_KEY": "00112233445566778899aabbccddeeff00112233",
    "OPENAI_API_KEY": "sk-proj-nobody-may-see-this-77",
    "JUDGE_KEY": "judge-key-that-only-its-server-sees",
    "MLFLOW_TRACKING_PASSWORD": "mlflow-password-of-nobody",
}
NAME = "../../../<img src=x onerror=alert(1)> \"evil'"
OVERRIDES = (
    "train.steps=2",
    "train.batch_size=4",
    "train.clips_per_prompt=2",
    "train.checkpoint_every=1",
    "evaluation.prompts=2",
    "evaluation.seeds=1",
    "guards.every=0",
    "tracking=[tensorboard, wandb, trackio]",
)


def run(*words: object) -> Ran:
    """Run the command in a process of its own: trackers keep a state in theirs."""
    done = subprocess.run(
        [sys.executable, "-m", "reward_tuning.cli", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def spellings(secret: str) -> list[bytes]:
    """A secret as it is, and as the header of a login with user name and password has it."""
    encoded = [base64.b64encode(f"{before}{secret}".encode()) for before in ("", "api:", "user:")]
    return [secret.encode(), *(one.rstrip(b"=")[4:-2] for one in encoded)]


def holding(folder: Path, words: list[bytes]) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if any(word in path.read_bytes() for word in words)]


@pytest.mark.slow
def test_a_run_tells_no_secret_and_writes_only_into_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("REWARD_TUNING_CACHE", str(tmp_path / "cache"))
    world = write_world(tmp_path / "world")
    output = tmp_path / "a" / "b" / "run"
    output.parent.mkdir(parents=True)
    tiny_recipe(world, output)  # writes the file
    before = sorted(path for path in tmp_path.rglob("*"))
    asked: list[Request] = []

    def answer(request: Request) -> Reply:
        asked.append(request)
        if len(asked) == 1:  # a server that repeats what it was sent, in an error
            return Reply(f"who is {request.headers['authorization']}?".encode(), 503)
        return replied({"score": 0.1 * (len(asked) % 7)})

    with serving(answer) as server:
        judge = {"kind": "http", "url": server.url, "key_env": "JUDGE_KEY", "name": NAME}
        judge |= {"gradient": "group", "retries": 1, "parallel": 1}
        rewards = f"rewards={json.dumps([judge])}"
        told = [run("run", world / "recipe.yaml", f"output={output}", rewards, *OVERRIDES)]
    assert told[0].code == 0, told[0]
    assert {one.headers["authorization"] for one in asked} == {f"Bearer {SECRETS['JUDGE_KEY']}"}
    told += [run(verb, output) for verb in ("show", "report", "card")]
    told.append(run("doctor", output / "recipe.yaml", "--json"))
    assert [one.code for one in told] == [0, 0, 0, 0, 0], told

    written = {path.relative_to(output).parts[0] for path in output.rglob("*") if path.is_file()}
    assert {"recipe.yaml", "report.html", "README.md", "tracking", "answers"} <= written
    assert list(output.glob("tracking/wandb/offline-run-*/*.wandb"))
    assert holding(output, [server.url.encode()])  # what is in a file is found
    words = [word for secret in SECRETS.values() for word in spellings(secret)]
    assert holding(tmp_path, words) == []
    assert not [one for one in told for word in words if word in (one.out + one.err).encode()]

    # A name that climbs, with markup in it, is a name: in no path, and text in the page.
    outside = [path for path in tmp_path.rglob("*") if not path.is_relative_to(output)]
    new = {
        path for path in outside if path not in before and tmp_path / "cache" not in path.parents
    }
    assert new == {tmp_path / "cache"}
    (answers,) = (output / "answers").iterdir()
    assert answers.name.startswith(".._.._.._")
    assert b"<img src=x" not in (output / "report.html").read_bytes()
    assert re.search(r"(?<!\\)<img src=x", (output / "README.md").read_text()) is None
