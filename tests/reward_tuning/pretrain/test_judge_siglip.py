"""The SigLIP tower under its aesthetic head: its file and its features."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from reward_tuning.errors import TuningError
from reward_tuning.pretrain import pretrain_tiny
from reward_tuning.pretrain.judge_siglip import SiglipStudent
from rewards import load_reward
from rewards.clip_towers.siglip import SiglipConfig, SiglipVision
from rewards.clip_towers.tower import unit_length
from tests.reward_tuning.pretrain.small_judges import SMALL_SIGLIP, clean


@pytest.mark.slow
def test_the_head_reads_the_features_of_the_tower_in_the_folder(trained: Path) -> None:
    with safe_open(trained / "aesthetic-v2-5.safetensors", "pt") as file:
        assert file.metadata()["tower"] == "siglip.safetensors"
    tensors = load_file(trained / "siglip.safetensors")
    with safe_open(trained / "siglip.safetensors", "pt") as file:
        assert json.loads(file.metadata()["architecture"]) == SMALL_SIGLIP
    tower = SiglipVision(SiglipConfig(**SMALL_SIGLIP)).eval()
    tower.load_state_dict(
        {name.removeprefix("vision_model."): value.float() for name, value in tensors.items()}
    )
    frames = clean(3)
    judge = load_reward("aesthetic_v2_5", trained / "aesthetic-v2-5.safetensors")
    with torch.no_grad():
        expected = unit_length(tower(frames * 2 - 1))
        torch.testing.assert_close(judge.image_features(frames), expected, atol=1e-4, rtol=1e-3)


def test_appeal_is_read_around_seven_at_first() -> None:
    torch.manual_seed(0)
    student = SiglipStudent(torch.nn.Identity(), 64)
    features = unit_length(torch.randn(500, 64))
    read = student.appeal(features)[:, 0]
    assert float(read.mean().detach()) == pytest.approx(7.0, abs=0.3)
    assert 0.5 < float(read.std().detach()) < 2.0


def test_the_head_needs_its_tower(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match=r"siglip\.safetensors is missing.*--only siglip"):
        pretrain_tiny(only="aesthetic-v2-5", output=tmp_path)
