"""What `generate` is asked for, and what of it is refused before anything is loaded."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from reward_tuning.errors import TuningError
from reward_tuning.files.rows import lone_surrogate
from reward_tuning.inputs.condition_files import NOTHING, ConditionFiles
from reward_tuning.inputs.prompts import Prompt, read_prompts

if TYPE_CHECKING:
    from base_model.memory.modes import Memory
    from base_model.memory.quantise import Quantise
    from base_model.networks.attention_backend import Attention

FROM_VIDEO = 0.7  # the published script's strength where the whole video may change
LATENT = 8  # pixels of a latent's side


@dataclass(frozen=True)
class Request:
    """Clips to be drawn.

    Attributes:
        checkpoint: A shipped name, a folder or a hub id.
        prompts: With the files that each clip follows.
        strengths: One a prompt: share of the steps that is run.
        paths: One list a prompt: the files of its clip.
        about: File that says what is known of each clip; None for a single clip.
        asked_size: Frames, height and width; None takes the checkpoint's own.
        steps: Euler steps.
        guidance_scale: 1 = no guidance.
        guidance_rescale: 0 = off.
        negative_prompt: Of the negative guidance branch.
        seed: Of the first clip's noise.
        loras: Adapters that count together, each with its scale; 0 = as without.
        previews: Write what was asked beside each clip.
        dtype: Of the weights.
        device: None takes the GPU where there is one.
        attention: Backend of the attention.
        cache: Threshold of the first-block cache; None = every block of every step.
        compile: The transformer by torch.compile.
        tile: Side and overlap, in pixels, of the tiles that are decoded; None in one piece.
        memory: Where the base lies (`base_model.memory.modes`).
        quantise: How the transformer's blocks are stored; None as `dtype`.
    """

    checkpoint: str
    prompts: Sequence[Prompt]
    strengths: Sequence[float]
    paths: Sequence[Sequence[Path]]
    about: Path | None
    asked_size: tuple[int | None, int | None, int | None]
    steps: int
    guidance_scale: float
    guidance_rescale: float
    negative_prompt: str
    seed: int
    loras: Sequence[tuple[Path, float]]
    previews: bool
    dtype: str
    device: str | None
    attention: "Attention"
    cache: float | None
    compile: bool
    tile: tuple[int, int] | None
    memory: "Memory"
    quantise: "Quantise | None"

    def check(self) -> None:
        """Refuse values that are none, and options that do not go together.

        Raises:
            TuningError: Names the option, the value and what is allowed.
            GeneratorError: A strength that leaves no step.
        """
        self._check_names()
        self._check_numbers()
        self._check_together()

    def _check_names(self) -> None:
        from base_model.memory.modes import Memory
        from base_model.memory.quantise import Quantise
        from base_model.networks.attention_backend import Attention
        from reward_tuning.schema.values import Dtype

        for option, given, allowed in (
            ("--dtype", self.dtype, get_args(Dtype)),
            ("--attention", self.attention, get_args(Attention)),
            ("--memory", self.memory, get_args(Memory)),
            ("--quantise", self.quantise, (None, *get_args(Quantise))),
        ):
            if given not in allowed:
                names = ", ".join(one for one in allowed if one)
                raise TuningError(f"{option}: got {given!r}; allowed: {names}")

    def _check_numbers(self) -> None:
        from base_model.sampling.sample import start_step

        for option, value in (
            ("--guidance-scale", self.guidance_scale),
            ("--guidance-rescale", self.guidance_rescale),
            *(("--lora-scale", scale) for _, scale in self.loras),
            *(("--camera-speed", one.files.camera_speed or 0.0) for one in self.prompts),
        ):
            if not math.isfinite(value):
                raise TuningError(f"{option}: got {value}; wanted a finite number")
        if self.cache is not None and not 0.0 < self.cache < math.inf:
            raise TuningError(
                f"--cache: got {self.cache:g}; allowed: above 0 (0.05 to 0.2 are usual), or leave "
                "it out"
            )
        for strength in self.strengths:
            start_step(self.steps, strength)
        if self.tile is not None:
            _check_tile(*self.tile)

    def _check_together(self) -> None:
        if not self.compile:
            return
        for option, given, why in (
            ("--cache", self.cache is not None, "which changes from step to step what runs"),
            (
                "--memory block-offload",
                self.memory == "block-offload",
                "whose weights come and go within a step",
            ),
            ("--quantise", self.quantise is not None, "whose unpacking is not compiled"),
        ):
            if given:
                raise TuningError(f"--compile: not with {option}, {why}; choose one of them")


def _check_tile(side: int, overlap: int) -> None:
    for option, value in (("--tile", side), ("--tile-overlap", overlap)):
        if value <= 0 or value % LATENT:
            raise TuningError(f"{option}: got {value}; allowed: multiples of {LATENT} pixels")
    if 2 * overlap > side:
        raise TuningError(
            f"--tile {side}, --tile-overlap {overlap}: the overlap must be at most half a tile"
        )


def asked_prompts(
    given: Sequence[str], negative: str, file: Path | None, files: ConditionFiles
) -> list[Prompt]:
    """The prompts of the options and of the file, each with the files that its clip follows.

    Raises:
        TuningError: There is none, or the options and the file both say what clips follow.
    """
    for text in [*given, negative]:
        if wrong := lone_surrogate(text):
            raise TuningError(f"--prompt, --negative-prompt: {wrong}")
    prompts = [Prompt(text, text) for text in given]
    if file is not None:
        prompts += read_prompts(file)
    if not prompts:
        raise TuningError("no prompt; give --prompt TEXT or --prompts-file FILE")
    named = [one.text for one in prompts if one.files != NOTHING]
    if named and files != NOTHING:
        raise TuningError(
            f"--prompts-file {file} says what the clip of {named[0]!r} follows, and so do the "
            f"options ({files.told()}); give one of them"
        )
    return prompts if named else [replace(one, files=files) for one in prompts]


def asked_strength(given: float | None, files: ConditionFiles) -> float:
    """Of one clip: as given, else the published script's for a video without a mask."""
    if given is not None:
        return given
    return FROM_VIDEO if files.video is not None and files.mask is None else 1.0
