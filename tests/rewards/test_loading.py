"""From a kind and a file to a judge."""

from pathlib import Path

import pytest
import torch

from rewards import RewardError, load_reward
from tests.rewards.tiny_clip import ARCHITECTURE, flat_file, frames, random_state


def test_load_reward_refuses_unknown_kinds_and_misplaced_options(tmp_path: Path) -> None:
    with pytest.raises(
        RewardError, match="unknown judge kind 'hpsv7'; allowed: hps, clip, aesthetic"
    ):
        load_reward("hpsv7", "x")
    path = flat_file(tmp_path, random_state(ARCHITECTURE))
    with pytest.raises(
        RewardError, match="kind clip has no option tower; allowed: architecture, relative"
    ):
        load_reward("clip", path, architecture=ARCHITECTURE, tower="x")
    with pytest.raises(RewardError, match="kind clip needs a file; give its checkpoint"):
        load_reward("clip")


@pytest.mark.parametrize("kind", ["clip", "hps"])
def test_loaded_judge_is_frozen_chunked_and_named(tmp_path: Path, kind: str) -> None:
    path = flat_file(tmp_path, random_state(ARCHITECTURE))
    judge = load_reward(kind, path, architecture=ARCHITECTURE, chunk=2, name="held out")
    whole = load_reward(kind, path.name, folder=tmp_path, architecture=ARCHITECTURE)
    assert (judge.name, whole.name, judge.chunk) == ("held out", kind, 2)
    assert not any(p.requires_grad for p in judge.tower.model.parameters())
    assert not judge.tower.model.training
    x = frames(2, 3).requires_grad_()
    prompts = ["a cat", "a dog"]
    (chunked,) = torch.autograd.grad(judge(x, prompts).sum(), x)
    (one,) = torch.autograd.grad(whole(x, prompts).sum(), x)
    assert float(one.norm()) > 0
    assert float((chunked - one).norm() / one.norm()) < 1e-5
    torch.testing.assert_close(judge(x, prompts), whole(x, prompts), rtol=1e-5, atol=1e-6)
