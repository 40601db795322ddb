"""The kinds image_reward and mps in a recipe, from its keys to a judge that trains."""

from pathlib import Path
from typing import Any

import pytest
import torch

from reward_tuning.schema.judge_kinds import KINDS
from rewards import load_reward
from rewards.kinds.mps import CONDITIONS
from tests.rewards.tiny_clip import frames
from tests.rewards.tiny_cross import (
    golden_architecture,
    image_reward_file,
    mps_file,
    vocabulary_file,
)


def section(**keys: Any) -> Any:
    return KINDS[keys["kind"]].model_validate(keys)


def test_image_reward_by_its_keys(tmp_path: Path) -> None:
    image_reward_file(tmp_path)
    vocabulary_file(tmp_path)
    said = section(kind="image_reward", checkpoint="image_reward_layout.pt", tokenizer="vocab.txt")
    assert said.files == {"checkpoint": "image_reward_layout.pt", "tokenizer": "vocab.txt"}
    options = {**said.loader_options(), "dtype": torch.float32}
    judge = load_reward(said.kind, **options, folder=tmp_path, architecture=golden_architecture())
    assert judge.name == "image_reward"
    assert judge(frames(1, 2), ["red"]).shape == (1,)


def test_mps_by_its_keys(tmp_path: Path) -> None:
    mps_file(tmp_path)
    said = section(
        kind="mps",
        checkpoint="mps_layout.safetensors",
        condition="detail",
        gradient_checkpointing=True,
    )
    options = {**said.loader_options(), "dtype": torch.bfloat16}
    assert (options["condition"], options["threshold"]) == ("detail", 0.01)
    judge: Any = load_reward(said.kind, **options, folder=tmp_path)
    assert judge.about == CONDITIONS["detail"]
    x = frames(1, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(judge(x, ["red"]).sum(), x)
    assert float(gradient.abs().max()) > 0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kind": "mps", "checkpoint": "a", "threshold": 1.0}, "less than 1"),
        ({"kind": "mps", "checkpoint": "a", "tokenizer": "b"}, "tokenizer"),
        ({"kind": "image_reward", "checkpoint": "a", "condition": "detail"}, "condition"),
    ],
)
def test_keys_of_another_kind_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        section(**keys)
