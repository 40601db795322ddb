"""Training of the small V-JEPA 2."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from base_model.tiny.scenes import FRAMES
from reward_tuning.pretrain import judge_vjepa2
from reward_tuning.pretrain.judge_configs import VJEPA2
from reward_tuning.pretrain.judge_vjepa2 import Student
from reward_tuning.pretrain.judges import train_judge
from rewards import load_reward
from rewards.kinds.vjepa2 import build_vjepa2


def trained(folder: Path, steps: int) -> Path:
    training = folder / "training"
    return train_judge("vjepa2", folder, 1, lambda *_: None, training=training, steps=steps)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_vjepa2, "BATCH", 2)
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "pred_hidden_size": 24}
    for name, value in {**sizes, "pred_num_hidden_layers": 1}.items():
        monkeypatch.setitem(VJEPA2, name, value)


@pytest.mark.usefixtures("small")
def test_it_trains_to_a_file_that_loads_and_scores(tmp_path: Path) -> None:
    path = trained(tmp_path, 3)
    judge = load_reward("vjepa2", path)
    x = torch.rand(1, FRAMES, 3, 64, 64, requires_grad=True)
    (g,) = torch.autograd.grad(judge(x, ["-"]).sum(), x)
    assert float(g.flatten(2).norm(dim=2).min()) > 0
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}
    with safe_open(path, "pt") as file:
        command = file.metadata()["command"]
    assert command == "reward-tuning pretrain tiny --only vjepa2 --seed 1"
    again = trained(tmp_path / "again", 3)
    assert again.read_bytes() == path.read_bytes()


def test_the_target_follows_the_encoder_and_is_no_parameter() -> None:
    torch.manual_seed(0)
    student = Student(build_vjepa2(VJEPA2, torch.device("cpu")))
    assert not any(name.startswith("target") for name, _ in student.named_parameters())
    target, encoder = student.target, student.model.encoder
    x = torch.rand(1, 4, 3, 64, 64)
    with torch.no_grad():
        before = target(x).last_hidden_state
        torch.testing.assert_close(before, encoder(x).last_hidden_state)
        first = encoder.layer[0].mlp.fc1.weight
        kept = first.clone()
        first.add_(1.0)
        assert torch.equal(target(x).last_hidden_state, before)
        student.follow(0.9)
    torch.testing.assert_close(target.layer[0].mlp.fc1.weight, kept + 0.1)


def test_a_stored_training_has_its_target() -> None:
    student = Student(build_vjepa2(VJEPA2, torch.device("cpu")))
    stored = dict(student.named_buffers())
    names = {f"target.{name}" for name, _ in student.model.encoder.named_parameters()}
    assert names <= stored.keys()
