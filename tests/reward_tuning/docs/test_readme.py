"""The commands of README.md, in their order, in an empty folder; small where they take long."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from rewards.core.published import PUBLISHED
from tests.reward_tuning.command_line import Command, command

run = pytest.fixture(command, name="run")
ROOT = Path(__file__).parents[3]
TRAIN = "train.steps=1 evaluation.prompts=2 evaluation.steps=2 sampling.steps=4"
SMALL = {
    "run": f"{TRAIN} method.active_steps=1 method.early_stop=false",
    "finetune": "train.steps=1 train.sample_every=1 samples.steps=2 data.held_out=1",
    "calibrate": "--prompts 2 evaluation.steps=2",
    "generate": "--steps 2",
    "render": "--count 4",
}
"""What is put behind a command; the last of two values counts."""

ELSEWHERE = {
    "make demo": "installs an environment: tests/test_scripts.py; its run is `run tiny-demo`",
    "make test": "is what runs this",
    "reward-tuning run easyanimate-v5.1-7b-hps": "needs a GPU and 30 GB of weights; validated",
}
"""Commands that are not run here, each with the reason."""


def commands(text: str) -> list[str]:
    """Of the shell blocks, in their order, without comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [
        line if " > " in line else shlex.join(shlex.split(line, comments=True))
        for line in lines
        if line.strip()
    ]


def test_every_command_runs(run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = commands((ROOT / "README.md").read_text(encoding="utf-8"))
    assert set(ELSEWHERE) <= set(told)
    fetched = {entry.fetch for entry in PUBLISHED}
    verbs = []
    for line in told:
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
    assert "reward-tuning validate easyanimate-v5.1-7b-hps" in told
    for made in ("runs/mine/lora", "runs/further/lora", "runs/own-prompts/evaluation.json"):
        assert (tmp_path / made).exists()
    assert list((tmp_path / "clips").glob("*.mp4"))
    for made in ("lora.safetensors", "pan.mp4", "tiny-original/transformer"):
        assert (tmp_path / made).exists()
