"""Memory and operations of a fine-tuning on clips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property

from accelerate import Accelerator

from base_model.core.tokens import token_count
from reward_tuning.estimate.autocast import autocast_calls
from reward_tuning.estimate.clip_batches import ClipBatches, clip_batches
from reward_tuning.estimate.evaluation_batch import FOLLOWED_STEPS
from reward_tuning.estimate.finetune_parts import random_finetune_parts
from reward_tuning.estimate.flop_meter import Counted
from reward_tuning.estimate.live_memory import LiveMemory
from reward_tuning.estimate.phase_memory import (
    Followed,
    Measured,
    Networks,
    along,
    follow,
    largest_of_each,
    text_memory,
)
from reward_tuning.estimate.random_parts import random_generator
from reward_tuning.estimate.shapes import Shape
from reward_tuning.estimate.step_cost import META, Rows, along_blocks, metered, rows_of
from reward_tuning.estimate.step_parts import REST, TRANSFORMER, Parts
from reward_tuning.estimate.stored import HELD_OUT, SAMPLES
from reward_tuning.estimate.work import COUNTED_STEPS, StepWork, one_batch
from reward_tuning.finetune.batches import ClipBatch
from reward_tuning.finetune.held_out import measure, sample_like
from reward_tuning.finetune.parts import FinetuneParts
from reward_tuning.finetune.recipe import FinetuneRecipe
from reward_tuning.finetune.trained import exported_weights
from reward_tuning.finetune.trainer import finetune_step
from reward_tuning.progress import ProgressFn, silent
from reward_tuning.runs.training_state import initial_state

_EVERY = (REST, *TRANSFORMER)
_PASSES = ("forward", "again", "backward")
ROWS: Rows = {
    "clips encoded": (("clips",), (*_EVERY, "decoder"), _PASSES),
    "forward": (("gradient",), _EVERY, ("forward",)),
    "recomputed": (("gradient",), _EVERY, ("again",)),
    "backward": (("gradient",), _EVERY, ("backward",)),
}


class FinetuneWork:
    """What a fine-tuning holds and computes (`reward_tuning.estimate.work.Work`).

    Args:
        recipe: Resolved.
        shape: Shapes of its networks.
        progress: Called while the clips are checked.

    Raises:
        TuningError: The clips cannot be used.
    """

    def __init__(self, recipe: FinetuneRecipe, shape: Shape, progress: ProgressFn = silent) -> None:
        self._recipe, self._shape, self._progress = recipe, shape, progress
        self._counted = one_batch(recipe, autocast=None)

    @cached_property
    def clips(self) -> ClipBatches:
        """The batches of the run, which are drawn when they are first asked for."""
        channels: int | None = self._recipe.generator.channels
        if channels is None:
            few = self._shape.with_blocks(1, 0)
            channels = random_generator(self._recipe.generator, few, META).kind.channels
        return clip_batches(self._recipe, channels, self._progress)

    @property
    def notes(self) -> Sequence[str]:
        """What is assumed, and what is not counted."""
        return self.clips.notes

    @property
    def rows(self) -> int:
        """Tokens of a call of the transformer."""
        batch = self.clips.largest[0]
        clips = len(batch.clips) * batch.copies
        tokens = token_count(batch.frames, batch.height, batch.width)
        return clips * (self._shape.text[0] + tokens)

    def follow(self, *, cpu: bool) -> Followed:
        """Follow the largest batches, and the largest held-out clip."""
        held_out = self.clips.held_out[-1] if self.clips.held_out else None
        found = [
            along(lambda of, batch=batch: self._follow(of, batch, held_out, cpu=cpu), self._shape)  # type: ignore[misc]
            for batch in self.clips.largest
        ]
        memory = largest_of_each([one.memory for one in found])
        text = text_memory(self._recipe.generator, self._shape, 0.0)
        return Followed({"text": text} | memory, found[0].work)

    def step(self) -> StepWork:
        """Count batches that are spread over those of the run."""
        batches = self.clips.spread(COUNTED_STEPS)
        clips = sum(len(batch.clips) * batch.copies for batch in batches)

        def count(of: Shape) -> Measured:
            total: Counter[Counted] = Counter()
            for batch in batches:
                total.update(self._metered(of, batch))
            return total

        every = along_blocks(count, self._shape)
        train = self._recipe.train
        total = sum(every.values()) / len(batches) * train.gradient_accumulation
        rows = rows_of({what: number / clips for what, number in every.items()}, ROWS)
        return StepWork(total, rows)

    def evaluation(self, seen: Followed, gpus: int) -> float:
        """Return the operations of all measurements, which the main process makes alone."""
        del gpus
        train, samples, clips = self._recipe.train, self._recipe.samples, self.clips.held_out
        between = train.steps // train.sample_every if train.sample_every else 0
        sampled = seen.operations(SAMPLES, TRANSFORMER) / FOLLOWED_STEPS * samples.steps
        sampled += seen.operations_but(SAMPLES, TRANSFORMER)
        measured = seen.operations_but(HELD_OUT, ())
        once = measured * len(clips) + sampled * min(samples.count, len(clips))
        return once * (2 + between)

    def _parts(self, of: Shape, batch: ClipBatch, held_out: ClipBatch | None) -> FinetuneParts:
        return random_finetune_parts(self._counted, of, META, batch, held_out)

    def _follow(
        self, of: Shape, batch: ClipBatch, held_out: ClipBatch | None, *, cpu: bool
    ) -> Measured:
        where, recipe = Parts(), self._counted
        parts = self._parts(of, batch, held_out)
        state = initial_state(recipe.train, parts.trained, [])
        networks = Networks(
            parts.generator,
            [],
            parts.trained,
            state,
            frozen_base=recipe.lora is not None,
            waiting=self._recipe.train.gradient_accumulation > 1,
        )

        def body(memory: LiveMemory) -> None:
            del memory
            with autocast_calls(where, parts.generator, self._recipe.train.autocast):
                finetune_step(recipe, parts, state, Accelerator(cpu=True), where.on_progress)
                if held_out is None:
                    return
                for one in parts.trained.parameters:
                    one.grad = None
                where.go(REST, HELD_OUT)
                with exported_weights(parts.trained, state):
                    measure(recipe, parts)
                    where.go(REST, SAMPLES)
                    sample_one(recipe, parts, held_out)
                where.go(REST, REST)

        return follow(networks, where, body, cpu=cpu)

    def _metered(self, of: Shape, batch: ClipBatch) -> Mapping[Counted, int]:
        recipe, parts = self._counted, self._parts(of, batch, None)
        state, accelerator = initial_state(recipe.train, parts.trained, []), Accelerator(cpu=True)
        return metered(
            parts.generator, [], lambda tell: finetune_step(recipe, parts, state, accelerator, tell)
        )


def sample_one(recipe: FinetuneRecipe, parts: FinetuneParts, held_out: ClipBatch) -> None:
    """Sample a clip like a held-out one, with few steps."""
    assert parts.held_out_encoder is not None
    few = recipe.samples.model_copy(update={"steps": FOLLOWED_STEPS})
    sample_like(
        recipe.model_copy(update={"samples": few}), parts.held_out_encoder, held_out, seed=0
    )
