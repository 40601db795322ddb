"""Where diffusers' EasyAnimate transformer differs from the published model, and the cures.

Two differences, together 0.5 to 1 % of the velocity on small random nets:

* the rotary grid of every shape but 3:2 (`base_model.networks.rotary`);
* blocks beyond `mmdit_layers` do not send the text stream through `to_out` (the 7B model has
  18 of them). Whether the installed diffusers still has this bug is probed once, so a version that
  has mended it is left alone and nothing is projected twice.

The VAE's own caching and checkpointing are by-passed in `base_model.networks.magvit`.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.transformers.transformer_easyanimate import EasyAnimateTransformerBlock
from torch import Tensor

from base_model.core.family import FAMILY
from base_model.networks.rotary import PublishedRotary


class TextStreamProjection:
    """An attention processor that also sends the text stream through `to_out`.

    Wraps the processor it mends; `to_out` is looked up at each call, so adapters on it count.
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
        """Attends over text and video `(b, tokens, channels)`; returns (video, text)."""
        video, text = self.inner(
            attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb
        )
        linear, dropout = attn.to_out
        return video, dropout(linear(text))


@functools.cache
def upstream_projects_text() -> bool:
    """Whether the installed diffusers projects the text stream of a single-stream block itself.

    Runs the attention of one 8-channel block whose `to_out` is zero: the text stream comes out
    as zero exactly if it went through.
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
    """Makes an `EasyAnimateTransformer3DModel` compute what the published model computes.

    Changes the transformer in place, adds no parameters, and may be called again without harm.

    Args:
        transformer: The diffusers model; weights may still be on the meta device.

    Returns:
        The same object.
    """
    if not isinstance(transformer.rope_embedding, PublishedRotary):
        transformer.rope_embedding = PublishedRotary(
            transformer.config.attention_head_dim, transformer.config.patch_size
        )
    if not upstream_projects_text():
        for block in getattr(transformer, FAMILY.blocks):
            attention = block.attn1
            single_stream = getattr(attention, "to_add_out", None) is None
            if single_stream and not isinstance(attention.processor, TextStreamProjection):
                attention.set_processor(TextStreamProjection(attention.processor))
    return transformer
