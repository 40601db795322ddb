"""Input by mistake or malice, and a damaged or full disk: an error, never a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from reward_tuning.errors import TuningError
from reward_tuning.files.clips import write_clip
from reward_tuning.files.yaml_text import read_yaml
from reward_tuning.runs.metrics import MetricsLog
from tests.reward_tuning.command_line import command
from tests.reward_tuning.runs.listening_tracker import tensorboard

run = pytest.fixture(command)


@pytest.mark.parametrize(
    "text", ["!!int abc", "!!float abc", "!!bool abc", "!!timestamp abc", "9" * 5000, "[" * 3000]
)
def test_yaml_that_is_not_what_it_says(text: str) -> None:
    with pytest.raises(TuningError, match="not valid YAML"):
        read_yaml(text)


@pytest.mark.parametrize("number", ["9" * 19, "-" + "9" * 19, "9" * 400, "-" + "9" * 4000])
@pytest.mark.parametrize("key", ["train.steps", "seed", "rewards.0.weight", "sampling.height"])
def test_whole_numbers_beyond_64_bits(run: Any, tmp_path: Path, key: str, number: str) -> None:
    done = run("validate", "tiny-drtune-hps", f"{key}={number}")
    assert done.code == 2
    assert f"{key}: got {number[:20]}" in done.err
    assert "a whole number has at most 64 bits" in done.err
    assert len(done.err) < 600
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"seed: 1\noutput: {number}\n")
    done = run("validate", recipe)
    assert done.code == 2
    assert f"output: got {number[:20]}" in done.err


def test_an_anchor_that_holds_itself(run: Any, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("seed: &a [*a]\nrewards: &b\n  - {kind: hps, checkpoint: *b}\n")
    done = run("validate", recipe)
    assert done.code == 2
    assert "seed: got [[...]]" in done.err


@pytest.mark.parametrize(
    "key",
    [
        "output", "generator.checkpoint", "prompts.train", "rewards.0.checkpoint", "lora.init",
        "evaluation.held_out_rewards.0.checkpoint",
    ],
)  # fmt: skip
def test_lone_surrogates_in_the_names_of_files(run: Any, key: str) -> None:
    done = run("validate", "tiny-drtune-multi", f'{key}="a\\ud83d"')
    assert done.code == 2
    assert (
        f"{key}: got 'a\\ud83d'; contains an invalid Unicode character (lone surrogate)" in done.err
    )


def test_long_keys_and_many_mistakes_are_cut(run: Any) -> None:
    overrides = [f"{'k' * 3000}{i}={'v' * 3000}" for i in range(40)]
    done = run("validate", "tiny-drtune-hps", *overrides, f"rewards.{'9' * 5000}.weight=1")
    assert done.code == 2
    assert len(done.err) < 2500
    assert "more" in done.err.splitlines()[-1]


def test_a_list_too_short(run: Any) -> None:
    done = run("validate", "tiny-drtune-hps", "train.betas=[0.9]")
    assert done.code == 2
    assert "train.betas" in done.err


LONG = "x" * 256


@pytest.mark.parametrize(
    "key", ["output", "generator.checkpoint", "prompts.train", "rewards.0.checkpoint"]
)
@pytest.mark.parametrize(
    ("value", "message"),
    [('"a\\0b"', "NUL"), (LONG, "too long for a file"), ("y/" * 2100, "in all")],
)
def test_names_that_no_file_can_have(run: Any, key: str, value: str, message: str) -> None:
    done = run("validate", "tiny-drtune-hps", f"{key}={value}")
    assert done.code == 2
    assert key in done.err
    assert message in done.err


def test_a_name_of_255_bytes_is_valid(run: Any) -> None:
    done = run("validate", "tiny-drtune-hps", f"output={LONG[:255]}")
    assert done.code == 0, done.err


@pytest.mark.parametrize("words", [["validate", LONG], ["show", LONG], ["resume", LONG]])
def test_arguments_that_no_file_can_have_as_a_name(run: Any, words: list[str]) -> None:
    done = run(*words)
    assert done.code == 2
    assert "Traceback" not in done.err
    assert LONG in done.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["score", "{}.mp4", "--reward", "motion_energy"], 2),
        (["render", "{}", "--count", 1], 0),
        (["cp", "tiny-draft-hps", "{}.yaml"], 0),
        (["resume", "{}"], 2),
        (["generate", "--prompt", "a", "--checkpoint", "{}", "--output", "o"], 2),
    ],
)
def test_a_name_that_is_not_utf_8_is_shown(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int
) -> None:
    """Linux takes any byte in a name, and Python hands it on as a lone surrogate."""
    monkeypatch.chdir(tmp_path)
    done = run(*(str(word).format("a\udcff") for word in words))
    assert done.code == code, done.err
    assert "a\\udcff" in (done.err if code else done.out)


@pytest.mark.parametrize("when", ["flush", "close"])
def test_a_disk_that_is_full_when_tensorboard_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", 0, [tensorboard(tmp_path)])

    def full(**options: bool) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log._trackers[0].tracker, when, full)
    with pytest.raises(TuningError, match="could not be written: No space left"):
        getattr(log, when)()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "a 'clip'.png"
    write_clip(torch.rand(1, 3, 32, 32), path)
    return path


def test_a_lone_surrogate_on_the_command_line(run: Any, clip: Path, tmp_path: Path) -> None:
    for words in (
        ("generate", "--output", tmp_path / "b.mp4", "--prompt", "a\udcff"),
        ("score", clip, "--reward", "hps:tiny/hps.safetensors", "--prompt", "a\udcff"),
    ):
        done = run(*words)
        assert done.code == 2
        assert "(lone surrogate)" in done.err


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_clip_of_nan_or_infinity_is_not_written(tmp_path: Path, value: float) -> None:
    with pytest.raises(TuningError, match="NaN or infinity"):
        write_clip(torch.full((1, 3, 16, 16), value), tmp_path / "clip.png")
    assert list(tmp_path.iterdir()) == []


def test_aliases_of_aliases_are_refused(run: Any, tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 13)]
    recipe = tmp_path / "r.yaml"
    recipe.write_text("\n".join(lines), encoding="utf-8")
    found = run("validate", recipe)
    assert found.code == 2
    assert "with its aliases (*name) expanded it has more than 100,000 values" in found.err
    shared = "a: &a {x: [1, 2]}\nb: [*a, *a]\n"
    assert read_yaml(shared) == {"a": {"x": [1, 2]}, "b": [{"x": [1, 2]}, {"x": [1, 2]}]}
