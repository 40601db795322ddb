"""Judges of noisy latents, on a model of a few thousand weights."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rewards import LatentReward, RewardError, load_latent_reward, load_reward
from rewards.kinds.latent import LatentClip
from rewards.networks.latent_tower import build_latent_model
from tests.rewards import small_latent
from tests.rewards.small_latent import ARCHITECTURE, PROMPTS, latent_file, latents, random_state

judge = small_latent.judge


def test_the_score_is_the_cosine_of_the_two_towers(judge: LatentClip) -> None:
    assert isinstance(judge, LatentReward)
    assert judge.name == "latent"
    model = build_latent_model(ARCHITECTURE)
    model.load_state_dict(random_state())
    x, sigma = latents(), torch.tensor([0.1, 0.7])
    tokens = judge.text.tokenizer(PROMPTS)
    expected = F.cosine_similarity(model.encode_latents(x, sigma), model.encode_text(tokens))
    score = judge(x, sigma, PROMPTS)
    assert score.shape == (2,)
    assert score.dtype == torch.float32
    torch.testing.assert_close(score, expected, rtol=1e-5, atol=1e-6)
    assert float((score[0] - score[1]).abs()) > 1e-3


def test_nothing_of_it_is_trainable(judge: LatentClip) -> None:
    assert not judge.model.training
    assert not any(p.requires_grad for p in judge.model.parameters())


def test_every_latent_has_a_finite_gradient(judge: LatentClip) -> None:
    x = latents().requires_grad_()
    (gradient,) = torch.autograd.grad(judge(x, 0.5, PROMPTS).sum(), x)
    assert bool(torch.isfinite(gradient).all())
    assert float(gradient.abs().min()) > 0


def test_gradcheck_in_double(tmp_path: Path) -> None:
    judge = load_latent_reward(latent_file(tmp_path, random_state()), dtype=torch.float64)
    x = latents().double().requires_grad_()
    sigma = torch.tensor([0.2, 0.9], dtype=torch.float64)
    assert judge(x, sigma, PROMPTS).dtype == torch.float64
    assert torch.autograd.gradcheck(lambda v: judge(v, sigma, PROMPTS), x, fast_mode=True)


def test_a_clip_scores_the_same_alone_and_in_a_batch(judge: LatentClip) -> None:
    x, sigma = latents(), torch.tensor([0.1, 0.7])
    together = judge(x, sigma, PROMPTS)
    for i in range(2):
        alone = judge(x[i : i + 1], float(sigma[i]), PROMPTS[i : i + 1])
        torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-5, atol=1e-6)


def test_one_sigma_counts_for_all(judge: LatentClip) -> None:
    x = latents()
    scores = [judge(x, s, PROMPTS) for s in (0.3, torch.tensor(0.3), torch.full((2,), 0.3))]
    assert torch.equal(scores[0], scores[1])
    assert torch.equal(scores[0], scores[2])
    assert float((judge(x, 0.9, PROMPTS) - scores[0]).abs().min()) > 1e-4


def test_half_precision_weights_give_nearly_the_same(tmp_path: Path, judge: LatentClip) -> None:
    low = load_latent_reward(latent_file(tmp_path, random_state()), dtype=torch.bfloat16, name="m")
    assert low.name == "m"
    score = low(latents(), 0.5, PROMPTS)
    assert score.dtype == torch.float32
    torch.testing.assert_close(score, judge(latents(), 0.5, PROMPTS), rtol=0, atol=0.03)


@pytest.mark.parametrize(
    ("x", "sigma", "prompts", "message"),
    [
        (latents()[0], 0.5, PROMPTS, r"\(4, 3, 4, 4\); expected \(batch, 4, time"),
        (latents()[:, :3], 0.5, PROMPTS, r"\(2, 3, 3, 4, 4\).*trained on this generator's VAE"),
        (latents(h=5), 0.5, PROMPTS, r"5 x 4; height and width must be multiples of 2.*16 pixels"),
        (latents().half(), 0.5, PROMPTS, r"float16; expected float32"),
        (latents() * torch.inf, 0.5, PROMPTS, "contain NaN or infinity"),
        (latents(), 0.5, PROMPTS[:1], "1 prompts for 2 clips"),
        (latents(), 0.5, ["a", " "], "non-empty"),
        (latents(), torch.zeros(3), PROMPTS, r"sigma has shape \(3,\) for 2 clips"),
        (latents(), 500.0, PROMPTS, r"sigma is 500\.0; allowed: 0 to 1"),
        (latents(), float("nan"), PROMPTS, "sigma is nan"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    judge: LatentClip, x: Tensor, sigma: Tensor | float, prompts: list[str], message: str
) -> None:
    with pytest.raises(RewardError, match=message):
        judge(x, sigma, prompts)


def test_foreign_keys_are_refused(tmp_path: Path) -> None:
    state = random_state()
    del state["latent.norm.bias"]
    state["visual.proj"] = torch.ones(1)
    with pytest.raises(RewardError, match=r"missing: latent\.norm\.bias.*unknown: visual\.proj"):
        load_latent_reward(latent_file(tmp_path, state))
    state = random_state() | {"logit_scale": torch.ones(2)}
    with pytest.raises(RewardError, match=r"logit_scale is \(2,\), not \(\).*Check that the file"):
        load_latent_reward(latent_file(tmp_path, state))


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"has kind 'clip'.*rewards\.load_reward"):
        load_latent_reward("tiny/clip.safetensors")
    with pytest.raises(RewardError, match="states no kind"):
        load_latent_reward(latent_file(tmp_path, random_state(), kind=""))
    path = latent_file(tmp_path, random_state())
    for kind in ("clip", "hps"):
        with pytest.raises(RewardError, match="kind 'latent' and no tower for frames"):
            load_reward(kind, path)
    with pytest.raises(RewardError, match=r"kind 'latent' scores noisy.*load_latent_reward"):
        load_reward("latent", path)


@pytest.mark.parametrize("entry", ["architecture", "tokenizer"])
def test_a_file_that_does_not_say_what_it_is_is_refused(tmp_path: Path, entry: str) -> None:
    path = latent_file(tmp_path, random_state(), **{entry: ""})
    with pytest.raises(RewardError, match=f"does not state its {entry}; make it again with"):
        load_latent_reward(path)


def test_missing_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"not a shipped name \(.*tiny/hps\.safetensors"):
        load_latent_reward("tiny/latent.safetensors", folder=tmp_path)
    path = latent_file(tmp_path, random_state())
    (tmp_path / "bpe_small.txt.gz").unlink()
    with pytest.raises(RewardError, match=r"bpe_small\.txt\.gz is missing; put it next to"):
        load_latent_reward(path)


def test_a_cut_off_file_is_told(tmp_path: Path) -> None:
    path = latent_file(tmp_path, random_state())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RewardError, match="truncated"):
        load_latent_reward(path)


def test_paths_are_relative_to_the_folder(tmp_path: Path, judge: LatentClip) -> None:
    path = latent_file(tmp_path, random_state())
    again = load_latent_reward(path.name, folder=tmp_path)
    assert torch.equal(again(latents(), 0.5, PROMPTS), judge(latents(), 0.5, PROMPTS))


def test_loading_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    path = latent_file(tmp_path, random_state())
    before = torch.get_rng_state()
    load_latent_reward(path)
    assert torch.equal(torch.get_rng_state(), before)
