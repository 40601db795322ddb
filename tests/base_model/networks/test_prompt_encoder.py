import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

from base_model.errors import GeneratorError
from base_model.loading.checkpoint import load_text_encoder
from base_model.networks.prompt_encoder import PromptEncoder
from tests.base_model.conftest import small_tokenizer

PROMPTS = ["a red ball", "一个红色的球向左移动", "", "a blue star moves up; a red ball stays"]


@pytest.fixture
def encoder(text_folder: Path) -> PromptEncoder:
    return load_text_encoder(text_folder)


@torch.no_grad()
def layer_by_layer(encoder: PromptEncoder, prompt: str) -> Tensor:
    """All but the last decoder layer, on tokens put together by hand: (tokens, d)."""
    text = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    )
    ids = torch.tensor([encoder.tokenizer.encode(text)])
    language = encoder.text_encoder.model.language_model
    states: list[Tensor] = []
    hook = language.layers[-2].register_forward_hook(
        lambda _, args, output: states.append(output[0] if isinstance(output, tuple) else output)
    )
    try:
        encoder.text_encoder(input_ids=ids)
    finally:
        hook.remove()
    return states[0].reshape(-1, states[0].shape[-1])


@pytest.mark.parametrize("prompt", PROMPTS)
def test_penultimate_state_of_one_conversation(encoder: PromptEncoder, prompt: str) -> None:
    states = encoder([prompt])
    expected = layer_by_layer(encoder, prompt)
    assert states.shape == (1, 96, 48)
    torch.testing.assert_close(states[0, : len(expected)], expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_padding_is_on_the_right_and_part_of_the_states(encoder: PromptEncoder) -> None:
    """The transformer attends to the padding, too, so what it holds matters."""
    expected = layer_by_layer(encoder, PROMPTS[0])
    ids = torch.zeros(1, 96, dtype=torch.long)  # <|endoftext|>
    mask = torch.zeros(1, 96, dtype=torch.long)
    conversation = encoder.tokenizer(encoder._conversation(PROMPTS[0]))["input_ids"]
    assert len(conversation) == len(expected) < 60
    ids[0, : len(conversation)] = torch.tensor(conversation)
    mask[0, : len(conversation)] = 1
    whole = encoder.text_encoder(
        input_ids=ids, attention_mask=mask, output_hidden_states=True
    ).hidden_states
    torch.testing.assert_close(encoder([PROMPTS[0]]), whole[-2], rtol=1e-5, atol=1e-6)


def test_a_batch_is_its_prompts(encoder: PromptEncoder) -> None:
    """A batch put into one conversation would differ from the second prompt on."""
    alone = torch.cat([encoder([prompt]) for prompt in PROMPTS])
    torch.testing.assert_close(encoder(PROMPTS), alone, rtol=1e-5, atol=1e-6)
    encoder.batch_size = 3
    torch.testing.assert_close(encoder(PROMPTS), alone, rtol=1e-5, atol=1e-6)
    assert (alone[0] - alone[1]).norm() / alone[0].norm() > 0.01


def test_states_need_no_gradient(encoder: PromptEncoder) -> None:
    encoder.text_encoder.requires_grad_(True)
    states = encoder(["a"])
    assert not states.requires_grad
    assert states.dtype == torch.float32


def test_a_long_prompt_is_cut_and_told_once(encoder: PromptEncoder) -> None:
    long = "a red ball " * 60
    with pytest.warns(UserWarning, match="is truncated to 96: 'a red ball"):
        states = encoder([long])
    assert states.shape == (1, 96, 48)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(encoder([long + "and more"]), states)


def test_length_is_at_most_256(encoder: PromptEncoder) -> None:
    assert PromptEncoder(encoder.text_encoder, small_tokenizer(32768)).max_tokens == 256
    assert encoder.max_tokens == 96
    assert encoder.width == 48


@pytest.mark.parametrize("prompts", [[], "a red ball"])
def test_a_list_of_prompts_is_needed(encoder: PromptEncoder, prompts: list[str]) -> None:
    with pytest.raises(GeneratorError, match="a list of at least one prompt"):
        encoder(prompts)


def test_a_tokenizer_without_template_is_told(encoder: PromptEncoder) -> None:
    encoder.tokenizer.chat_template = None
    with pytest.raises(GeneratorError, match="no chat template"):
        PromptEncoder(encoder.text_encoder, encoder.tokenizer)
