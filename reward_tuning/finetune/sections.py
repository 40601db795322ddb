"""The sections of a `reward-tuning finetune` recipe: each key, its range, its meaning."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict

from reward_tuning.schema.loop_section import LoopSection
from reward_tuning.schema.sections import GeneratorSection
from reward_tuning.schema.values import FileName, Frames
from reward_tuning.section import NotNegative, Positive, Section

Share = Annotated[float, Field(ge=0.0, le=1.0)]
BucketSide = Annotated[int, Field(ge=32)]
Probabilities = Annotated[tuple[Share, ...] | None, Strict(False)]


class BaseSection(GeneratorSection):
    """The generator to train further."""

    channels: Literal[16, 33, 38, 48] | None = Field(
        default=None,
        description="Number of input channels to give the transformer, new ones with zero weights: "
        "33 makes an inpaint, 48 a control, 38 a camera model. Needs lora: null, since a LoRA does "
        "not train them; null = unchanged",
    )
    fresh: bool = Field(
        default=False,
        description="Start the transformer from random weights; needs lora: null. For the first "
        "stage of a training from scratch, on latents of pictures",
    )


class DataSection(Section):
    """The user's clips, and how they become batches."""

    metadata: FileName = Field(
        description="List of clips (.json, .csv, ...) with file_path, text, type (video or image) "
        "and control_file_path"
    )
    folder: FileName | None = Field(
        default=None,
        description="Folder of the list's relative paths; null = the list's own folder",
    )
    stride: Positive = Field(
        default=3,
        description="Take every stride-th frame of a file: 3 turns 24 frames a second into 8",
    )
    frames: Frames = Field(default=49, description="Most frames of a clip, 4k + 1")
    sides: Annotated[tuple[BucketSide, ...], Strict(False)] = Field(
        default=(512,),
        min_length=1,
        description="Square roots of a clip's pixel count; one is drawn for each batch, and the "
        "bucket of the clips' aspect ratio gives height and width",
    )
    image_sides: Annotated[tuple[BucketSide, ...], Strict(False)] | None = Field(
        default=None, min_length=1, description="The same for pictures; null = sides"
    )
    tokens: Literal[3328, 13312, 53248] | None = Field(
        default=None,
        description="Token budget of a clip, that of 49 frames of 256, 512 or 1024 squared: larger "
        "clips get fewer frames; null = no budget",
    )
    frame_rule: Literal["report", "code"] = Field(
        default="report", description="How the budget limits the frames (`base_model.core.tokens`)"
    )
    draw_frames: bool = Field(
        default=False, description="Give one batch in ten a shorter length, drawn from 5, 9, ..."
    )
    adapt_sides: bool = Field(
        default=False,
        description="Use smaller sides for small clips, so that none is enlarged by a quarter",
    )
    reference: Literal["first", "random", "none"] = Field(
        default="first",
        description="Frame of the clip that a control or camera model gets as its reference image",
    )
    latents: Literal["sample", "mode"] = Field(
        default="sample",
        description="Sample the VAE's posterior, as the published trainer, or take its mode",
    )
    cache: FileName | None = Field(
        default=None,
        description="Folder that keeps the VAE's posterior of each part of a clip, and the length "
        "and size of each file; null = no cache",
    )
    held_out: NotNegative = Field(
        default=0,
        description="Number of clips to measure before and after instead of training on them",
    )


class FlowSection(Section):
    """The objective: noise levels, and how errors count."""

    scheme: Literal["none", "sigma_sqrt", "logit_normal", "mode", "cosmap"] = Field(
        default="none", description="Density of the noise levels, or weight of their loss"
    )
    logit_mean: float = Field(default=0.0, description="Mean of logit_normal; below 0 = high noise")
    logit_std: float = Field(default=1.0, gt=0.0, description="Standard deviation of logit_normal")
    mode_scale: float = Field(default=1.29, description="Scale of mode")
    shift: float = Field(
        default=0.0,
        ge=-3.0,
        le=3.0,
        description="mu of the levels: 0 = the published trainer's, 1 = the sampler's, with which "
        "the model learns more of the prompt",
    )
    motion_share: Share = Field(
        default=0.0,
        description="Share of the error of frame differences in the loss; published: 0.25 if used",
    )
    most_error: float | None = Field(
        default=50.0, gt=0.0, description="Ignore elements with a larger error; null = none"
    )


class DropoutSection(Section):
    """Probabilities of dropping a condition. The defaults are the published values."""

    text: Share = Field(default=0.1, description="Probability of the empty prompt, for guidance")
    control: Share = Field(default=0.2, description="Probability of no control clip")
    reference: Share = Field(default=0.2, description="Probability of no reference image")
    zeroed: Share = Field(
        default=0.9,
        description="Probability of zeros in all channels where an inpaint model keeps nothing, "
        "which is its text-to-video mode",
    )


class MasksSection(Section):
    """Masks of an inpaint model: probabilities of the kinds in `base_model.training`."""

    video: Probabilities = Field(
        default=None,
        min_length=10,
        max_length=10,
        description="block, all, after_start, between_ends, block_in_time, pixels, frame_blocks, "
        "ellipse, circle, frames; null = the published values",
    )
    image: Probabilities = Field(
        default=None,
        min_length=2,
        max_length=2,
        description="block, all; null = the published values",
    )


class FinetuneTrainSection(LoopSection):
    """The optimiser and the loop."""

    first_norm_ratio: float = Field(
        default=1.0,
        ge=1.0,
        description="Clip the first step to this multiple of max_grad_norm, which falls linearly",
    )
    norm_decay_steps: Positive = Field(default=1000, description="Steps until the multiple is 1")
    autocast: Literal["bfloat16"] | None = Field(
        default=None,
        description="Dtype of matrix products where generator.dtype is float32; null = the same",
    )
    checkpoint_every: Positive = Field(default=100, description="Steps between two checkpoints")


class SamplesSection(Section):
    """Sample clips from the captions of held-out rows."""

    count: NotNegative = Field(default=4, description="Number of held-out rows to sample; 0 = none")
    steps: Positive = Field(default=25, description="Euler steps of the flow")
    guidance_scale: float = Field(
        default=6.0,
        ge=1.0,
        description="Classifier-free guidance against the empty prompt; 1 = none",
    )
