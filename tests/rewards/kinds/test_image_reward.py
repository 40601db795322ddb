"""ImageReward against the published network: golden tensors made with its own code."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rewards import RewardError
from rewards.core.tower_options import TowerOptions
from rewards.kinds.image_reward import ImageRewardReward, load_image_reward
from tests.goldens import load_golden
from tests.rewards.options import taken
from tests.rewards.tiny_clip import frames
from tests.rewards.tiny_cross import (
    MEAN,
    STD,
    golden_architecture,
    image_reward_file,
    vocabulary_file,
)

PROMPTS = ["a red circle moves left", "圆形, Café", "red"]


def load(folder: Path, state: dict[str, Tensor] | None = None, **options: Any) -> ImageRewardReward:
    settings = {"architecture": golden_architecture(), **options}
    towers = taken(settings)
    file, words = image_reward_file(folder, state), vocabulary_file(folder)
    return load_image_reward(file, towers, tokenizer=words, **settings)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_score_and_pixel_gradient_equal_the_golden(tmp_path: Path, checkpointing: bool) -> None:
    golden = load_golden("image_reward").tensors
    judge = load(tmp_path, gradient_checkpointing=checkpointing)
    tokens = torch.stack([golden["in.input_ids"], golden["in.attention_mask"]], dim=1)
    images = golden["in.pixels"] * STD + MEAN
    score = judge.score_images(images, tokens)
    torch.testing.assert_close(score, golden["out.score"][:, 0], rtol=0, atol=1e-6)

    pixels = golden["in.pixels"].clone().requires_grad_()
    seen = judge.scorer.image_tokens(pixels)
    torch.testing.assert_close(seen, golden["out.image_tokens"], rtol=0, atol=1e-6)
    state = judge.scorer.first_state(*tokens.unbind(dim=1), seen)
    torch.testing.assert_close(state, golden["out.text_cls"], rtol=0, atol=1e-6)
    (gradient,) = torch.autograd.grad((2 * state[:, 0] + state[:, 1]).sum(), pixels)
    expected = golden["out.pixel_gradient_of_2x0_plus_x1"]
    assert float((gradient - expected).norm() / expected.norm()) < 1e-6


def test_gradient_goes_through_the_preprocessing(tmp_path: Path) -> None:
    judge = load(tmp_path)
    ours = frames(2, 1, 32, 32).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    score = judge(ours, PROMPTS[:2])
    ids, mask = judge.tokenizer(PROMPTS[:2]).unbind(dim=1)
    number = judge.scorer((theirs[:, 0] - MEAN) / STD, ids, mask)
    # The constants of the published code, written down once more.
    expected = (number - 0.16717362830052426) / 1.0333394966054072
    torch.testing.assert_close(score, expected, rtol=0, atol=1e-6)
    a, b = (torch.autograd.grad(s.sum(), x)[0] for s, x in ((score, ours), (expected, theirs)))
    assert float((a - b).norm() / b.norm()) < 1e-6


def test_images_are_cut_as_torchvision_does(tmp_path: Path) -> None:
    from torchvision.transforms import v2

    judge = load(tmp_path)
    images = torch.randint(0, 256, (1, 3, 47, 81), generator=torch.Generator().manual_seed(0))
    images = images.to(torch.uint8)
    published = v2.Compose(
        [v2.ToPILImage(), v2.Resize(32, v2.InterpolationMode.BICUBIC), v2.CenterCrop(32)]
    )
    cut = v2.functional.pil_to_tensor(published(images[0]))[None] / 255
    ours = judge.preprocess(images / 255) * STD + MEAN
    assert float((ours - cut).abs().mean()) < 0.2 / 255
    assert float((ours - cut).abs().max()) < 2.1 / 255


def test_padding_does_not_count_and_prompts_are_cut_at_35(tmp_path: Path) -> None:
    judge = load(tmp_path)
    tokens = judge.condition(["red circle"])
    assert tokens.shape == (1, 2, 35)
    assert tokens[0, 1].tolist() == [1] * 4 + [0] * 31
    x = frames(1, 1)[:, 0]
    torch.testing.assert_close(
        judge.score_images(x, tokens), judge.score_images(x, tokens[..., :4]), rtol=0, atol=1e-6
    )
    long = "red " * 40
    assert judge.context_length == 35
    assert judge.truncated(["red " * 33, long, "red"]) == [1]
    cut = judge.condition([long])
    assert cut[0, 0, -1] == 3  # [SEP] stays
    assert torch.equal(judge.condition([long + "circle"]), cut)


def test_prompts_in_a_batch_do_not_mix(tmp_path: Path) -> None:
    judge = load(tmp_path)
    x = frames(3, 2)
    together = judge(x, PROMPTS)
    alone = torch.cat([judge(x[i : i + 1], [PROMPTS[i]]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    other = judge(x, PROMPTS[1:] + PROMPTS[:1])
    assert float((other - together).abs().min()) > 1e-6


@pytest.mark.parametrize("checkpointing", [False, True])
def test_chunks_change_no_gradient(tmp_path: Path, checkpointing: bool) -> None:
    whole, parts = load(tmp_path), load(tmp_path, gradient_checkpointing=checkpointing)
    parts.chunk = 2
    gradients = []
    for judge in (whole, parts):
        x = frames(2, 3).requires_grad_()
        judge(x, PROMPTS[:2]).square().sum().backward()
        assert x.grad is not None
        gradients.append(x.grad)
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) < 1e-6


def test_towers_in_bf16_have_a_head_in_fp32(tmp_path: Path) -> None:
    judge = load(tmp_path, dtype=torch.bfloat16)
    dtypes = {p.dtype for p in judge.scorer.vision.parameters()}
    assert dtypes == {torch.bfloat16}
    assert {p.dtype for p in judge.scorer.head.parameters()} == {torch.float32}
    x = frames(2, 1).requires_grad_()
    score = judge(x, PROMPTS[:2])
    assert score.dtype == torch.float32
    exact = load(tmp_path)(x, PROMPTS[:2])
    torch.testing.assert_close(score, exact, rtol=0, atol=0.02)
    assert not torch.equal(score, exact)
    (gradient,) = torch.autograd.grad(score.sum(), x)
    assert gradient.dtype == torch.float32


def test_gradcheck_in_double(tmp_path: Path) -> None:
    judge = load(tmp_path, dtype=torch.float64)
    x = frames(1, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: judge(v, ["a red circle"]), x, fast_mode=True)


def test_climbing_the_gradient_raises_the_score(tmp_path: Path) -> None:
    judge = load(tmp_path)
    x = frames(1, 1)
    first = float(judge(x, PROMPTS[:1]))
    for _ in range(20):
        x = x.requires_grad_()
        (gradient,) = torch.autograd.grad(judge(x, PROMPTS[:1]).sum(), x)
        x = (x + 0.02 * gradient.sign()).detach().clamp(0, 1)
    assert float(judge(x, PROMPTS[:1])) > first + 1e-3


def test_a_file_without_architecture_is_taken_for_the_published_one(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"has 120 tokens.*has 30524.*bert-base-uncased"):
        load(tmp_path, architecture=None)
    big = vocabulary_file(tmp_path, 30522)
    with pytest.raises(RewardError, match=r"width 1024: .*missing: .*another shape"):
        load_image_reward(image_reward_file(tmp_path), TowerOptions(), tokenizer=big)
    for wrong in ("ViT-L-14", {"vision": {"hidden_size": 3}}):
        with pytest.raises(RewardError, match=r"architecture.*[Rr]emove it"):
            load(tmp_path, architecture=wrong)


def test_a_missing_vocabulary_says_where_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    options: dict[str, Any] = {"architecture": golden_architecture()}
    options |= {"tower_options": TowerOptions(folder=tmp_path)}
    file = image_reward_file(tmp_path)
    with pytest.raises(RewardError, match=r"hf download google-bert/bert-base-uncased vocab\.txt"):
        load_image_reward(file, **options)
    with pytest.raises(RewardError, match=r"no_vocab\.txt"):
        load_image_reward(file, **options, tokenizer="no_vocab.txt")


def test_vocabulary_of_the_hub_is_found_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--google-bert--bert-base-uncased"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    vocabulary_file(folder / "snapshots" / "abc")
    options: dict[str, Any] = {"architecture": golden_architecture()}
    options |= {"tower_options": TowerOptions(folder=tmp_path)}
    with pytest.raises(RewardError, match=r"published vocab\.txt has 231,508"):
        load_image_reward(image_reward_file(tmp_path), **options)
