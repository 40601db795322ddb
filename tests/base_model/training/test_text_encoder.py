import math
import unicodedata
from typing import Any

import pytest
import torch
from transformers import Qwen2Tokenizer, Qwen2VLForConditionalGeneration

from base_model.networks.prompt_encoder import PromptEncoder
from base_model.tiny import configs
from base_model.tiny.captions import LANGUAGES, Language, every_caption, phrasings
from base_model.tiny.scenes import scenes
from base_model.training.text_encoder import (
    CHAT_TEMPLATE,
    EMBEDDING_SCALE,
    QWEN2_SPLIT,
    SPECIAL_TOKENS,
    build_text_encoder,
    language_model_loss,
    train_tokenizer,
)

PROMPTS = [phrasings(scenes()[400], "en")[3], phrasings(scenes()[900], "zh")[1], "a red star"]
EXCHANGES = [(PROMPTS[0], phrasings(scenes()[400], "zh")[5]), (PROMPTS[1], PROMPTS[1]), ("a", "b")]
"""Of three lengths, so that two are padded."""

WORDS = "system\nYou are a helpful assistant.\nuser\n{}\nassistant\n"


@pytest.fixture(scope="module")
def tokenizer() -> Qwen2Tokenizer:
    """Trained on a seventh of the captions, at the shipped size."""
    texts = [WORDS.format(caption) for caption in every_caption("train")[::7]]
    return train_tokenizer(
        texts, vocab_size=configs.TEXT_VOCABULARY, max_length=configs.TEXT_LENGTH
    )


@pytest.fixture(scope="module")
def model(tokenizer: Qwen2Tokenizer) -> Qwen2VLForConditionalGeneration:
    torch.manual_seed(0)
    return build_text_encoder(tokenizer, configs.TEXT, configs.VISION).eval()


def conversation(prompt: str) -> str:
    """Qwen2-VL's published format of one question."""
    return (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{prompt}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def apply(tokenizer: Qwen2Tokenizer, messages: list[dict[str, Any]], prompt: bool = True) -> str:
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)


def test_every_caption_of_both_languages_comes_back(tokenizer: Qwen2Tokenizer) -> None:
    captions = every_caption()[::37]
    ids = tokenizer(captions)["input_ids"]
    assert [tokenizer.decode(row) for row in ids] == captions


@pytest.mark.parametrize(
    "text",
    ["Ein Hündchen läuft 2024-mal.", "猫在跑 \n\n 🐈", "l'eau, it's  two  spaces ", "e\u0301"],
)
def test_any_other_text_comes_back_too(tokenizer: Qwen2Tokenizer, text: str) -> None:
    decoded = tokenizer.decode(tokenizer(text)["input_ids"], clean_up_tokenization_spaces=False)
    assert decoded == unicodedata.normalize("NFC", text)


def test_the_split_is_qwen2s(tokenizer: Qwen2Tokenizer) -> None:
    qwen2 = pytest.importorskip("transformers.models.qwen2.tokenization_qwen2")
    assert QWEN2_SPLIT == qwen2.PRETOKENIZE_REGEX
    assert len(tokenizer("2024")["input_ids"]) == 4  # one token a digit


def test_special_tokens_have_the_first_ids(tokenizer: Qwen2Tokenizer) -> None:
    published = (
        "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
        "<|image_pad|>", "<|video_pad|>",
    )  # fmt: skip
    assert published == SPECIAL_TOKENS
    assert tokenizer.convert_tokens_to_ids(list(published)) == list(range(7))
    assert tokenizer("".join(published))["input_ids"] == list(range(7))
    assert tokenizer.pad_token == "<|endoftext|>"
    assert len(tokenizer) == configs.TEXT_VOCABULARY


def test_merges_learn_the_words_of_both_languages(tokenizer: Qwen2Tokenizer) -> None:
    for word in (" circle", " background", " helpful"):
        assert len(tokenizer(word)["input_ids"]) == 1, word
    for caption in phrasings(scenes()[700], "zh"):  # three bytes a sign, words of two or three
        assert len(tokenizer(caption)["input_ids"]) < len(caption) * 0.8


