"""A small evaluation during training: the same prompts and noise each time, without side effects.

It draws nothing from the global random generators that the training would notice, and leaves no
gradient, so a training with it makes the same steps as one without.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import fmean

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from base_model.memory.sharded import whole_blocks
from reward_tuning.inputs.prompts import Prompt
from reward_tuning.progress import ProgressFn
from reward_tuning.runs.checkpoints import rng_state, set_rng_state
from reward_tuning.runs.out_of_memory import measuring
from reward_tuning.schema.recipe import Recipe
from reward_tuning.seeds import derive_seed
from reward_tuning.tuning.clip_features import clip_features, feature_distance, feature_judge
from reward_tuning.tuning.clip_measures import diversity as pixel_distance
from reward_tuning.tuning.drift import mean_drift, velocity_drift
from reward_tuning.tuning.evaluation import SideScores, evaluate, merged
from reward_tuning.tuning.held_out_judges import held_out_judges
from reward_tuning.tuning.parts import RunParts
from reward_tuning.tuning.sigma_tables import guard_sigmas

PIXELS = "pixels"
STAGE = "guards"


@dataclass(frozen=True)
class GuardScores:
    """What a guard evaluation finds, alike on every process.

    Attributes:
        values: Metric to one value a prompt, the mean over its clips: held-out judges, and the
            measures of any clip.
        diversity: Distance of the two clips of each prompt that has two.
        latents: Ends of the first clips by prompt index, `(16, t, h/8, w/8)` on the CPU; only where
            they were asked for.
        drift: Mean relative distance of the velocity to the base's; None where it is not measured.
        diversity_of: Label of the judge whose image features the diversity compares, or `pixels`.
    """

    values: dict[str, list[float]]
    diversity: list[float]
    latents: dict[int, Tensor] = field(default_factory=dict)
    drift: float | None = None
    diversity_of: str = PIXELS


@dataclass(frozen=True)
class _Share:
    """What one process finds: its scores, looks and ends by index, and whose looks they are."""

    scores: SideScores
    shown: dict[int, Tensor]
    ends: dict[int, Tensor]
    seer: str | None


def guard_prompts(recipe: Recipe, held_out: Sequence[Prompt]) -> list[Prompt]:
    """Return the prompts of the guards, spread evenly over those of the evaluation."""
    count = min(recipe.guards.prompts, len(held_out))
    return [held_out[i * len(held_out) // count] for i in range(count)]


@dataclass(frozen=True)
class GuardEvaluation:
    """The guard evaluations of a run. Every process calls them, and they share the prompts.

    Attributes:
        recipe: Resolved.
        parts: Parts of the run.
        accelerator: Processes of the run.
        progress: Called after every sampling step.
    """

    recipe: Recipe
    parts: RunParts
    accelerator: Accelerator
    progress: ProgressFn

    @property
    def prompts(self) -> list[Prompt]:
        """The prompts that are evaluated."""
        return guard_prompts(self.recipe, self.parts.held_out)

    def base(self) -> GuardScores:
        """Evaluate the side that training started from, and keep its clips for the drift.

        Raises:
            MeasuringOutOfMemory: Memory ran out on one of the processes; all raise it, unless it
                ran out for shared weights.
        """
        drifting = self.recipe.guards.drift
        clips = 0 if drifting.action == "off" else min(drifting.prompts, len(self.prompts))
        with self._measuring():
            return self._scores(self.parts.start, keep=clips, stage=f"{STAGE}: base")

    def now(self, adapter: Mapping[str, Tensor], base: GuardScores) -> GuardScores:
        """Evaluate an adapter.

        Args:
            adapter: Tensors as they would be exported.
            base: What `base` found.

        Raises:
            MeasuringOutOfMemory: As in `base`.
        """
        with self._measuring():
            found = self._scores(adapter, keep=0, stage=STAGE)
            return replace(found, drift=self._drift(adapter, base))

    @contextmanager
    def _measuring(self) -> Iterator[None]:
        """Keep the weights whole and the global generators as they are.

        Raises:
            MeasuringOutOfMemory: Memory ran out, also for the whole weights. That is of this
                process alone: the exchange that gathers them has failed, and no other would end.
        """
        with undisturbed(), measuring(), whole_blocks(self.parts.sampler.generator.transformer):
            yield

    def _scores(
        self, adapter: Mapping[str, Tensor] | None, *, keep: int, stage: str
    ) -> GuardScores:
        recipe, prompts = self.recipe, self.prompts
        count, twice = len(prompts), 0
        if recipe.guards.diversity.action != "off":
            twice = min(recipe.guards.diversity.prompts, count)
        # A second clip is a prompt of another index, which decides its noise.
        wanted = {**dict(enumerate(prompts)), **{count + i: prompts[i] for i in range(twice)}}
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        mine = {
            index: one for place, (index, one) in enumerate(wanted.items()) if place % ranks == rank
        }
        with measuring(self.accelerator):
            share = self._share(adapter, mine, keep=keep, twice=twice, stage=stage)
        parts = gather_object([share]) if ranks > 1 else [share]
        scores = merged([part.scores for part in parts])
        shown = {index: look for part in parts for index, look in part.shown.items()}
        ends = {index: end for part in parts for index, end in part.ends.items()}
        values = {
            name: [fmean([of[i], of[count + i]] if i < twice else [of[i]]) for i in range(count)]
            for name, of in scores.values.items()
        }
        distance = pixel_distance if share.seer is None else feature_distance
        return GuardScores(
            values,
            [distance([shown[i], shown[count + i]]) for i in range(twice)],
            {index: ends[index] for index in sorted(ends)},
            diversity_of=PIXELS if share.seer is None else share.seer,
        )

    def _share(
        self,
        adapter: Mapping[str, Tensor] | None,
        prompts: Mapping[int, Prompt],
        *,
        keep: int,
        twice: int,
        stage: str,
    ) -> _Share:
        """Draw and measure this process's clips, without an exchange with others."""
        recipe, count = self.recipe, len(self.prompts)
        judges, offload = held_out_judges(recipe, self.parts.offload, self.accelerator.device)
        # A held-out one first: features of a judge that is trained on are fooled with it.
        seer = feature_judge([*judges, *self.parts.judges])
        shown: dict[int, Tensor] = {}
        ends: dict[int, Tensor] = {}

        def seen(indices: Sequence[int], latents: Tensor, frames: Tensor) -> None:
            paired = [i for i, index in enumerate(indices) if index % count < twice]
            if paired and twice:
                chosen = frames[paired]
                looks = chosen.float().cpu() if seer is None else clip_features(seer, chosen)
                shown.update(zip([indices[i] for i in paired], looks, strict=True))
            for index, end in zip(indices, latents, strict=True):
                if index < keep:
                    ends[index] = end.cpu()

        scores = evaluate(
            self.parts.sampler,
            adapter,
            prompts,
            judges,
            guard_sigmas(recipe),
            seed=derive_seed(recipe.seed, "guards"),
            batch_size=recipe.evaluation.batch_size or recipe.train.batch_size,
            at_work=offload.at_work,
            seen=seen,
            stage=stage,
            progress=self.progress,
        )
        return _Share(scores, shown, ends, None if seer is None else seer.label)

    def _drift(self, adapter: Mapping[str, Tensor], base: GuardScores) -> float | None:
        recipe = self.recipe
        if recipe.guards.drift.action == "off":
            return None
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        with measuring(self.accelerator):
            found = velocity_drift(
                self.parts.sampler,
                adapter,
                self.parts.start,
                {i: clip for i, clip in base.latents.items() if i % ranks == rank},
                dict(enumerate(self.prompts)),
                seed=derive_seed(recipe.seed, "guards"),
                batch_size=recipe.evaluation.batch_size or recipe.train.batch_size,
            )
        return mean_drift(gather_object([found]) if ranks > 1 else [found])


@contextmanager
def undisturbed() -> Iterator[None]:
    """Restore the global random generators afterwards: loading a judge draws from them."""
    state = rng_state()
    try:
        yield
    finally:
        set_rng_state(state)
