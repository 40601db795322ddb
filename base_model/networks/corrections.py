"""Correct the differences between diffusers' EasyAnimate transformer and the published model.

There are two, together 0.5 to 1 % of the velocity on small random networks:

* the rotary grid of every shape except 3:2 (`base_model.networks.rotary`);
* blocks beyond `mmdit_layers` do not project the text stream with `to_out` (the 7B model has 18 of
  them). A probe detects once whether the installed diffusers has this bug, so that a version
  without it does not project twice.

`base_model.networks.magvit` bypasses the VAE's own caching and checkpointing.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.transformers.transformer_easyanimate import EasyAnimateTransformerBlock
from torch import Tensor

from base_model.core.family import FAMILY
from base_model.networks.attention_processor import PublishedAttention
from base_model.networks.rotary import PublishedRotary


class TextStreamProjection:
    """Attention processor that also projects the text stream with `to_out`.

    It wraps the processor it corrects; `to_out` is looked up at each call, so adapters on it count.
    """

    def __init__(self, inner: Callable[..., tuple[Tensor, Tensor]]) -> None:
        self.inner = inner

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attend over text and video `(b, tokens, channels)`; return (video, text)."""
        video, text = self.inner(
            attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb
        )
        linear, dropout = attn.to_out
        return video, dropout(linear(text))


@functools.cache
def upstream_projects_text() -> bool:
    """Return whether the installed diffusers projects the text stream of a single-stream block.

    The probe runs the attention of one 8-channel block whose `to_out` is zero: the text stream is
    zero at the end if and only if it was projected.
    """
    with (
        torch.random.fork_rng(devices=[]),
        torch.inference_mode(False),
        torch.no_grad(),
        torch.device("cpu"),
    ):
        block = EasyAnimateTransformerBlock(
            dim=8,
            num_attention_heads=1,
            attention_head_dim=8,
            time_embed_dim=8,
            is_mmdit_block=False,
        )
        attention = block.attn1.to(torch.float32)
        attention.to_v.bias.fill_(1.0)
        attention.to_v.weight.zero_()
        attention.to_out[0].weight.zero_()
        attention.to_out[0].bias.zero_()
        _, text = attention(
            hidden_states=torch.ones(1, 2, 8), encoder_hidden_states=torch.ones(1, 1, 8)
        )
    return not bool(text.any())


def correct(transformer: Any) -> Any:
    """Make an `EasyAnimateTransformer3DModel` compute what the published model computes.

    The change is in place, adds no parameters and is idempotent.

    Args:
        transformer: The diffusers model; its weights may be on the meta device.

    Returns:
        The same object.
    """
    if not isinstance(transformer.rope_embedding, PublishedRotary):
        transformer.rope_embedding = PublishedRotary(
            transformer.config.attention_head_dim, transformer.config.patch_size
        )
    for attention in _unprojected(transformer):
        attention.set_processor(TextStreamProjection(attention.processor))
    return transformer


def uncorrected(transformer: Any) -> list[str]:
    """Describe what `correct` would change, a phrase each; empty for a corrected transformer."""
    faults = []
    if not isinstance(transformer.rope_embedding, PublishedRotary):
        faults.append("the rotary grid of every shape but 3:2")
    if blocks := len(_unprojected(transformer)):
        faults.append(f"the text stream of {blocks} blocks")
    return faults


def correct_reversibly(transformer: Any) -> Callable[[], None]:
    """Correct a transformer.

    Args:
        transformer: As for `correct`.

    Returns:
        A function that restores what was there before.
    """
    rotary = transformer.rope_embedding
    processors = [(attention, attention.processor) for attention in _unprojected(transformer)]
    correct(transformer)

    def undo() -> None:
        transformer.rope_embedding = rotary
        for attention, processor in processors:
            attention.set_processor(processor)

    return undo


def _unprojected(transformer: Any) -> list[Any]:
    """Return the attention of each block that does not project its text stream yet, but should."""
    if upstream_projects_text():
        return []
    every = [block.attn1 for block in getattr(transformer, FAMILY.blocks)]
    return [
        attention
        for attention in every
        if getattr(attention, "to_add_out", None) is None
        and not isinstance(attention.processor, TextStreamProjection | PublishedAttention)
    ]
