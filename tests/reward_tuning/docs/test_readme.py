"""The commands of README.md and of the pages that go on from it, in one folder, made small."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from rewards.core.published import PUBLISHED
from tests.reward_tuning.command_line import Command, command
from tests.reward_tuning.statistics.vote_files import vote, write_votes

run = pytest.fixture(command, name="run")
ROOT = Path(__file__).parents[3]
PAGES = ("README.md", "docs/command-line.md", "docs/recipes.md")
"""In the order of reading: the commands of a page use what those of the page before made."""

TRAIN = "train.steps=1 evaluation.prompts=2 evaluation.steps=2 sampling.steps=4"
SMALL = {
    "run": f"{TRAIN} method.active_steps=1 method.early_stop=false",
    "finetune": "train.steps=1 train.sample_every=1 samples.steps=2 data.held_out=1",
    "distil": "train.steps=1 train.warmup_steps=0 evaluation.prompts=2 evaluation.steps=5",
    "calibrate": "--prompts 2 evaluation.steps=2",
    "generate": "--steps 2",
    "evaluate": "--count 2 --no-sharpness",
    "compare": "--count 2 --no-sharpness",
    "mix": "--count 2 --no-sharpness",
    "render": "--count 4",
}
"""Appended to a command to make it short; of two values the last counts."""

ELSEWHERE = {
    "make demo": "installs an environment: tests/test_scripts.py; its run is `run tiny-demo`",
    "make test": "is what runs this",
    "reward-tuning watch runs": "serves until it is stopped: tests/reward_tuning/watch",
    "reward-tuning run easyanimate-v5.1-7b-hps": "needs a GPU and 30 GB of weights; validated",
}
"""Commands that this test does not run, each with the reason."""


def commands(text: str) -> list[str]:
    """Return the commands of the shell blocks, in order, without comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [
        line if " > " in line else shlex.join(shlex.split(line, comments=True))
        for line in lines
        if line.strip()
    ]


@pytest.mark.slow
def test_every_command_runs(run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ann", "ben"):  # what a vote page saves
        write_votes(tmp_path / f"{name}.json", [vote(0, "right")], voter=name)
    shown = [line for page in PAGES for line in commands((ROOT / page).read_text("utf-8"))]
    assert set(ELSEWHERE) <= set(shown)
    fetched = {entry.fetch for entry in PUBLISHED}
    verbs = []
    for line in shown:
        if line in ELSEWHERE or any(one.startswith(line) for one in fetched):
            continue
        if " > " in line:
            subprocess.run(["sh", "-c", line], check=True)
            continue
        program, verb, *words = shlex.split(line)
        assert program == "reward-tuning", line
        done = run(verb, *words, *shlex.split(SMALL.get(verb, "")))
        assert done.code == 0, (line, done.err)
        verbs.append(verb)
    assert {"run", "resume", "generate", "finetune", "export", "convert"} <= set(verbs)
    assert "reward-tuning validate easyanimate-v5.1-7b-hps" in shown
    for made in ("runs/mine/lora", "runs/further/lora", "runs/own-prompts/evaluation.json"):
        assert (tmp_path / made).exists()
    assert list((tmp_path / "clips").glob("*.mp4"))
    for made in ("lora.safetensors", "pan.mp4", "tiny-original/transformer"):
        assert (tmp_path / made).exists()
