"""PickScore against transformers itself: model, image processor and tokenizer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from rewards import RewardError, load_reward
from rewards.clip_towers.hf_keys import POSITION_IDS
from rewards.clip_towers.tokenizers import build_tokenizer, build_transformers_tokenizer
from rewards.core.torchvision_import import ensure_torchvision_importable
from rewards.kinds.pickscore import pickscore_preprocess
from tests.rewards.tiny_clip import ARCHITECTURE, frames
from tests.rewards.tiny_hf import clip_model, published_tokenizer, saved

PROMPTS = ["a red circle moves left", "Ein Bär, “quoted” &amp; ｗｉｄｅ", "一只猫"]
SCALE = 2.6592


@pytest.fixture(scope="module")
def model() -> Any:
    return clip_model()


@pytest.fixture(scope="module")
def path(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    places = {name: torch.arange(77)[None] for name in POSITION_IDS}  # as older files carry them
    return saved(model, tmp_path_factory.mktemp("pickscore") / "model.safetensors", **places)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return published_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def reference(model: Any, tokenizer: Any, pixels: Tensor, prompts: list[str]) -> Tensor:
    """The formula of the authors' script, every image with its own prompt: ``(n,)``."""
    words = tokenizer(prompts, padding=True, truncation=True, max_length=77, return_tensors="pt")
    texts = model.get_text_features(**words).pooler_output
    images = model.get_image_features(pixel_values=pixels).pooler_output
    cosines = (F.normalize(images, dim=-1) * F.normalize(texts, dim=-1)).sum(dim=-1)
    return model.logit_scale.exp() * cosines


def processor() -> Any:
    ensure_torchvision_importable()
    from transformers import CLIPImageProcessorPil

    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    return CLIPImageProcessorPil(**sizes)


def as_images(x: Tensor) -> list[Image.Image]:
    bytes_ = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(image) for image in bytes_]


def test_score_and_pixel_gradient_equal_transformers(
    model: Any, tokenizer: Any, path: Path
) -> None:
    judge = load_reward("pickscore", path, architecture=ARCHITECTURE, chunk=4)
    ours = frames(3, 3).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    score = judge(ours, PROMPTS)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    each = [prompt for prompt in PROMPTS for _ in range(3)]
    rows = reference(model, tokenizer, ((theirs - mean) / std).flatten(0, 1), each)
    expected = rows.reshape(3, 3).mean(dim=1)
    scale = float(np.exp(SCALE))
    torch.testing.assert_close(score, expected, rtol=0, atol=1e-6 * scale)
    assert float(expected.detach().diff().abs().min()) > 0.05  # else the rows could be mixed
    weights = torch.tensor([1.0, -2.0, 0.5])
    (a,) = torch.autograd.grad((score * weights).sum(), ours)
    (b,) = torch.autograd.grad((expected * weights).sum(), theirs)
    assert float((a - b).abs().max()) < 1e-6 * float(b.abs().max()) * 5
    assert float((a - b).norm() / b.norm()) < 2e-6  # 1.1e-6 on a processor with AMX


@pytest.mark.parametrize(("height", "width"), [(32, 32), (32, 35), (35, 32), (32, 61)])
def test_score_equals_the_whole_pipeline_from_pictures(
    model: Any, tokenizer: Any, path: Path, height: int, width: int
) -> None:
    """Spares of 3 and 29 pixels, where a floored and a rounded crop differ."""
    judge = load_reward("pickscore", path, architecture=ARCHITECTURE)
    shown = (frames(2, 1, height, width) * 255).round() / 255
    pixels = processor()(as_images(shown[:, 0]), return_tensors="pt")["pixel_values"]
    expected = reference(model, tokenizer, pixels, PROMPTS[:2])
    torch.testing.assert_close(judge(shown, PROMPTS[:2]), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("height", "width"), [(67, 131), (131, 67), (51, 97), (20, 24)])
def test_resized_pixels_equal_the_image_processor(height: int, width: int) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = processor()(Image.fromarray(image), return_tensors="pt")["pixel_values"]
    ours = pickscore_preprocess(32)(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)
    difference = (ours - expected).abs() * 255 * 0.26
    assert float(difference.mean()) < 0.03
    assert float(difference.max()) < 2.1


def test_tokens_equal_the_published_tokenizer(tokenizer: Any) -> None:
    ours = build_transformers_tokenizer(ARCHITECTURE, None)
    texts = [*PROMPTS, "a   b\n c", "it's 5 o'clock!!", "<|endoftext|> x", "word " * 100]
    expected = tokenizer(
        texts, padding="max_length", truncation=True, max_length=77, return_tensors="pt"
    ).input_ids
    found = ours(texts)
    assert torch.equal(found, expected)
    assert found.shape == (len(texts), 77)
    assert int(found[-1, 76]) == 49407  # cut, and ended


def test_known_token_numbers() -> None:
    """As OpenAI's own tokenizer numbers them; the padding is the end token, not 0."""
    row = build_transformers_tokenizer(ARCHITECTURE, None)(["a photo of a cat"])[0].tolist()
    assert row[:7] == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert set(row[7:]) == {49407}


@pytest.mark.parametrize("text", ["“quoted”", "a &amp; b", "ｗｉｄｅ", "ﬁ", "<|endoftext|>"])
def test_open_clips_tokenizer_would_read_other_words(text: str) -> None:
    theirs = build_transformers_tokenizer(ARCHITECTURE, None)([text])[0]
    mended = build_tokenizer(ARCHITECTURE, None)([text])[0]
    ends = [int((row == 49407).nonzero()[0]) for row in (theirs, mended)]
    assert theirs[: ends[0]].tolist() != mended[: ends[1]].tolist()


def test_every_kind_on_a_clip_takes_the_layout(model: Any, path: Path) -> None:
    """The cosine of ``clip`` is PickScore's without its scale, on the same words."""
    prompts = ["a red circle", "a blue star"]
    x = frames(2, 2)
    scaled = load_reward("pickscore", path, architecture=ARCHITECTURE)(x, prompts)
    cosine = load_reward("clip", path, architecture=ARCHITECTURE)(x, prompts)
    torch.testing.assert_close(scaled, float(np.exp(SCALE)) * cosine, rtol=1e-5, atol=1e-5)


def test_a_missing_pickscore_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(RewardError, match=r"3\.94 GB.*hf download yuvalkirstain/PickScore_v1 mod"):
        load_reward("pickscore", "pickscore")
