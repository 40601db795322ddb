"""A small Qwen2-VL as the published generator uses it: tokenizer, chat template, language model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import Qwen2Tokenizer, Qwen2VLConfig, Qwen2VLForConditionalGeneration

EMBEDDING_SCALE = 10.0
"""Initial standard deviation of the token embeddings."""

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

# Qwen2's own split before byte-level BPE: contractions, words, single digits, punctuation, spaces.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Qwen2-VL's conversation format for text parts.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer(texts: Sequence[str], *, vocab_size: int, max_length: int) -> Qwen2Tokenizer:
    """Train a Qwen2 tokenizer (byte-level BPE, NFC) on texts.

    Args:
        texts: Texts from which merges are learned; text in any language still encodes, as bytes.
        vocab_size: Number of tokens, including the 256 bytes and the special tokens.
        max_length: `model_max_length`, the length to which the generator pads texts.

    Returns:
        The tokenizer, with the chat template.
    """
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.NFC()
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trained.decoder = decoders.ByteLevel()
    trained.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    bpe = json.loads(trained.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=bpe["vocab"],
        merges=[tuple(merge) for merge in bpe["merges"]],
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        model_max_length=max_length,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def build_text_encoder(
    tokenizer: Qwen2Tokenizer, text: dict[str, Any], vision: dict[str, Any]
) -> Qwen2VLForConditionalGeneration:
    """Build a randomly initialised Qwen2-VL for a tokenizer, with large token embeddings.

    With the usual scale of 0.02 the words of one grammatical class move together during training
    and end in states that differ by 2 to 6 %, from which a generator cannot read a colour. Large
    embeddings (not tied to the head, as in the 7B) keep each word's own vector in the residual
    stream.

    Args:
        tokenizer: Tokenizer, for the size of the vocabulary and the ids of the special tokens.
        text: Fields of the language model's config.
        vision: Fields of the vision tower's config (the class requires it, the generator does not).
    """
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL_TOKENS}
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "tie_word_embeddings": False,
            **text,
        },
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
    )
    model = Qwen2VLForConditionalGeneration(config)
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=EMBEDDING_SCALE)
    return model


def language_model_loss(
    model: Qwen2VLForConditionalGeneration,
    tokenizer: Qwen2Tokenizer,
    exchanges: Sequence[tuple[str, str]],
) -> tuple[Tensor, dict[str, float]]:
    """Return the next-token cross-entropy of conversations, on questions and answers alike.

    Args:
        model: Model to train.
        tokenizer: Its tokenizer.
        exchanges: b pairs of a user's question and the assistant's answer.

    Returns:
        The scalar loss in nats per token, and the perplexity.
    """
    conversations = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
            tokenize=False,
        )
        for question, answer in exchanges
    ]
    tokens = tokenizer(conversations, padding=True, padding_side="right", return_tensors="pt")
    labels = tokens["input_ids"].masked_fill(tokens["attention_mask"] == 0, -100)
    output = model(
        input_ids=tokens["input_ids"],
        attention_mask=tokens["attention_mask"],
        labels=labels,
        use_cache=False,
    )
    return output.loss, {"perplexity": float(torch.exp(output.loss.detach()))}
