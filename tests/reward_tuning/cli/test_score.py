"""score: its table and JSON, its mistakes, skipped files, and the file of the result."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from reward_tuning.errors import TuningError
from reward_tuning.files.clips import write_clip
from tests.reward_tuning import clip_folder
from tests.reward_tuning.command_line import Command, command
from tests.rewards.judge_server import replied, serving
from tests.rewards.tiny_clip import frames

HPS, AESTHETIC = "hps:tiny/hps.safetensors", "aesthetic:tiny/aesthetic.safetensors"
PROMPT = "a red circle moves left"
_command = pytest.fixture(command, name="command")
folder, clips = clip_folder.folder, clip_folder.clips


def test_the_verb(command: Command, folder: Path) -> None:
    result = folder / "scores.json"
    arguments = ["score", folder, "--prompt", PROMPT, "--reward", HPS, "--reward", AESTHETIC]
    ran = command(*arguments, "--json", "--output", result)
    assert ran.code == 0
    assert "scoring 5/5" in ran.err
    found = json.loads(ran.out)
    assert json.loads(result.read_text()) == found
    assert [Path(one["file"]).name for one in found["clips"]] == [
        "a.mp4",
        "b.gif",
        "d.webm",
        "wide.mp4",
        "e.jpg",
    ]
    assert found["skipped"] == []
    assert set(found["mean"]) == {"hps", "aesthetic"}
    table = command(*arguments).out
    for one in found["clips"]:
        line = next(line for line in table.splitlines() if Path(one["file"]).name in line)
        assert f"{one['scores']['hps']:.4f}" in line
    assert f"{found['mean']['aesthetic']:.4f}" in table.splitlines()[-2]


def test_damaged_files_are_skipped_and_reported(command: Command, folder: Path) -> None:
    (folder / "bad.mp4").write_bytes((folder / "a.mp4").read_bytes()[:200])
    Image.fromarray(np.zeros((64, 64, 3), dtype=np.uint8)).save(folder / "cut.png")
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:60])
    ran = command("score", folder, "--reward", AESTHETIC, "--json")
    assert ran.code == 2
    found = json.loads(ran.out)
    assert len(found["clips"]) == 5
    assert [Path(one["file"]).name for one in found["skipped"]] == ["bad.mp4", "cut.png"]
    assert "2 of 7 files could not be read" in ran.err
    assert f"clip {folder / 'bad.mp4'}: not a video that can be read" in ran.err
    alone = command("score", folder / "bad.mp4", "--reward", AESTHETIC)
    assert (alone.code, alone.out) == (2, "")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "no judge; give --reward KIND:CHECKPOINT"),
        (["--reward", HPS], "no prompt for"),
        (["--reward", "hbs:x"], "reward.0.kind: got 'hbs'; allowed: hps,"),
        (["--reward", "hps"], "reward.0.checkpoint: is missing"),
        (["--reward", "hps:nothing"], "reward.0.checkpoint: got 'nothing'; no such judge"),
        (["--reward", "{kind: hps, chekpoint: x}"], "did you mean reward.0.checkpoint?"),
        (["--reward", "{kind: hps"], "not valid YAML"),
        (["--reward", HPS, "--reward", HPS], "is given twice; give each its own name"),
        (["--reward", "latent:tiny/latent-clip.safetensors"], "judges noisy latents"),
        (["--reward", HPS, "--dtype", "half"], "--dtype: got 'half'; allowed: float32"),
        (["--reward", HPS, "--output", "x.csv"], "the name must end in .json"),
        (["--reward", HPS, "--prompts", "gone.jsonl"], "prompt file gone.jsonl: cannot be read"),
    ],
)
def test_mistakes_of_the_verb(
    command: Command, folder: Path, options: list[str], said: str
) -> None:
    ran = command("score", folder / "a.mp4", *options)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ") or "\nerror: " in ran.err
    assert said in ran.err


def test_the_judges_of_a_recipe_and_long_prompts(command: Command, folder: Path) -> None:
    long = " ".join(["red"] * 90)
    ran = command("score", folder / "a.mp4", "--recipe", "tiny-drtune-multi", "--prompt", long,
                  "--json")  # fmt: skip
    assert ran.code == 0
    found = json.loads(ran.out)
    assert set(found["mean"]) == {"hps", "clip", "aesthetic", "clip_held_out"}
    assert ran.err.count("warning: the clips' prompts: the judge hps reads") == 1


ROOT = Path(__file__).parents[3]
CASES = Path(__file__).parents[1] / "cases/clips"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    write_clip(frames(1, 2, 32, 32)[0], tmp_path / "a.mp4")
    return tmp_path / "a.mp4"


def test_a_cut_clip_is_left_out_counted_and_named(command: Command, tmp_path: Path) -> None:
    for name in ("truncated-faststart.mp4", "variable-rate.mp4"):
        shutil.copy(CASES / name, tmp_path / name)
    ran = command("score", tmp_path, "--reward", "sharpness", "--json")
    assert ran.code == 2
    found = json.loads(ran.out)
    assert [Path(one["file"]).name for one in found["clips"]] == ["variable-rate.mp4"]
    assert "1 of 2 files could not be read and have no score" in ran.err
    assert "truncated-faststart.mp4: cut short or damaged, 7 of about 13 frames" in ran.err


def test_a_result_that_cannot_be_written_is_refused_before_any_work(
    command: Command, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "reward_tuning.judges.scoring.file_judges", lambda *_: pytest.fail("loaded")
    )
    there = clip.parent / "scores.json"
    there.write_text("mine")
    (clip.parent / "folder.json").mkdir()
    for output, said in (
        (there, "exists and is not overwritten; give another --output, or --overwrite"),
        (clip / "scores.json", "is not a folder"),
        (clip.parent / "folder.json", "is a folder; name a .json file in it"),
        (clip.parent / ("x" * 300 + ".json"), "too long for a file"),
    ):
        ran = command("score", clip, "--reward", "sharpness", "--output", output)
        assert (ran.code, ran.out) == (2, "")
        assert said in ran.err
    assert there.read_text() == "mine"


def test_a_write_that_fails_does_not_cost_the_scores(
    command: Command, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes, *, advice: str) -> None:
        raise TuningError(f"{path} could not be written: No space left on device; {advice}")

    monkeypatch.setattr("reward_tuning.files.atomic_write.atomic_write", full)
    (clip.parent / "bad.mp4").write_bytes(b"no video")
    output = clip.parent / "scores.json"
    ran = command("score", clip.parent, "--reward", "sharpness", "--output", output, "--json")
    assert ran.code == 2
    assert len(json.loads(ran.out)["clips"]) == 1
    assert "No space left on device; the scores are printed above" in ran.err
    assert "1 of 2 files could not be read" in ran.err  # and this is not lost either


def test_a_result_is_replaced_where_that_is_asked(command: Command, clip: Path) -> None:
    output = clip.parent / "scores.json"
    output.write_text("old")
    words = ("score", clip, "--reward", "sharpness", "--output", output, "--overwrite")
    assert command(*words).code == 0
    assert len(json.loads(output.read_text())["clips"]) == 1


def test_a_judge_that_prints_leaves_the_result_alone(command: Command, clip: Path) -> None:
    own = clip.parent / "own.py"
    own.write_text(
        "class Own:\n    def __call__(self, frames, prompts):\n"
        "        print('hello')\n        return frames.mean((1, 2, 3, 4))\n"
    )
    done = command("score", clip, "--reward", f"python:{own}", "--prompt", "a", "--json")
    assert done.code == 0, done.err
    assert len(json.loads(done.out)["clips"]) == 1
    assert "hello" in done.err


def test_a_server_scores_clips_and_is_sent_each_once(command: Command, clip: Path) -> None:
    with serving(lambda request: replied({"score": 0.25})) as server:
        judge = f"{{kind: http, url: '{server.url}'}}"
        done = command("score", clip, clip, "--prompt", "a cat", "--reward", judge, "--json")
        assert json.loads(done.out)["clips"][0]["scores"] == {"http": 0.25}
        assert len(server.requests) == 1
        pairs = judge.replace("}", ", pairwise: true}")
        refused = command("score", clip, "--prompt", "a cat", "--reward", pairs)
        assert (refused.code, len(server.requests)) == (2, 1)
        assert "no score of a clip by itself" in refused.err
    broken = command(
        "score", clip, "--prompt", "a", "--reward", judge.replace("}", ", retries: 0}")
    )
    assert broken.code == 2
    assert "the judge http at http://127.0.0.1" in broken.err
    assert "Traceback" not in broken.err


PROGRAM = """
import json, os, sys, time
print(os.getpid(), file=open(sys.argv[1], "w"), flush=True)
for line in sys.stdin:
    if sys.argv[2] == "stuck":
        time.sleep(60)
    print(json.dumps({"id": json.loads(line)["id"], "score": 0.5}), flush=True)
"""


@pytest.mark.parametrize(("how", "code"), [("answers", 0), ("stuck", 130)])
def test_a_program_is_gone_when_the_command_is(
    clip: Path, tmp_path: Path, how: str, code: int
) -> None:
    """A real process, which leaves without the interpreter's shutdown, or by Ctrl-C."""
    (tmp_path / "judge.py").write_text(PROGRAM)
    (tmp_path / "tmp").mkdir()
    judge = {"kind": "command", "command": [sys.executable, "judge.py", "pid", how]}
    words = ["score", str(clip), "--prompt", "a cat", "--reward", json.dumps(judge)]
    process = subprocess.Popen(
        [sys.executable, "-m", "reward_tuning.cli", *words],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 100
    while how == "stuck" and not (tmp_path / "pid").exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    if how == "stuck":
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=100)
    assert process.returncode == code, err
    assert ("0.5000" in out) == (code == 0)
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))
    assert list((tmp_path / "tmp").glob("judged-*")) == []
