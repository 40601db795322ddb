"""What a user asks of an evaluation, and what follows from it: judges, prompts, sampling, sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from base_model.memory.modes import Memory
from reward_tuning.inputs.prompts import Prompt
from reward_tuning.schema.cache_kinds import CacheSection
from reward_tuning.schema.judge_parts import JudgeSection
from reward_tuning.schema.sections import GeneratorSection, SamplingSection
from reward_tuning.schema.values import Dtype


@dataclass(frozen=True)
class EvaluationRequest:
    """What is evaluated, and how; None and empty lists mean the defaults of the first run.

    Attributes:
        sources: Run folders, LoRA files and LoRA folders.
        strengths: Factors of each adapter's effect; 0 is the base, which is always evaluated.
        checkpoints: Also the kept checkpoints of each run.
        prompts: Prompt file; None = the held-out prompts of the first run.
        count: Prompts to evaluate on, from the first on; None = as many as the first run did, or
            all of `prompts`.
        judges: Resolved judges; None = the training and held-out judges of the runs.
        primary: The metric that decides.
        steps: Numbers of Euler steps; the first run's is the main one if it is among them, else the
            first of them is.
        guidance: Guidance scales, likewise.
        guidance_steps: Interval of sigma with guidance, of every side.
        cache: Cache of steps, of every side, as `cache_of` reads it; None = as the first run.
        seeds: Clips for each prompt and side.
        seed: Seed of all noise.
        checkpoint: Generator; needed where no source is inside a run folder.
        clips: Clips of each side that are written as videos, of the first prompts.
        sharpness: Measure the sharpness of the judges that are trained on.
        batch_size: Clips at a time.
        dtype: Precision of the generator.
        memory: Where its weights are.
        vbench_folder: Folder for clips under VBench's names.
    """

    sources: Sequence[Path]
    strengths: Sequence[float] = (1.0,)
    checkpoints: bool = False
    prompts: str | None = None
    count: int | None = None
    judges: Sequence[JudgeSection] | None = None
    primary: str | None = None
    steps: Sequence[int] = ()
    guidance: Sequence[float] = ()
    guidance_steps: tuple[float, float] | None = None
    cache: str | None = None
    seeds: int | None = None
    seed: int | None = None
    checkpoint: str | None = None
    clips: int = 8
    sharpness: bool = True
    batch_size: int | None = None
    dtype: Dtype | None = None
    memory: Memory | None = None
    vbench_folder: Path | None = None


@dataclass(frozen=True)
class Setup:
    """Everything that all sides of an evaluation have in common.

    Attributes:
        generator: The base.
        sampling: Size, negative prompt, rescale and interval of guidance of the clips; its steps
            and guidance scale are the main ones.
        prompts: Prompts, in order.
        judges: Judges of frames or latents.
        trained_on: Labels of the judges that a run among the sources was trained on.
        never_trained_on: Labels of the others.
        primary: The metric that decides; None without a judge.
        seed: Seed of all noise.
        seeds: Clips for each prompt and side.
        steps: All numbers of steps, the main one first.
        guidance: All guidance scales, the main one first.
        batch_size: Clips at a time.
        cache: Cache of steps; None = each in full.
        notes: Remarks for the user.
    """

    generator: GeneratorSection
    sampling: SamplingSection
    prompts: Sequence[Prompt]
    judges: Sequence[JudgeSection]
    trained_on: Sequence[str]
    never_trained_on: Sequence[str]
    primary: str | None
    seed: int
    seeds: int
    steps: Sequence[int]
    guidance: Sequence[float]
    batch_size: int
    cache: CacheSection | None = None
    notes: Sequence[str] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int, int]:
        """Frames, height and width of a clip."""
        return self.sampling.frames, self.sampling.height, self.sampling.width
