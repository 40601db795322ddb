"""The request of `generate`: everything `draw` needs, and the checks before anything is loaded."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from base_model.core.family import FAMILY
from base_model.memory.modes import ALONE, MODES
from reward_tuning.cli.generate_options import CostOptions, PromptOptions, SamplingOptions
from reward_tuning.errors import TuningError
from reward_tuning.files.clean_text import lone_surrogate
from reward_tuning.inputs.condition_files import NO_CONDITION, ConditionFiles
from reward_tuning.inputs.prompts import Prompt, read_prompts
from reward_tuning.schema.cache_kinds import AUTO, cache_of
from reward_tuning.schema.values import ALLOWED_INTERVAL, is_interval

VIDEO_STRENGTH = 0.7
"""Default of the published video-to-video script, where the whole clip may change."""


@dataclass(frozen=True)
class Request:
    """Clips to draw.

    Attributes:
        checkpoint: Shipped name, folder or hub id.
        loras: Adapters that are added up, each with its scale.
        prompts: One for each clip, with the files it is conditioned on.
        strengths: Fraction of the steps to run, one for each clip.
        paths: Files of each clip.
        about: The clips.jsonl that describes the clips; None for a single file.
        previews: Also write the conditions of each clip.
        sampling: Options of the sampler.
        cost: Options of precision, device, speed and memory.
        lora_schedule: Strength of the adapters by noise level (`reward_tuning.lora.schedules`).
    """

    checkpoint: str
    loras: Sequence[tuple[Path, float]]
    prompts: Sequence[Prompt]
    strengths: Sequence[float]
    paths: Sequence[Sequence[Path]]
    about: Path | None
    previews: bool
    sampling: SamplingOptions
    cost: CostOptions
    lora_schedule: str = "constant"

    def check(self) -> None:
        """Refuse invalid values, and options that exclude each other.

        Raises:
            TuningError: Names the option, the value and what is allowed.
            GeneratorError: A strength leaves no step to run.
        """
        _check_names(self.cost)
        self._check_numbers()
        _check_together(self.cost)
        if self.lora_schedule != "constant":
            self._check_schedule()

    def _check_schedule(self) -> None:
        from reward_tuning.lora.schedules import schedule_of

        option = f"--lora-schedule {self.lora_schedule}"
        schedule_of(self.lora_schedule)
        if not self.loras:
            raise TuningError(f"{option} is for --lora, which is not given")
        if self.cost.compile:
            raise TuningError(
                f"--compile: not with {option}, which changes from step to step what runs; choose "
                "one of them"
            )

    def _check_numbers(self) -> None:
        from base_model.sampling.sample import start_step

        for option, value in (
            ("--guidance-scale", self.sampling.guidance_scale),
            ("--guidance-rescale", self.sampling.guidance_rescale),
            *(("--lora-scale", scale) for _, scale in self.loras),
            *(("--camera-speed", one.files.camera_speed or 0.0) for one in self.prompts),
        ):
            if not math.isfinite(value):
                raise TuningError(f"{option}: got {value}; allowed: finite numbers")
        interval = self.sampling.guidance_steps
        if interval is not None and not is_interval(interval):
            raise TuningError(
                f"--guidance-steps: got {interval[0]:g} {interval[1]:g}; allowed: "
                f"{ALLOWED_INTERVAL}, such as 0.2 0.9"
            )
        if interval is not None and self.sampling.guidance_scale == 1.0:
            raise TuningError(
                "--guidance-steps: --guidance-scale is 1, so nothing is guided; omit one of the two"
            )
        for strength in self.strengths:
            start_step(self.sampling.steps, strength)
        if self.cost.tile_sides is not None:
            _check_tile(*self.cost.tile_sides)


def _check_names(cost: CostOptions) -> None:
    from base_model.memory.quantise import Quantise
    from base_model.networks.attention_backend import Attention
    from reward_tuning.schema.values import Dtype

    for option, given, allowed in (
        ("--dtype", cost.dtype, get_args(Dtype)),
        ("--attention", cost.attention, get_args(Attention)),
        ("--memory", cost.memory, tuple(ALONE)),
        ("--quantise", cost.quantise, (None, *get_args(Quantise))),
    ):
        if given not in allowed:
            names = ", ".join(one for one in allowed if one)
            raise TuningError(f"{option}: got {given!r}; allowed: {names}")


def _check_together(cost: CostOptions) -> None:
    if not cost.tiled_decode:
        for option, value in (("--tile", cost.tile), ("--tile-overlap", cost.tile_overlap)):
            if value is not None:
                raise TuningError(f"{option} {value} is for --tiled-decode, which is not given")
    cache = None if cost.cache == AUTO else cache_of(cost.cache)
    if not cost.compile:
        return
    for option, given, why in (
        (
            f"--cache {cost.cache}",
            cache is not None and not cache.COMPILES,
            "which changes from step to step what runs (taylor does not)",
        ),
        (
            f"--memory {cost.memory}",
            MODES[cost.memory].blocks_rest,
            "whose weights come and go within a step",
        ),
        ("--quantise", cost.quantise is not None, "whose unpacking is not compiled"),
    ):
        if given:
            raise TuningError(f"--compile: not with {option}, {why}; choose one of them")


def _check_tile(side: int, overlap: int) -> None:
    for option, value in (("--tile", side), ("--tile-overlap", overlap)):
        if value <= 0 or value % FAMILY.space_stride:
            raise TuningError(
                f"{option}: got {value}; allowed: multiples of {FAMILY.space_stride} pixels"
            )
    if 2 * overlap > side:
        raise TuningError(
            f"--tile {side}, --tile-overlap {overlap}: the overlap must be at most half a tile"
        )


def requested_prompts(
    options: PromptOptions, negative_prompt: str, files: ConditionFiles
) -> list[Prompt]:
    """Return the prompts of the options and of the file, each with the files it is conditioned on.

    Args:
        options: The prompts as texts and as a file.
        negative_prompt: Text of the negative guidance branch; only checked.
        files: Condition files that the options name; they apply to every clip.

    Raises:
        TuningError: There is no prompt, or both the options and the file name conditions.
    """
    given = options.prompt or []
    for text in [*given, negative_prompt]:
        if wrong := lone_surrogate(text):
            raise TuningError(f"--prompt, --negative-prompt: {wrong}")
    prompts = [Prompt(text, text) for text in given]
    if options.prompts_file is not None:
        prompts += read_prompts(options.prompts_file)
    if not prompts:
        raise TuningError("no prompt; give --prompt TEXT or --prompts-file FILE")
    named = [one.text for one in prompts if one.files != NO_CONDITION]
    if named and files != NO_CONDITION:
        raise TuningError(
            f"--prompts-file {options.prompts_file} names the conditions of {named[0]!r}, and so "
            f"do the options ({files.described()}); give one of them"
        )
    return prompts if named else [replace(one, files=files) for one in prompts]


def strength_or_default(given: float | None, files: ConditionFiles) -> float:
    """Return the strength of one clip: as given, else 0.7 for a video without a mask, else 1."""
    if given is not None:
        return given
    return VIDEO_STRENGTH if files.video is not None and files.mask is None else 1.0