def test_every_conversation_fits_the_text_length(tokenizer: Qwen2Tokenizer) -> None:
    """A cut caption would lose its last words; held-out ones are not among the trained."""
    ids = tokenizer([conversation(caption) for caption in every_caption()], verbose=False)
    longest = max(map(len, ids["input_ids"]))
    assert 0.75 * configs.TEXT_LENGTH < longest <= configs.TEXT_LENGTH
    assert tokenizer.model_max_length == configs.TEXT_LENGTH


@pytest.mark.parametrize("prompt", [*PROMPTS, ""])
def test_the_template_takes_strings_and_parts(tokenizer: Qwen2Tokenizer, prompt: str) -> None:
    for content in (prompt, [{"type": "text", "text": prompt}]):
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        assert apply(tokenizer, messages) == conversation(prompt)


def test_the_template_takes_several_turns(tokenizer: Qwen2Tokenizer) -> None:
    assert tokenizer.chat_template == CHAT_TEMPLATE
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}],
        },
        {"role": "assistant", "content": "c"},
    ]
    assert apply(tokenizer, messages, prompt=False) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\na b<|im_end|>\n"
        "<|im_start|>assistant\nc<|im_end|>\n"
    )


def test_the_model_knows_the_ids(
    tokenizer: Qwen2Tokenizer, model: Qwen2VLForConditionalGeneration
) -> None:
    config = model.config
    vision = (
        config.vision_start_token_id,
        config.vision_end_token_id,
        config.image_token_id,
        config.video_token_id,
    )
    assert vision == (3, 4, 5, 6)
    text = config.get_text_config()
    assert (text.bos_token_id, text.pad_token_id, text.eos_token_id) == (0, 0, 2)
    embedding = model.get_input_embeddings().weight
    assert embedding.shape == (len(tokenizer), configs.TEXT_WIDTH)
    # Untied from the head, and so large that each word keeps its own vector among the states.
    assert model.lm_head.weight is not embedding
    assert embedding.std().item() == pytest.approx(EMBEDDING_SCALE, rel=0.02)
    assert model.lm_head.weight.std().item() == pytest.approx(0.02, rel=0.02)


@torch.no_grad()
def test_the_loss_is_the_cross_entropy_of_every_next_token(
    tokenizer: Qwen2Tokenizer, model: Qwen2VLForConditionalGeneration
) -> None:
    """Each conversation alone and without padding, log-probabilities summed by hand."""
    loss, numbers = language_model_loss(model, tokenizer, EXCHANGES)
    total, count = 0.0, 0
    for question, answer in EXCHANGES:
        text = conversation(question) + f"{answer}<|im_end|>\n"
        ids = torch.tensor([tokenizer(text, verbose=False)["input_ids"]])
        log_probability = model(input_ids=ids, use_cache=False).logits[0].double().log_softmax(-1)
        for place in range(ids.shape[1] - 1):
            total -= log_probability[place, ids[0, place + 1]].item()
            count += 1
    assert count > 2 * configs.TEXT_LENGTH  # answers are not cut to a prompt's length
    assert loss.item() == pytest.approx(total / count, rel=1e-5)
    assert numbers["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-4)
    # At random weights of this size nothing is known: the perplexity is the vocabulary, about.
    assert 0.7 * 640 < numbers["perplexity"] < 1.5 * 640


def test_learning_reaches_all_but_the_vision_tower(
    tokenizer: Qwen2Tokenizer, model: Qwen2VLForConditionalGeneration
) -> None:
    loss, _ = language_model_loss(model, tokenizer, EXCHANGES)
    model.zero_grad()
    loss.backward()
    for name, parameter in model.named_parameters():
        if ".visual." in name:
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name
    model.zero_grad()


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_prompt_encoder_takes_it(
    tokenizer: Qwen2Tokenizer, model: Qwen2VLForConditionalGeneration, language: Language
) -> None:
    prompts = phrasings(scenes()[7], language)[:2]
    states = PromptEncoder(model, tokenizer)(prompts)
    assert states.shape == (2, configs.TEXT_LENGTH, configs.TEXT_WIDTH)
    assert not torch.equal(states[0], states[1])


def test_a_tokenizer_repeats() -> None:
    texts = [WORDS.format(caption) for caption in every_caption("train")[::201]]
    one, other = (train_tokenizer(texts, vocab_size=400, max_length=36) for _ in range(2))
    assert one.get_vocab() == other.get_vocab()
    assert one.backend_tokenizer.to_str() == other.backend_tokenizer.to_str()
