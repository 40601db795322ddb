"""SigLIP's image tower: names, shapes, and gradient checkpointing."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from rewards.clip_towers.siglip import CONFIGS, SiglipConfig, SiglipVision
from rewards.core.torchvision_import import ensure_torchvision_importable
from rewards.core.tower_options import TowerOptions
from rewards.core.weight_file import WeightFile
from rewards.kinds.aesthetic_v2_5 import load_siglip
from tests.rewards import small_siglip
from tests.rewards.small_siglip import load
from tests.rewards.tiny_clip import frames
from tests.rewards.tiny_hf import SIGLIP

model = small_siglip.model
folder = small_siglip.folder


def test_so400m_has_the_published_names_and_shapes() -> None:
    ensure_torchvision_importable()
    from transformers import SiglipVisionConfig, SiglipVisionModel

    # As the published config.json.
    config = SiglipVisionConfig(
        hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16,
        image_size=384, patch_size=14,
    )  # fmt: skip
    with torch.device("meta"):
        published = SiglipVisionModel(config).state_dict()
        ours = SiglipVision(CONFIGS["siglip-so400m-patch14-384"]).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in published.items()}
    assert sum(tensor.numel() for tensor in ours.values()) == 428_225_600


def test_the_image_side_of_a_whole_file_is_taken_and_the_rest_named(
    model: Any, folder: Path
) -> None:
    whole = load_file(folder / "siglip.safetensors")
    config, options = SiglipConfig(**SIGLIP), TowerOptions()
    tower = load_siglip(WeightFile(Path("x"), whole), config, "tiny", options)
    rest = {name for name in whole if not name.startswith("vision_model.")}
    assert set(tower.left_out) == rest
    assert {"logit_scale", "logit_bias"} < rest
    sides = {
        "hub": {k: v for k, v in whole.items() if k.startswith("vision_model.")},
        "transformers 5": dict(model.vision_model.state_dict()),
    }
    x = frames(1, 2)[0]
    expected = tower.image_features(x)
    for name, state in sides.items():
        other = load_siglip(WeightFile(Path("x"), state), config, "tiny", options)
        assert other.left_out == (), name
        assert torch.equal(other.image_features(x), expected), name


def test_gradient_checkpointing_recomputes_in_evaluation_mode(folder: Path) -> None:
    """Transformers' own would run each block once: it recomputes in training mode only."""
    gradients, passes = [], {}
    x = frames(1, 2).requires_grad_()
    for again in (False, True):
        judge = load(folder, gradient_checkpointing=again)
        assert not judge.tower.model.training
        runs: list[int] = []
        first = judge.tower.model.encoder.layers[0]
        first.register_forward_pre_hook(lambda *_, r=runs: r.append(1))
        gradients.append(torch.autograd.grad(judge(x, ["x"]).sum(), x)[0])
        passes[again] = len(runs)
    assert passes == {False: 1, True: 2}
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-9)
