import pytest
import torch
from diffusers import EasyAnimateTransformer3DModel

from base_model.loading.key_map import layout_of, to_diffusers, to_original
from tests.goldens import TRANSFORMERS, load_golden

ARGUMENTS = ("num_attention_heads", "attention_head_dim", "in_channels", "out_channels",
             "patch_size", "num_layers", "mmdit_layers", "time_embed_dim",
             "add_norm_text_encoder", "text_embed_dim")  # fmt: skip


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_golden_names_are_diffusers_names(name: str) -> None:
    golden = load_golden(name)
    with torch.device("meta"):
        model = EasyAnimateTransformer3DModel(**{key: golden.config[key] for key in ARGUMENTS})
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    assert {to_diffusers(k): tuple(v.shape) for k, v in golden.weights.items()} == shapes
    assert {to_original(key) for key in shapes} == set(golden.weights)
    assert layout_of(golden.weights) == "original"
    assert layout_of(shapes) == "diffusers"


@pytest.mark.parametrize(
    ("original", "diffusers"),
    [
        (
            "transformer_blocks.11.attn2.to_out.0.bias",
            "transformer_blocks.11.attn1.to_add_out.bias",
        ),
        (
            "transformer_blocks.3.attn2.norm_q.weight",
            "transformer_blocks.3.attn1.norm_added_q.weight",
        ),
        ("transformer_blocks.0.attn2.to_k", "transformer_blocks.0.attn1.add_k_proj"),
        ("transformer_blocks.0.attn1.to_out.0", "transformer_blocks.0.attn1.to_out.0"),
        ("transformer_blocks.0.attn2.to_kind", "transformer_blocks.0.attn2.to_kind"),
        ("text_proj.1.weight", "text_proj.1.weight"),
    ],
)
def test_names(original: str, diffusers: str) -> None:
    assert to_diffusers(original) == diffusers
    assert to_original(diffusers) == original
    assert to_diffusers(diffusers) == diffusers
    assert to_original(original) == original
