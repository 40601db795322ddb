"""Encode prompts to text states, the penultimate hidden states of Qwen2-VL.

Every prompt is a conversation of its own. (The published code puts a batch of prompts into one
conversation, which gives one state for all of them.)
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from base_model.errors import GeneratorError

MAX_TOKENS = 256
"""Text tokens, padding included, in the training of the transformer, which attends to all."""


class PromptEncoder:
    """A Qwen2-VL with its tokenizer; usable alone, so that a trainer can encode once and drop it.

    Attributes:
        text_encoder: `Qwen2VLForConditionalGeneration`.
        tokenizer: Its tokenizer, with a chat template.
        max_tokens: Length l of every output: 256, or less where the tokenizer says so.
        batch_size: Prompts per forward pass; the states do not depend on it.
    """

    def __init__(self, text_encoder: Any, tokenizer: Any, *, batch_size: int = 8) -> None:
        if not tokenizer.chat_template:
            raise GeneratorError(
                "The tokenizer has no chat template, which prompts need. Add chat_template to "
                "tokenizer_config.json, or chat_template.json next to it."
            )
        self.text_encoder = text_encoder
        self.tokenizer = tokenizer
        self.max_tokens = min(MAX_TOKENS, tokenizer.model_max_length)
        self.batch_size = batch_size
        self._warned = False

    @property
    def width(self) -> int:
        """Channels d of the text states."""
        return self.text_encoder.get_input_embeddings().weight.shape[1]

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Encode prompts, each as a conversation of its own.

        Args:
            prompts: b prompts, b >= 1; a prompt may be empty.

        Returns:
            `(b, max_tokens, d)` in the text encoder's dtype and on its device, with padding on the
            right.

        Raises:
            GeneratorError: There is no prompt.
        """
        if isinstance(prompts, str) or not prompts:
            raise GeneratorError(f"Encoding needs a list of at least one prompt, got {prompts!r}.")
        conversations = [self._conversation(prompt) for prompt in prompts]
        self._warn_of_truncation(prompts, conversations)
        starts = range(0, len(prompts), self.batch_size)
        return torch.cat([self._encode(conversations[i : i + self.batch_size]) for i in starts])

    def _conversation(self, prompt: str) -> str:
        return self.tokenizer.apply_chat_template(
            [{"role": "user", "content": [{"type": "text", "text": prompt}]}],
            tokenize=False,
            add_generation_prompt=True,
        )

    def _encode(self, conversations: list[str]) -> Tensor:
        tokens = self.tokenizer(
            conversations,
            padding="max_length",
            padding_side="right",
            max_length=self.max_tokens,
            truncation=True,
            return_attention_mask=True,
            return_tensors="pt",
        ).to(self.text_encoder.device)
        # The model without the language head, whose logits (256 x 152,000 per prompt) are unused.
        output = self.text_encoder.model(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            output_hidden_states=True,
            use_cache=False,
        )
        return output.hidden_states[-2]

    def _warn_of_truncation(self, prompts: Sequence[str], conversations: list[str]) -> None:
        if self._warned:
            return
        # verbose=False: the tokenizer's own warning announces indexing errors, which cannot occur
        # here.
        lengths = [len(ids) for ids in self.tokenizer(conversations, verbose=False)["input_ids"]]
        for prompt, length in zip(prompts, lengths, strict=True):
            if length > self.max_tokens:
                self._warned = True
                warnings.warn(
                    f"A prompt of {length} tokens (with the template) is truncated to "
                    f"{self.max_tokens}: {prompt[:60]!r}... Shorten it; its end has no effect. "
                    "Further prompts are truncated without a warning.",
                    stacklevel=4,  # this method, __call__, no_grad's wrapper
                )
                return
