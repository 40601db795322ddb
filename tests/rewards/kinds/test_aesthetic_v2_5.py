"""The aesthetic predictor v2.5 against transformers' SigLIP and a plain sequential."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rewards import RewardError, load_reward
from rewards.core.torchvision_import import ensure_torchvision_importable
from rewards.kinds.aesthetic_v2_5 import build_head, siglip_preprocess
from tests.rewards import small_siglip
from tests.rewards.small_siglip import PUBLISHED_HEAD, load
from tests.rewards.tiny_clip import frames
from tests.rewards.tiny_hf import SIGLIP

model = small_siglip.model
folder = small_siglip.folder


def reference(model: Any, folder: Path, pixels: Tensor) -> Tensor:
    """``(n, 3, 32, 32)`` in [-1, 1] -> ``(n,)``, with transformers' tower."""
    state = torch.load(folder / "head.pth", weights_only=True)
    layers = []
    for index in PUBLISHED_HEAD:
        weight = state[f"scoring_head.{index}.weight"].float()
        layer = nn.Linear(*reversed(weight.shape))
        layer.load_state_dict({"weight": weight, "bias": state[f"scoring_head.{index}.bias"]})
        layers.append(layer)
    features = model.vision_model(pixel_values=pixels).pooler_output
    scores: Tensor = nn.Sequential(*layers)(F.normalize(features, dim=-1))[:, 0]
    return scores


def test_score_and_pixel_gradient_equal_transformers(model: Any, folder: Path) -> None:
    judge = load(folder, chunk=4)
    ours = frames(2, 3).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    score = judge(ours, ["x", "y"])
    rows = reference(model, folder, (theirs * 2 - 1).flatten(0, 1))
    expected = rows.reshape(2, 3).mean(dim=1)
    torch.testing.assert_close(score, expected, rtol=0, atol=1e-6)
    assert float(expected.detach().diff().abs().min()) > 1e-3
    (a,) = torch.autograd.grad(score.square().sum(), ours)
    (b,) = torch.autograd.grad(expected.square().sum(), theirs)
    assert float((a - b).norm() / b.norm()) < 2e-6


@pytest.mark.parametrize(("height", "width"), [(64, 64), (51, 97), (97, 90), (24, 40)])
def test_the_image_is_squashed_as_by_siglips_processor(height: int, width: int) -> None:
    ensure_torchvision_importable()
    from transformers import SiglipImageProcessorPil

    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    processor = SiglipImageProcessorPil(size={"height": 32, "width": 32}, resample=3)
    expected = processor(Image.fromarray(image), return_tensors="pt")["pixel_values"]
    ours = siglip_preprocess(32)(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)
    difference = (ours - expected).abs() * 255 / 2
    assert float(difference.mean()) < 0.03
    assert float(difference.max()) < 2.1


def test_head_has_the_published_layout() -> None:
    expected = {f"scoring_head.{i}.weight": shape for i, shape in PUBLISHED_HEAD.items()}
    expected |= {f"scoring_head.{i}.bias": shape[:1] for i, shape in PUBLISHED_HEAD.items()}
    head = build_head(1152)
    assert {k: tuple(v.shape) for k, v in head.state_dict().items()} == expected
    assert sum(p.numel() for p in head.parameters()) == 1_321_185


def test_wrong_keys_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    whole = load_file(folder / "siglip.safetensors")
    del whole["vision_model.head.probe"]
    whole["classifier.weight"] = torch.ones(2, 2)
    whole["vision_model.embeddings.position_embedding.weight"] = torch.ones(9, 24)
    save_file(whole, tmp_path / "wrong.safetensors")
    with pytest.raises(RewardError) as caught:
        load(folder, tower=tmp_path / "wrong.safetensors")
    for part in (
        "1 missing: vision_model.head.probe",
        "1 unknown: classifier.weight",
        "vision_model.embeddings.position_embedding.weight is (9, 24), not (16, 24)",
    ):
        assert part in str(caught.value)
    head = torch.load(folder / "head.pth", weights_only=True)
    head["layers.0.weight"] = head.pop("scoring_head.8.bias")
    torch.save(head, tmp_path / "head.pth")
    with pytest.raises(RewardError, match=r"missing: scoring_head\.8\.bias; 1 unknown: layers\.0"):
        load_reward(
            "aesthetic_v2_5",
            tmp_path / "head.pth",
            tower=folder / "siglip.safetensors",
            architecture=SIGLIP,
        )


def test_tower_and_sizes_must_come_from_somewhere(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"on which SigLIP its head was trained.*siglip-so400m"):
        load(folder, tower=None)
    with pytest.raises(RewardError, match="does not state which SigLIP it is"):
        load(folder, architecture=None)
    with pytest.raises(RewardError, match="unknown SigLIP 'ViT-H-14'; allowed: siglip-so400m"):
        load(folder, architecture="ViT-H-14")
    with pytest.raises(RewardError, match=r"cannot build this SigLIP.*wings"):
        load(folder, architecture={**SIGLIP, "wings": 2})
    said = "hidden_size 24 is not a multiple of num_attention_heads 5"
    with pytest.raises(RewardError, match=said):
        load(folder, architecture={**SIGLIP, "num_attention_heads": 5})
    says = {"architecture": json.dumps(SIGLIP)}
    save_file(load_file(folder / "siglip.safetensors"), tmp_path / "says.safetensors", says)
    named = load(folder, tower=tmp_path / "says.safetensors", architecture=None)
    x = frames(1, 2)
    assert torch.equal(named(x, ["x"]), load(folder)(x, ["x"]))


def test_a_bf16_tower_keeps_norms_and_head_in_fp32(folder: Path) -> None:
    half, full = load(folder, dtype=torch.bfloat16), load(folder)
    tower = half.tower.model
    assert tower.encoder.layers[0].mlp.fc1.weight.dtype == torch.bfloat16
    assert tower.post_layernorm.weight.dtype == torch.float32
    assert {p.dtype for p in half.head.parameters()} == {torch.float32}
    x = frames(1, 2)[0]
    features = half.image_features(x)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(2), rtol=0, atol=1e-6)
    assert float((features - full.image_features(x)).norm(dim=-1).max()) < 0.03


def test_gradcheck_in_double(folder: Path) -> None:
    judge = load(folder, dtype=torch.float64)
    x = frames(1, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: judge(v, ["x"]), x, fast_mode=True)


def test_the_published_head_is_not_fetched_but_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(RewardError, match=r"aesthetic_predictor_v2_5\.pth.*git clone"):
        load_reward("aesthetic_v2_5", "aesthetic-v2.5")
