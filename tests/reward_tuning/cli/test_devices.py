"""The device of `--device`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from reward_tuning.cli.devices import chosen_device
from reward_tuning.errors import TuningError
from reward_tuning.files.clips import write_clip
from tests.reward_tuning.command_line import command

run = pytest.fixture(command)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "a 'clip'.png"
    write_clip(torch.rand(1, 3, 32, 32), path)
    return path


@pytest.mark.parametrize(
    ("device", "message"),
    [("nonsense", "allowed: cpu"), ("meta", "allowed: cpu"), ("cuda:99", "this machine has")],
)
def test_a_device_that_is_not_there(run: Any, clip: Path, device: str, message: str) -> None:
    output = clip.parent / "b.mp4"
    for words in (
        ("score", clip, "--reward", "sharpness"),
        ("generate", "--prompt", "a", "--output", output),
        ("calibrate", "tiny-draft-hps"),
    ):
        done = run(*words, "--device", device)
        assert done.code == 2
        assert message in done.err
    assert not output.exists()


def test_the_cpu_by_name_and_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert chosen_device("cpu") == chosen_device(None) == torch.device("cpu")
    with pytest.raises(TuningError, match=r"this machine has 0 GPUs .*; give cpu"):
        chosen_device("cuda")


def test_the_first_gpu_unless_another_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert chosen_device(None) == torch.device("cuda")
    assert chosen_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(TuningError, match="'cuda:2'; this machine has 2 GPUs"):
        chosen_device("cuda:2")
