"""The sides that a run ends with: the base, the tuned adapter, and other strengths of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from reward_tuning.judges.judge import Judge
from reward_tuning.lora.adapter import LoraWeights
from reward_tuning.lora.identity import adapter_sha256
from reward_tuning.lora.names import factors_by_module
from reward_tuning.progress import ProgressFn
from reward_tuning.runs.folder import RunFolder
from reward_tuning.runs.out_of_memory import measuring
from reward_tuning.runs.samples import SAMPLES, write_side_clips
from reward_tuning.schema.recipe import Recipe
from reward_tuning.schema.sections import LoraSection
from reward_tuning.tuning.evaluation import SideScores, evaluate, merged
from reward_tuning.tuning.parts import RunParts
from reward_tuning.tuning.sides import Side
from reward_tuning.tuning.sigma_tables import evaluation_sigmas


@dataclass(frozen=True)
class FinalSides:
    """The evaluation of a run's sides. Every process calls it, and they share the prompts.

    Attributes:
        recipe: Resolved.
        parts: Parts of the run.
        accelerator: Processes of the run.
        folder: The run folder, to which the main process writes the clips.
        judges: Training rewards and held-out judges.
        oracle: Also ask the embedded world's oracle.
        at_work: Context that is entered while VAE and judges work.
        progress: Called after every sampling step.
        step: Step of the adapter, by which the clips' folder is named.
    """

    recipe: Recipe
    parts: RunParts
    accelerator: Accelerator
    folder: RunFolder
    judges: Sequence[Judge]
    oracle: bool
    at_work: Callable[[], AbstractContextManager[None]]
    progress: ProgressFn
    step: int

    def evaluated(self, adapter: Mapping[str, Tensor]) -> list[Side]:
        """Evaluate the base, the adapter, and the adapter at each of `evaluation.strengths`.

        Clips are written side by side as they come. Of base and tuned the first `SAMPLES` also
        stay in memory (`SideScores.clips`).

        Raises:
            MeasuringOutOfMemory: Memory ran out on one of the processes; all raise it.
            TuningError: The disk is full.
        """
        section = self.recipe.evaluation
        everyone = len(self.parts.held_out)
        sides = [
            self._side("base", self.parts.start, 1.0, everyone),
            self._side("tuned", adapter, 1.0, everyone),
        ]
        for strength in section.strengths:
            name = f"strength {strength:g}"
            side = self._side(name, adapter, strength, section.strength_prompts)
            sides.append(replace(side, scores=SideScores(side.scores.values)))
        digest = _sha256(self.recipe.lora, adapter)
        return [
            sides[0],
            *(
                replace(side, adapter=self.folder.lora.name, adapter_sha256=digest, against=0)
                for side in sides[1:]
            ),
        ]

    def _side(
        self, name: str, adapter: Mapping[str, Tensor] | None, strength: float, prompts: int
    ) -> Side:
        recipe, section = self.recipe, self.recipe.evaluation
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        with measuring(self.accelerator):
            scores = evaluate(
                self.parts.sampler,
                adapter,
                {i: p for i, p in enumerate(self.parts.held_out[:prompts]) if i % ranks == rank},
                self.judges,
                evaluation_sigmas(recipe),
                seed=recipe.seed,
                strength=strength,
                seeds=section.seeds,
                batch_size=section.batch_size or recipe.train.batch_size,
                keep_clips=max(section.clips, SAMPLES),
                oracle=self.oracle,
                at_work=self.at_work,
                stage=f"evaluation of {name}",
                progress=self.progress,
            )
        if ranks > 1:
            scores = merged(gather_object([scores]))
        files = {}
        if self.accelerator.is_main_process:
            kept = {index: clip for index, clip in scores.clips.items() if index < section.clips}
            files = write_side_clips(self.folder, self.step, name, kept)
        shown = {index: clip for index, clip in scores.clips.items() if index < SAMPLES}
        return Side(
            name,
            SideScores(scores.values, shown),
            section.steps or recipe.sampling.steps,
            recipe.sampling.guidance_scale,
            strength=0.0 if name == "base" else strength,
            clips=files,
        )


def _sha256(lora: LoraSection, adapter: Mapping[str, Tensor]) -> str:
    factors = factors_by_module(adapter)
    state = {path: (down.cpu(), up.cpu()) for path, (down, up) in factors.items()}
    return adapter_sha256(LoraWeights(lora.rank, lora.alpha, state))
