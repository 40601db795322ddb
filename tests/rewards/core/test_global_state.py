"""Global settings and seeds that a user's judge changes."""

import random
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rewards import RewardError, load_reward
from tests.rewards.tiny_clip import frames

CALLABLE = """
import torch
from rewards import FrameReward, VideoReward
class _Part: pass
class Mine:
    def __init__(self, power=1.0): self.power = power
    def __call__(self, frames, prompts): return {returned}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "judge.py"
    path.write_text(text, encoding="utf-8")
    return path


SETS = """
torch.set_default_dtype(torch.float64)
torch.set_default_device("meta")
torch.set_grad_enabled(False)
torch.use_deterministic_algorithms(True)
"""

SEEDS = "random.seed(0)\nnumpy.random.seed(0)\ntorch.manual_seed(0)\n"


def settings() -> tuple[Any, ...]:
    return (
        torch.get_default_dtype(),
        torch.zeros(1).device.type,
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
    )


@pytest.mark.parametrize("place", ["file", "init", "call"])
def test_what_a_judge_sets_for_everybody_is_put_back(tmp_path: Path, place: str) -> None:
    def lines(where: str, depth: int) -> str:
        text = SETS if where == place else "pass\n"
        return "".join(" " * depth + line + "\n" for line in text.split("\n") if line)

    path = write(
        tmp_path,
        f"import torch\n{lines('file', 0)}class Own:\n    def __init__(self):\n{lines('init', 8)}"
        f"    def __call__(self, frames, prompts):\n        mean = frames.mean((1, 2, 3, 4))\n"
        f"{lines('call', 8)}        return mean\n",
    )
    before = settings()
    x = frames(2, 2).requires_grad_()
    judge = load_reward("python", path)
    assert settings() == before
    assert judge(x, ["a", "b"]).requires_grad
    assert settings() == before


@pytest.mark.parametrize("ending", ["", "x = 1 / 0\n"])
def test_a_seed_in_a_judges_file_is_no_seed_of_the_run(tmp_path: Path, ending: str) -> None:
    text = CALLABLE.format(returned="frames.mean(dim=(1, 2, 3, 4))") + ending
    path = write(tmp_path, f"import random, numpy, torch\n{SEEDS}{text}")
    random.seed(5)
    np.random.seed(5)  # the global state is the point
    torch.manual_seed(5)
    expected = random.random(), np.random.random(), float(torch.rand(()))
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    with pytest.raises(RewardError) if ending else nullcontext():
        load_reward("python", path)
    assert (random.random(), np.random.random(), float(torch.rand(()))) == expected
