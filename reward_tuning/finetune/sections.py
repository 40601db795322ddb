"""The sections of a recipe of `reward-tuning finetune`: each key, its range, its meaning."""

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
    """Which generator is trained further."""

    channels: Literal[16, 33, 38, 48] | None = Field(
        default=None,
        description="Input channels that the transformer is given, new ones starting at 0: 33 "
        "makes it an inpaint, 48 a control, 38 a camera model; needs lora: null, for a LoRA does "
        "not train them; null = as it is",
    )
    fresh: bool = Field(
        default=False,
        description="Start the transformer from random weights; needs lora: null. The first stage "
        "of a training from nothing, on the VAE's latents of pictures",
    )


class DataSection(Section):
    """The user's clips, and how they become batches."""

    metadata: FileName = Field(
        description=".json list or .csv of file_path, text, type (video or image), "
        "control_file_path"
    )
    folder: FileName | None = Field(
        default=None, description="Where its relative paths start; null = the list's own folder"
    )
    stride: Positive = Field(
        default=3, description="Every so many frames of a file are taken: 3 of 24 a second are 8"
    )
    frames: Frames = Field(default=49, description="Frames of a clip at most, 4k + 1")
    sides: Annotated[tuple[BucketSide, ...], Strict(False)] = Field(
        default=(512,),
        min_length=1,
        description="Square roots of the pixels of a clip; one is drawn for each batch, and the "
        "bucket of the clips' aspect ratio gives height and width",
    )
    image_sides: Annotated[tuple[BucketSide, ...], Strict(False)] | None = Field(
        default=None, min_length=1, description="The same of pictures; null = sides"
    )
    tokens: Literal[3328, 13312, 53248] | None = Field(
        default=None,
        description="Budget of a clip, as of 49 frames of 256, 512 or 1024 squared: larger clips "
        "get fewer frames; null = no budget",
    )
    frame_rule: Literal["report", "code"] = Field(
        default="report", description="How frames follow from the budget (`base_model.core.tokens`)"
    )
    draw_frames: bool = Field(
        default=False, description="One batch in ten gets a shorter length, drawn from 5, 9, ..."
    )
    adapt_sides: bool = Field(
        default=False, description="Clips grow by less than a quarter: smaller sides for small ones"
    )
    reference: Literal["first", "random", "none"] = Field(
        default="first",
        description="Frame of the clip that a control or camera model gets as reference image",
    )
    latents: Literal["sample", "mode"] = Field(
        default="sample", description="Of the VAE's posterior; the published trainer samples"
    )
    cache: FileName | None = Field(
        default=None,
        description="Folder that keeps the VAE's posterior of each part of a clip once encoded, "
        "and the length and size of each file; null = no cache",
    )
    held_out: NotNegative = Field(
        default=0,
        description="Clips that are not trained on; their loss is measured before and after",
    )


class FlowSection(Section):
    """The objective: which noise levels, and how errors count."""

    scheme: Literal["none", "sigma_sqrt", "logit_normal", "mode", "cosmap"] = Field(
        default="none", description="Density of the noise levels, or weight of their loss"
    )
    logit_mean: float = Field(default=0.0, description="Of logit_normal; below 0 = high noise")
    logit_std: float = Field(default=1.0, gt=0.0, description="Of logit_normal")
    mode_scale: float = Field(default=1.29, description="Of mode")
    shift: float = Field(
        default=0.0,
        ge=-3.0,
        le=3.0,
        description="mu of the levels; 0 as the published trainer, 1 as the sampler, which learns "
        "more of the prompt",
    )
    motion_share: Share = Field(
        default=0.0,
        description="Share of the error of frame differences in the loss; published: 0.25 where on",
    )
    most_error: float | None = Field(
        default=50.0, gt=0.0, description="Larger errors of an element count nothing; null = all do"
    )


class DropoutSection(Section):
    """What a sample goes without, now and then. The defaults are the published values."""

    text: Share = Field(default=0.1, description="Samples with the empty prompt, for guidance")
    control: Share = Field(default=0.2, description="Samples without control clip")
    reference: Share = Field(default=0.2, description="Samples without reference image")
    zeroed: Share = Field(
        default=0.9,
        description="Of samples of an inpaint model of which nothing is kept: those that get zeros "
        "in all channels, the text-to-video mode",
    )


class MasksSection(Section):
    """What an inpaint model keeps: probabilities of the kinds in `base_model.training`."""

    video: Probabilities = Field(
        default=None,
        min_length=10,
        max_length=10,
        description="block, all, after_start, between_ends, block_in_time, pixels, frame_blocks, "
        "ellipse, circle, frames; null = the published ones",
    )
    image: Probabilities = Field(
        default=None, min_length=2, max_length=2, description="block, all; null = the published"
    )


class FinetuneTrainSection(LoopSection):
    """The optimiser and the loop."""

    first_norm_ratio: float = Field(
        default=1.0,
        ge=1.0,
        description="The first step is clipped to so many times max_grad_norm, falling linearly",
    )
    norm_decay_steps: Positive = Field(
        default=1000, description="Steps until it is max_grad_norm itself"
    )
    autocast: Literal["bfloat16"] | None = Field(
        default=None,
        description="Of the matrix products where generator.dtype is float32; null = the weights'",
    )
    checkpoint_every: Positive = Field(default=100, description="Steps between two checkpoints")


class SamplesSection(Section):
    """Clips that are drawn from the captions of held-out rows, to be looked at."""

    count: NotNegative = Field(
        default=4, description="Held-out rows that clips are drawn of; 0 = none are drawn"
    )
    steps: Positive = Field(default=25, description="Euler steps of the flow")
    guidance_scale: float = Field(
        default=6.0,
        ge=1.0,
        description="Classifier-free guidance, from the empty prompt; 1 = no guidance",
    )
