"""The same random weights in transformers' CLIP: value and pixel gradient agree."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rewards import load_reward
from rewards.core.torchvision_import import ensure_torchvision_importable
from tests.rewards.tiny_clip import ARCHITECTURE, PROMPTS, flat_file, frames, random_state

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]


def to_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's names and layouts -> those of ``CLIPModel``."""
    out = {
        "logit_scale": state["logit_scale"],
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "text_projection.weight": state["text_projection"].T,
        "visual_projection.weight": state["visual.proj"].T,
        "vision_model.embeddings.class_embedding": state["visual.class_embedding"],
        "vision_model.embeddings.position_embedding.weight": state["visual.positional_embedding"],
        "vision_model.embeddings.patch_embedding.weight": state["visual.conv1.weight"],
    }
    norms = {
        "ln_final": "text_model.final_layer_norm",
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
    }
    inner = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1"}
    inner |= {"mlp.c_proj": "mlp.fc2", "attn.out_proj": "self_attn.out_proj"}
    for name, tensor in state.items():
        stem, _, leaf = name.rpartition(".")
        if stem in norms:
            out[f"{norms[stem]}.{leaf}"] = tensor
        if "resblocks." not in name:
            continue
        side, rest = name.split("resblocks.")
        layer, part = rest.split(".", 1)
        tower = "vision_model" if side.startswith("visual") else "text_model"
        block = f"{tower}.encoder.layers.{layer}"
        if part.startswith("attn.in_proj_"):
            for which, piece in zip("qkv", tensor.chunk(3), strict=True):
                out[f"{block}.self_attn.{which}_proj.{part.removeprefix('attn.in_proj_')}"] = piece
        else:
            stem, _, leaf = part.rpartition(".")
            out[f"{block}.{inner[stem]}.{leaf}"] = tensor
    return {k: v.contiguous() for k, v in out.items()}


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return random_state(ARCHITECTURE)


@pytest.fixture(scope="module")
def reference(state: dict[str, Tensor]) -> Any:
    ensure_torchvision_importable()
    from transformers import CLIPConfig, CLIPModel

    vision = {
        "hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "image_size": 32, "patch_size": 8, "hidden_act": "gelu",
    }  # fmt: skip
    text = {
        "hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "vocab_size": 49408, "max_position_embeddings": 77,
        "hidden_act": "gelu", "eos_token_id": 49407, "bos_token_id": 49406, "pad_token_id": 0,
    }  # fmt: skip
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    model = CLIPModel(config).eval().requires_grad_(False)
    model.load_state_dict(to_transformers(state), strict=True)
    return model


def projected(output: Any) -> Tensor:
    return F.normalize(getattr(output, "pooler_output", output), dim=-1)


@pytest.mark.parametrize("kind", ["clip", "hps"])
def test_score_and_pixel_gradient_equal_transformers(
    kind: str, state: dict[str, Tensor], reference: Any, tmp_path: Path
) -> None:
    judge = load_reward(kind, flat_file(tmp_path, state), architecture=ARCHITECTURE, chunk=4)
    ours = frames(3, 3).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    score = judge(ours, PROMPTS)

    tokens = judge.tower.tokenizer(PROMPTS)  # type: ignore[attr-defined]
    text = projected(reference.get_text_features(input_ids=tokens))
    pixels = ((theirs - MEAN) / STD).flatten(0, 1)
    image = projected(reference.get_image_features(pixel_values=pixels)).unflatten(0, (3, 3))
    expected = torch.einsum("bfd,bd->bf", image, text).mean(dim=1)

    torch.testing.assert_close(score, expected, rtol=0, atol=1e-6)
    assert float(expected.detach().std()) > 0.01  # else the rows could be mixed
    weights = torch.tensor([1.0, -2.0, 0.5])
    (a,) = torch.autograd.grad((score * weights).sum(), ours)
    (b,) = torch.autograd.grad((expected * weights).sum(), theirs)
    assert float((a - b).norm() / b.norm()) < 1e-5
