"""Names of transformers' CLIP, there and back."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rewards import RewardError, load_reward
from rewards.clip_towers.hf_keys import POSITION_IDS, to_open_clip, to_transformers
from rewards.clip_towers.open_clip_models import build_model, open_clip_config
from rewards.core.torchvision_import import ensure_torchvision_importable
from tests.rewards.clip_towers.test_parity_transformers import to_transformers as written_out
from tests.rewards.tiny_clip import ARCHITECTURE, random_state
from tests.rewards.tiny_hf import clip_model, saved


@pytest.fixture(scope="module")
def model() -> Any:
    return clip_model()


@pytest.fixture(scope="module")
def path(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    places = {name: torch.arange(77)[None] for name in POSITION_IDS}  # as older files carry them
    return saved(model, tmp_path_factory.mktemp("pickscore") / "model.safetensors", **places)


def test_the_published_model_fits_vit_h_14_name_by_name() -> None:
    ensure_torchvision_importable()
    from transformers import CLIPConfig, CLIPModel

    # As the published config.json: laion's ViT-H-14.
    text = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
            "num_attention_heads": 16, "hidden_act": "gelu"}  # fmt: skip
    vision = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32,
              "num_attention_heads": 16, "patch_size": 14, "hidden_act": "gelu"}  # fmt: skip
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=1024)
    with torch.device("meta"):
        published = CLIPModel(config).state_dict()
    assert sum(tensor.numel() for tensor in published.values()) == 986_109_441
    assert len(published) == 910  # 686 of open_clip, and q, k, v apart in 56 blocks
    published |= {name: torch.empty(1, 77, device="meta") for name in POSITION_IDS}
    ours = build_model(open_clip_config("ViT-H-14"), torch.device("meta"))
    expected = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    converted = to_open_clip(published, expected, "ViT-H-14", Path("x"))
    ours.load_state_dict(converted, strict=True, assign=True)


def test_there_and_back() -> None:
    """Against the same map, written out a second time."""
    state = random_state(ARCHITECTURE)
    theirs = to_transformers(state)
    expected = written_out(state)
    assert theirs.keys() == expected.keys()
    assert all(torch.equal(theirs[name], expected[name]) for name in theirs)
    shapes = {name: tensor.shape for name, tensor in state.items()}
    back = to_open_clip(theirs, shapes, "x", Path("x"))
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_wrong_keys_are_refused_in_the_files_own_names(path: Path, tmp_path: Path) -> None:
    state = load_file(path)
    del state["vision_model.encoder.layers.1.self_attn.k_proj.bias"]
    state["vision_model.pre_layernorm.bias"] = state.pop("vision_model.pre_layrnorm.bias")
    state["visual_projection.weight"] = state["visual_projection.weight"].T.contiguous()
    save_file(state, tmp_path / "wrong.safetensors")
    with pytest.raises(RewardError) as caught:
        load_reward("pickscore", tmp_path / "wrong.safetensors", architecture=ARCHITECTURE)
    for part in (
        "2 missing: vision_model.encoder.layers.1.self_attn.k_proj.bias, vision_model.pre_layrnorm",
        "1 unknown: vision_model.pre_layernorm.bias",
        "visual_projection.weight is (32, 24), not (24, 32)",
    ):
        assert part in str(caught.value)


def test_an_architecture_without_a_plain_transformer_has_no_such_layout(path: Path) -> None:
    residual = {
        **ARCHITECTURE,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64},
    }
    with pytest.raises(RewardError, match=r"no tensor like visual\..*plain vision transformers"):
        load_reward("pickscore", path, architecture=residual)
