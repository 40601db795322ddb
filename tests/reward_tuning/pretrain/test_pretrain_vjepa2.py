"""Training of the small V-JEPA 2, and how judges of clips are measured."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from base_model.tiny.oracle import centres, recognise_clip, soft_mask
from base_model.tiny.render import render_staged
from base_model.tiny.scenes import FRAMES, Scene
from reward_tuning.pretrain import judge_vjepa2
from reward_tuning.pretrain.clip_accuracy import (
    FASTEST,
    MIDDLE,
    at_speed,
    ordering_accuracy,
    shuffled,
    speed_agreement,
    teleported,
    turned_back,
)
from reward_tuning.pretrain.judge_configs import VJEPA2
from reward_tuning.pretrain.judge_vjepa2 import Student
from reward_tuning.pretrain.judges import train_judge
from rewards import load_reward
from rewards.kinds.measure import Measure
from rewards.kinds.vjepa2 import build_vjepa2

SCENE = Scene("red", "square", "dark", "small", "right")


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


def test_what_cannot_be() -> None:
    rng = random.Random(0)
    clip, mixed = shuffled(SCENE, rng)
    pixels = clip.flatten(1).sum(dim=1)
    assert sorted(pixels.tolist()) == sorted(mixed.flatten(1).sum(dim=1).tolist())
    assert not torch.equal(clip, mixed)
    clip, jumped = teleported(SCENE, rng)
    assert torch.equal(clip[:MIDDLE], jumped[:MIDDLE])
    path = centres(soft_mask(jumped)).diff(dim=0).norm(dim=1)
    assert int(path.argmax()) == MIDDLE - 1
    assert float(path.max()) > 5.0
    clip, turned = turned_back(SCENE, rng)
    assert torch.equal(turned[: MIDDLE + 1], clip[: MIDDLE + 1])
    assert torch.equal(turned, turned.flip(0))


def test_at_speed() -> None:
    for speed in (0.0, 1.3, FASTEST):
        moved = render_staged(SCENE, at_speed(SCENE, speed, random.Random(1)))
        found = torch.tensor(recognise_clip(moved).velocity)
        assert float(found.norm()) == pytest.approx(speed, abs=0.1)
        middle = centres(soft_mask(moved))[MIDDLE]
        assert middle.tolist() == pytest.approx([32.0, 32.0], abs=1.5)


def steadiness(frames: Tensor, prompts: Sequence[str]) -> Tensor:
    """Minus the largest change of velocity of the shape: what no rendered clip has."""
    paths = torch.stack([centres(soft_mask(clip)) for clip in frames])
    return -paths.diff(n=2, dim=1).norm(dim=2).amax(dim=1)


def test_a_judge_that_sees_the_path_orders_all_pairs_and_a_blind_one_half() -> None:
    seeing = Measure(steadiness, "steadiness")
    assert set(ordering_accuracy(seeing, 12, 0).values()) == {1.0}
    worst = Measure(lambda frames, prompts: -steadiness(frames, prompts), "worst")
    assert set(ordering_accuracy(worst, 12, 0).values()) == {0.0}


def test_agreement_with_speed() -> None:
    def speed(frames: Tensor, prompts: Sequence[str]) -> Tensor:
        return centres_moved(frames) ** 3

    found = speed_agreement(Measure(speed, "cubed"), 12, 0)
    assert found["rank correlation"] > 0.95
    assert found["pairs"] > 0.95
    assert 0.7 < found["correlation"] < found["rank correlation"]
    slow = Measure(lambda frames, prompts: -centres_moved(frames), "slow")
    assert speed_agreement(slow, 12, 0)["pairs"] < 0.05


def centres_moved(frames: Tensor) -> Tensor:
    paths = torch.stack([centres(soft_mask(clip)) for clip in frames])
    return (paths[:, -1] - paths[:, 0]).norm(dim=1) / (FRAMES - 1)
