from typing import Any

import pytest
import torch
from diffusers import EasyAnimateTransformer3DModel
from diffusers.models.transformers.transformer_easyanimate import EasyAnimateAttnProcessor2_0
from torch import Tensor

from base_model.loading.key_map import to_diffusers
from base_model.loading.model_configs import transformer_arguments
from base_model.networks import corrections
from base_model.networks.corrections import (
    TextStreamProjection,
    correct,
    correct_reversibly,
    uncorrected,
    upstream_projects_text,
)
from base_model.networks.rotary import PublishedRotary
from tests.goldens import TRANSFORMERS, load_golden, relative, write_part


@pytest.fixture
def no_memory_of_upstream() -> Any:
    upstream_projects_text.cache_clear()
    yield
    upstream_projects_text.cache_clear()


def stock(name: str, tmp_path: Any) -> tuple[Any, dict[str, Tensor]]:
    """diffusers' own model with golden weights, not corrected."""
    golden = load_golden(name)
    write_part(tmp_path / "part", golden.config, {})
    arguments = transformer_arguments(tmp_path / "part", EasyAnimateTransformer3DModel)
    model = EasyAnimateTransformer3DModel(**arguments)
    model.load_state_dict({to_diffusers(k): v for k, v in golden.weights.items()})
    return model.eval(), golden.tensors


@torch.no_grad()
def error(model: Any, tensors: dict[str, Tensor]) -> float:
    velocity = model(
        tensors["in.latents"],
        tensors["in.timestep"],
        encoder_hidden_states=tensors["in.text"],
        inpaint_latents=tensors.get("in.inpaint_latents"),
        control_latents=tensors.get("in.control_latents"),
        return_dict=False,
    )[0]
    return relative(velocity, tensors["out.velocity"])


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_corrected_it_is_the_published_model(name: str, tmp_path: Any) -> None:
    model, tensors = stock(name, tmp_path)
    assert error(model, tensors) > 1e-3
    assert correct(model) is model
    assert error(model, tensors) < 1e-6


@pytest.mark.parametrize("name", ["transformer_inpaint_7b_style", "transformer_control_7b_style"])
def test_neither_correction_is_enough(name: str, tmp_path: Any) -> None:
    model, tensors = stock(name, tmp_path)
    library_rotary = model.rope_embedding
    correct(model)
    rotary, model.rope_embedding = model.rope_embedding, library_rotary
    assert error(model, tensors) > 1e-3
    model.rope_embedding = rotary
    for block in model.transformer_blocks:
        block.attn1.set_processor(EasyAnimateAttnProcessor2_0())
    assert error(model, tensors) > 1e-3


def test_twice_is_as_once(tmp_path: Any) -> None:
    model, tensors = stock("transformer_inpaint_7b_style", tmp_path)
    correct(correct(model))
    assert error(model, tensors) < 1e-6
    wrapped = [b.attn1.processor for b in model.transformer_blocks]
    assert [isinstance(p, TextStreamProjection) for p in wrapped] == [False] * 2 + [True] * 3
    assert not any(isinstance(p.inner, TextStreamProjection) for p in wrapped[2:])
    assert isinstance(model.rope_embedding, PublishedRotary)


@pytest.mark.usefixtures("no_memory_of_upstream")
def test_a_mended_upstream_is_not_projected_twice(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = EasyAnimateAttnProcessor2_0.__call__

    def mended(self: Any, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor,
               attention_mask: Any = None, image_rotary_emb: Any = None) -> Any:  # fmt: skip
        video, text = broken(
            self, attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb
        )
        return video, text if attn.to_add_out is not None else attn.to_out[0](text)

    assert not upstream_projects_text()
    upstream_projects_text.cache_clear()
    monkeypatch.setattr(EasyAnimateAttnProcessor2_0, "__call__", mended)
    assert upstream_projects_text()
    model, tensors = stock("transformer_inpaint_7b_style", tmp_path)
    correct(model)
    assert not any(
        isinstance(b.attn1.processor, TextStreamProjection) for b in model.transformer_blocks
    )
    assert error(model, tensors) < 1e-6


@pytest.mark.usefixtures("no_memory_of_upstream")
def test_the_probe_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    with torch.inference_mode(), torch.device("meta"):
        corrections.upstream_projects_text()
    assert torch.equal(torch.get_rng_state(), before)


def test_corrected_on_the_meta_device(tmp_path: Any) -> None:
    golden = load_golden("transformer_inpaint_7b_style")
    write_part(tmp_path / "part", golden.config, {})
    arguments = transformer_arguments(tmp_path / "part", EasyAnimateTransformer3DModel)
    with torch.device("meta"):
        names = set(correct(EasyAnimateTransformer3DModel(**arguments)).state_dict())
    assert names == {to_diffusers(name) for name in golden.weights}


def test_corrections_are_listed_and_undone(tmp_path: Any) -> None:
    model, tensors = stock("transformer_inpaint_7b_style", tmp_path)
    before = error(model, tensors)
    assert uncorrected(model) == [
        "the rotary grid of every shape but 3:2",
        "the text stream of 3 blocks",
    ]
    undo = correct_reversibly(model)
    assert uncorrected(model) == []
    assert error(model, tensors) < 1e-6
    correct_reversibly(model)()  # nothing to correct, so nothing to undo
    assert uncorrected(model) == []
    undo()
    assert len(uncorrected(model)) == 2
    assert error(model, tensors) == before > 1e-3
