"""Any open_clip architecture as a judge: its classes, its preprocessing, its tokenizer."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from rewards import RewardError, load_reward
from rewards.clip_towers.open_clip_models import (
    CONFIG_FILE,
    build_model,
    image_size,
    named_preprocess,
    open_clip_config,
    preprocess_of,
)
from rewards.clip_towers.tokenizers import import_open_clip
from rewards.core.preprocess import Preprocess
from tests.rewards.tiny_clip import ARCHITECTURE, flat_file, frames, random_state

CPU = torch.device("cpu")
TEXT = ARCHITECTURE["text_cfg"]
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "ViT": ARCHITECTURE,
    "quickgelu": {**ARCHITECTURE, "quick_gelu": True},
    "residual": {
        **ARCHITECTURE,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64},
    },
    "CoCa": {
        "embed_dim": 24,
        "vision_cfg": {**ARCHITECTURE["vision_cfg"], "attentional_pool": True,
                       "attn_pooler_heads": 2, "output_tokens": True},
        "text_cfg": {**TEXT, "context_length": 76, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {"context_length": 76, "vocab_size": 49408, "width": 16, "heads": 2,
                           "layers": 1, "attn_pooler_heads": 2},
        "custom_text": True,
    },
    "timm": {
        "embed_dim": 64,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {"image_size": 32, "timm_model_name": "test_vit", "timm_pool": "map",
                       "timm_model_pretrained": False, "timm_proj": "none"},
        "text_cfg": {**TEXT, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
    },
}  # fmt: skip


def state_of(architecture: dict[str, Any]) -> dict[str, Tensor]:
    return {k: v.clone().contiguous() for k, v in random_state(architecture).items()}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_class_gives_what_open_clip_gives(name: str, tmp_path: Path) -> None:
    """The same file in open_clip's own model: value and pixel gradient."""
    architecture = ARCHITECTURES[name]
    state = state_of(architecture)
    path = flat_file(tmp_path, state)
    judge: Any = load_reward("clip", path, architecture=architecture)
    model = build_model(architecture, CPU).eval()
    model.load_state_dict(state)
    prompts = ["a red circle moves left", "a blue star"]
    ours = frames(2, 2).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    score = judge(ours, prompts)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    images = F.normalize(model.encode_image(((theirs - mean) / std).flatten(0, 1)), dim=-1)
    texts = F.normalize(model.encode_text(judge.tower.tokenizer(prompts)), dim=-1)
    expected = (images.unflatten(0, (2, 2)) * texts[:, None]).sum(dim=-1).mean(dim=1)
    torch.testing.assert_close(score, expected, rtol=0, atol=2e-6)
    assert float(expected.detach().diff().abs()) > 1e-4
    (a,) = torch.autograd.grad(score.sum(), ours)
    (b,) = torch.autograd.grad(expected.sum(), theirs)
    assert float((a - b).norm() / b.norm()) < 1e-5


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_class_runs_in_bf16_with_fp32_features(name: str, tmp_path: Path) -> None:
    path = flat_file(tmp_path, state_of(ARCHITECTURES[name]))
    options: dict[str, Any] = {"architecture": ARCHITECTURES[name]}
    half: Any = load_reward("clip", path, dtype=torch.bfloat16, **options)
    full: Any = load_reward("clip", path, **options)
    x, prompts = frames(1, 2), ["a red circle"]
    features = half.image_features(x[0])
    assert features.dtype == torch.float32
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(2), rtol=0, atol=1e-6)
    assert float((half(x, prompts) - full(x, prompts)).abs()) < 0.03


def test_quick_gelu_is_another_function_of_the_same_weights(tmp_path: Path) -> None:
    path = flat_file(tmp_path, random_state(ARCHITECTURE))
    scores = [
        load_reward("clip", path, architecture=ARCHITECTURES[name])(frames(1, 2), ["a cat"])
        for name in ("ViT", "quickgelu")
    ]
    assert float((scores[0] - scores[1]).abs()) > 3e-4  # of a score of 0.04


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ViT-B-32", Preprocess("crop", 224, quantised=True)),
        (
            "ViT-B-16-SigLIP-384",
            Preprocess("squash", 384, (0.5,) * 3, (0.5,) * 3, quantised=True),
        ),
        (
            "PE-Core-L-14-336",
            Preprocess("squash", 336, (0.5,) * 3, (0.5,) * 3, quantised=True, kernel="bilinear"),
        ),
        (
            "MobileCLIP-S1",
            Preprocess("crop", 256, (0.0,) * 3, (1.0,) * 3, quantised=True, kernel="bilinear"),
        ),
    ],
)
def test_a_models_own_preprocessing_is_used(name: str, expected: Preprocess) -> None:
    assert named_preprocess(name, image_size(open_clip_config(name))) == expected


def test_a_name_with_several_preprocessings_is_told() -> None:
    with pytest.warns(UserWarning, match="ViT-H-14 is published with several.*dfn5b"):
        spec = named_preprocess("ViT-H-14", 224)
    assert spec == Preprocess("crop", 224, quantised=True)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (51, 97), (97, 90), (33, 40)])
