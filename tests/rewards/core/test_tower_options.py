"""`TowerOptions` reaches the networks of a judge through `load_reward`."""

import json
from pathlib import Path

import torch

from rewards import load_reward
from rewards.core.shared_towers import TowerPool
from rewards.core.tower_options import TowerOptions
from rewards.kinds.clip import ClipReward, load_clip
from tests.rewards.tiny_clip import ARCHITECTURE, flat_file, random_state


def test_every_field_reaches_the_tower(tmp_path: Path) -> None:
    path = flat_file(tmp_path, random_state(ARCHITECTURE), architecture=json.dumps(ARCHITECTURE))
    options = TowerOptions(
        dtype=torch.bfloat16, folder=tmp_path, gradient_checkpointing=True, pool=TowerPool()
    )
    judge = load_clip(path.name, options)
    assert judge.tower.dtype == torch.bfloat16
    assert judge.device == torch.device("cpu")
    assert judge.tower.model.visual.transformer.grad_checkpointing
    other = load_reward(
        "clip",
        path.name,
        folder=tmp_path,
        dtype=torch.bfloat16,
        gradient_checkpointing=True,
        pool=options.pool,
    )
    assert isinstance(other, ClipReward)
    assert other.tower.model is judge.tower.model  # equal weights and options, one pool


def test_the_defaults_are_those_of_load_reward(tmp_path: Path) -> None:
    path = flat_file(tmp_path, random_state(ARCHITECTURE), architecture=json.dumps(ARCHITECTURE))
    judge, other = load_clip(path, TowerOptions()), load_reward("clip", path)
    assert isinstance(other, ClipReward)
    assert judge.tower.dtype == other.tower.dtype == torch.float32
    assert not judge.tower.model.visual.transformer.grad_checkpointing
    assert judge.tower.model is not other.tower.model  # no pool
