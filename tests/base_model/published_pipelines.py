"""What diffusers' EasyAnimate pipelines hand to the transformer, to compare ours with."""

from typing import Any

import torch
from diffusers import (
    EasyAnimateControlPipeline,
    EasyAnimateInpaintPipeline,
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor

from base_model.generator import Generator
from tests.goldens import FLOW


class _EncodesNothing(EasyAnimateControlPipeline):
    """The port's control pipeline passes its prompt encoder an argument that it does not take."""

    def encode_prompt(self, *args: Any, **options: Any) -> Any:
        options.pop("text_encoder_index")
        return super().encode_prompt(*args, **options)


def seen_by_the_transformer(
    ours: Generator, text: Tensor, size: tuple[int, int, int], **inputs: Any
) -> dict[str, Tensor]:
    """The arguments of the first model call of a guided pipeline run, negative branch first.

    Args:
        ours: Of the inpaint kind for `video` and `mask_video`, else of the control kinds.
        text: `(1, l, d)` states.
        size: Frames, height and width.
        **inputs: Of the pipeline, clips as `(1, c, f, H, W)` in [0, 1].
    """
    kind: Any = EasyAnimateInpaintPipeline if "video" in inputs else _EncodesNothing
    # The port reads a key that its own VAE config lacks; V5.1's value.
    ours.vae.register_to_config(cache_mag_vae=True)
    config = {key: value for key, value in FLOW.items() if key != "_class_name"}
    pipeline = kind(
        vae=ours.vae,
        text_encoder=None,
        tokenizer=None,
        transformer=ours.transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(**config),
    )
    pipeline.set_progress_bar_config(disable=True)
    calls: list[dict[str, Tensor]] = []
    hook = ours.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append({"latents": args[0], **kwargs}), with_kwargs=True
    )
    mask = torch.ones(text.shape[:2])
    inputs.setdefault("num_inference_steps", 1)
    try:
        pipeline(
            prompt_embeds=text,
            negative_prompt_embeds=text,
            prompt_attention_mask=mask,
            negative_prompt_attention_mask=mask,
            num_frames=size[0],
            height=size[1],
            width=size[2],
            output_type="latent",
            **inputs,
        )
    finally:
        hook.remove()
    return calls[0]