@pytest.mark.parametrize("resize_mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_equal_open_clips_transform(
    resize_mode: str, interpolation: str, height: int, width: int
) -> None:
    import_open_clip()
    from open_clip.transform import image_transform

    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    config = {"mean": 0.5, "std": [0.5] * 3, "resize_mode": resize_mode}
    reference = image_transform(
        32, is_train=False, mean=(0.5,) * 3, std=(0.5,) * 3,
        resize_mode=resize_mode, interpolation=interpolation,
    )  # fmt: skip
    spec = preprocess_of({**config, "interpolation": interpolation}, 32, "x")
    ours = spec(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)[0]
    difference = (ours - reference(Image.fromarray(image))).abs() * 255 / 2
    assert float(difference.mean()) < 0.04  # levels: one pixel in 25 falls on the other side of .5
    assert float(difference.max()) < 2.1


def test_the_configuration_beside_a_file_says_all(tmp_path: Path) -> None:
    """As a model's folder from the hub: architecture, preprocessing and tokenizer lie beside it."""
    import_open_clip()
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {"<pad>": 0, "</s>": 1, "a": 2, "red": 3, "circle": 4, "<unk>": 5}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    words.save(str(tmp_path / "tokenizer.json"))
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))

    text = {**ARCHITECTURES["timm"]["text_cfg"], "vocab_size": 6, "context_length": 8}
    own = {"hf_tokenizer_name": "nobody/nothing", "tokenizer_kwargs": {"clean": "canonicalize"}}
    architecture = {**ARCHITECTURES["timm"], "text_cfg": {**text, **own}}
    state = state_of({**architecture, "text_cfg": text})
    path = flat_file(tmp_path, state)
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
    said = {"model_cfg": architecture, "preprocess_cfg": preprocess}
    (tmp_path / CONFIG_FILE).write_text(json.dumps(said))

    judge: Any = load_reward("clip", path)
    assert judge.tower.preprocess == Preprocess(
        "squash", 32, (0.5,) * 3, (0.5,) * 3, quantised=True
    )
    assert judge.tower.tokenizer(["A red, circle!"]).tolist() == [[2, 3, 4, 1, 0, 0, 0, 0]]
    assert judge.tower.tokenizer.encode("a red circle") == [2, 3, 4]
    assert judge(frames(1, 2), ["a red circle"]).shape == (1,)
    with pytest.raises(RewardError, match="Remove architecture from the recipe"):
        load_reward("clip", path, architecture="ViT-B-32")
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(RewardError, match=r"its own tokenizer, .*hf download nobody/nothing"):
        load_reward("clip", path)
    (tmp_path / CONFIG_FILE).write_text("{}")
    with pytest.raises(RewardError, match=r"has no model_cfg and preprocess_cfg \(KeyError"):
        load_reward("clip", path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"text_cfg": {"hf_model_name": "roberta-base"}}, "its text tower from the hub (roberta-"),
        (
            {"vision_cfg": {"image_size": [32, 64]}},
            "has image_size [32, 64]; judges support squares only",
        ),
        ({"wings": 2}, "open_clip cannot build this architecture"),
        ({"vision_cfg": {"timm_model_name": "nothing_at_all"}}, "cannot build this architecture"),
        (
            {"vision_cfg": {"timm_model_name": "hf-hub:nobody/nothing"}},
            "takes its image tower from elsewhere (hf-hub:nobody/nothing)",
        ),
    ],
)
def test_what_cannot_be_loaded_is_told(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = flat_file(tmp_path, random_state(ARCHITECTURE))
    with pytest.raises(RewardError, match=re.escape(said)):
        load_reward("clip", path, architecture={**ARCHITECTURE, **change})


def test_a_preprocessing_without_a_counterpart_is_told() -> None:
    with pytest.raises(RewardError, match=r"needs its images prepared by.*'fill_color': 3"):
        preprocess_of({"fill_color": 3}, 32, "x")
    with pytest.raises(RewardError, match=r"interpolation bicubic or bilinear"):
        preprocess_of({"interpolation": "random"}, 32, "x")


def test_hps_keeps_its_own_preprocessing_whatever_the_model(tmp_path: Path) -> None:
    path = tmp_path / "siglip.safetensors"
    save_file(state_of(ARCHITECTURES["ViT"]), path)
    judge: Any = load_reward("hps", path, architecture=ARCHITECTURE)
    assert judge.tower.preprocess == Preprocess("letterbox", 32, clamped=False)


def test_a_tower_of_timm_is_filled_from_the_file_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    asked: list[bool] = []
    real = timm.create_model

    def create(name: str, pretrained: bool = False, **options: Any) -> Any:
        asked.append(pretrained)
        return real(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", create)
    plain = ARCHITECTURES["timm"]
    wanted = {**plain, "vision_cfg": {**plain["vision_cfg"], "timm_model_pretrained": True}}
    build_model(wanted, CPU)
    assert asked == [False]
