"""The training set of a recipe: usable clips, those held out, and the order of the batches."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from base_model.core.kinds import kind_of
from reward_tuning.errors import TuningError
from reward_tuning.files.hashes import text_sha256
from reward_tuning.finetune.batches import BatchOrder, BatchSizes
from reward_tuning.finetune.metadata import ClipKind, read_metadata
from reward_tuning.finetune.recipe import FinetuneRecipe
from reward_tuning.finetune.survey import Survey, UsableClip, survey
from reward_tuning.finetune.video_files import ClipInfo
from reward_tuning.progress import ProgressEvent, ProgressFn
from reward_tuning.runs.held_out import shared_files
from reward_tuning.seeds import derive_generator, derive_seed


@dataclass(frozen=True)
class TrainingSet:
    """The clips of a fine-tuning, before anything is loaded.

    Attributes:
        survey: All files, usable or broken.
        clips: Clips to train on.
        held_out: Clips that are only measured.
        order: Batches of training.
    """

    survey: Survey
    clips: tuple[UsableClip, ...]
    held_out: tuple[UsableClip, ...]
    order: BatchOrder

    def fingerprint(self) -> str:
        """Hash names, captions, lengths and sizes: a resumed run must find what it began with."""
        lines = [
            f"{clip.row.file.name}\t{clip.row.text}\t{clip.row.control}\t{clip.info}\t"
            f"{clip.row.file.stat().st_size}"
            for clip in self.survey.clips
        ]
        return "sha256:" + text_sha256("\n".join(lines))


def find_training_set(
    recipe: FinetuneRecipe, channels: int | None, progress: ProgressFn
) -> TrainingSet:
    """Check every clip, and plan the first batch.

    Args:
        recipe: The resolved recipe.
        channels: Input channels of the transformer to train, which decide whether control files are
            used; None where they are not known yet, so control files are not checked.
        progress: Receives an event after each clip, and a warning about those that are skipped.

    Raises:
        TuningError: The list is wrong, no clip can be used, nothing is left to train on, every
            held-out clip is also trained on, or one frame exceeds the budget.
    """
    data = recipe.data
    found = survey(
        read_metadata(data.metadata, data.folder),
        controls=channels is not None and kind_of(channels).controlled,
        cache=data.cache,
        progress=progress,
    )
    if found.broken:
        progress(ProgressEvent("loading", note=found.warning()))
    clips, held_out = split(found.clips, data.held_out, recipe.seed)
    files = [clip.row.file for clip in held_out]
    if warning := shared_files((clip.row.file for clip in clips), files):
        progress(ProgressEvent("loading", note=warning))
    order = BatchOrder(
        kinds_and_sizes(clips),
        recipe.train.batch_size,
        batch_sizes(recipe),
        derive_seed(recipe.seed, "clips"),
    )
    order(0)  # raises where one frame exceeds the budget
    return TrainingSet(found, clips, held_out, order)


def split(
    clips: tuple[UsableClip, ...], held_out: int, seed: int
) -> tuple[tuple[UsableClip, ...], tuple[UsableClip, ...]]:
    """Return the clips to train on and the held-out ones, drawn from the seed.

    Raises:
        TuningError: Nothing would be left to train on.
    """
    if held_out >= len(clips):
        raise TuningError(
            f"data.held_out: got {held_out}; {len(clips)} clips can be used, so at most "
            f"{len(clips) - 1}"
        )
    order = torch.randperm(len(clips), generator=derive_generator(seed, "held out")).tolist()
    apart = set(order[:held_out])
    return (
        tuple(clip for i, clip in enumerate(clips) if i not in apart),
        tuple(clip for i, clip in enumerate(clips) if i in apart),
    )


def batch_sizes(recipe: FinetuneRecipe) -> BatchSizes:
    """Return the shapes that batches of training may have."""
    data = recipe.data
    return BatchSizes(
        sides=data.sides,
        image_sides=data.image_sides or data.sides,
        frames=data.frames,
        stride=data.stride,
        tokens=data.tokens,
        frame_rule=data.frame_rule,
        draw_frames=data.draw_frames,
        adapt=data.adapt_sides,
    )


def held_out_order(recipe: FinetuneRecipe, clips: tuple[UsableClip, ...]) -> BatchOrder:
    """Return the held-out clips one by one, at full length and the first side.

    Nothing about them is drawn but their start, so that two measurements see the same pixels.
    """
    seed = derive_seed(recipe.seed, "held-out clips")
    return BatchOrder(kinds_and_sizes(clips), 1, held_out_sizes(recipe), seed)


def held_out_sizes(recipe: FinetuneRecipe) -> BatchSizes:
    """Return the shapes of held-out clips: at full length, of the first side."""
    sizes = batch_sizes(recipe)
    return replace(
        sizes,
        sides=sizes.sides[:1],
        image_sides=sizes.image_sides[:1],
        draw_frames=False,
        adapt=False,
    )


def kinds_and_sizes(clips: tuple[UsableClip, ...]) -> list[tuple[ClipKind, ClipInfo]]:
    """Return what a batch order needs to know of each clip."""
    return [(clip.row.kind, clip.info) for clip in clips]
