"""What a recipe of clips names, looked at, loaded and checked, cheap checks first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from base_model.core.kinds import kind_of
from base_model.generator import Generator, load_generator
from base_model.memory.quantise import require as require_quantisation
from base_model.training.input_channels import with_input_channels
from reward_tuning.errors import TuningError
from reward_tuning.files.hashes import file_sha256, text_sha256
from reward_tuning.finetune.batches import BatchOrder, BatchSizes
from reward_tuning.finetune.encoding import EMPTY, BatchEncoder
from reward_tuning.finetune.fresh import fresh_weights
from reward_tuning.finetune.metadata import ClipKind, read_metadata
from reward_tuning.finetune.pixels import ClipReader
from reward_tuning.finetune.posterior_cache import PosteriorCache
from reward_tuning.finetune.recipe import FinetuneRecipe
from reward_tuning.finetune.sections import DropoutSection
from reward_tuning.finetune.survey import Survey, UsableClip, survey
from reward_tuning.finetune.trained import trained_part
from reward_tuning.finetune.video_files import ClipInfo
from reward_tuning.inputs.text_cache import checkpoint_fingerprint
from reward_tuning.inputs.text_states import text_states
from reward_tuning.lora.init import adapter_file, check_start_in
from reward_tuning.progress import ProgressEvent, ProgressFn
from reward_tuning.runs.held_out import shared_files
from reward_tuning.runs.optimiser import require_optimiser
from reward_tuning.runs.training_state import Trained
from reward_tuning.sampling.generator_parts import (
    folder_if_here,
    generator_checkpoint,
    generator_folder,
    generator_kind,
)
from reward_tuning.seeds import derive_generator, derive_seed


@dataclass(frozen=True)
class FinetuneParts:
    """Everything a fine-tuning works with.

    Attributes:
        generator: With its adapter attached, or its transformer thawed.
        trained: What is trained of it.
        order: Batches of training.
        encoder: Of these.
        held_out: Batches of the clips that are not trained on, as many as see each once; None
            where there are none.
        held_out_encoder: Of these; nothing is dropped.
        survey: Of the training set.
        fingerprints: Hash of the checkpoint and of the list of usable clips.
    """

    generator: Generator
    trained: Trained
    order: BatchOrder
    encoder: BatchEncoder
    held_out: BatchOrder | None
    held_out_encoder: BatchEncoder | None
    survey: Survey
    fingerprints: dict[str, str]


def load_finetune_parts(
    recipe: FinetuneRecipe, device: torch.device, progress: ProgressFn
) -> FinetuneParts:
    """Load and check everything.

    Args:
        recipe: Resolved.
        device: Where the generator goes.
        progress: Told what is being loaded, and which clips are left out.

    Raises:
        TuningError: The list of clips is wrong, no clip can be used, or the LoRA to start from
            does not fit.
        GeneratorError: The generator cannot be loaded.
    """
    data = recipe.data
    if recipe.generator.quantise is not None:
        require_quantisation(recipe.generator.quantise, device)
    require_optimiser(recipe.train, device)
    check_start_in(recipe.lora, folder_if_here(recipe.generator))
    channels = recipe.generator.channels or generator_kind(recipe.generator).channels
    looked = look_at_clips(recipe, channels, progress)
    found, clips, held_out, order = looked.survey, looked.clips, looked.held_out, looked.order

    root = generator_folder(recipe.generator, text_encoder=False)
    progress(ProgressEvent("loading", phase="checkpoint hashes"))
    fingerprints = {
        "generator": "sha256:" + checkpoint_fingerprint([root / "transformer", root / "vae"]),
        "clips": _list_hash(found),
    }
    if recipe.lora is not None and recipe.lora.init is not None:
        fingerprints["lora.init"] = "sha256:" + file_sha256(adapter_file(Path(recipe.lora.init)))
    dtype = getattr(torch, recipe.generator.dtype)
    texts = [clip.row.text for clip in found.clips] + [EMPTY]
    states = text_states(
        generator_checkpoint(recipe.generator), texts, dtype=dtype, device=device, progress=progress
    )
    progress(ProgressEvent("loading", phase=f"generator {recipe.generator.checkpoint}"))
    generator = load_generator(
        generator_checkpoint(recipe.generator),
        dtype=dtype,
        device=device,
        text_encoder=False,
        memory=recipe.generator.memory,
        quantise=recipe.generator.quantise,
    )
    if recipe.generator.fresh:
        fresh_weights(generator.transformer, seed=derive_seed(recipe.seed, "fresh"))
    with_input_channels(generator.transformer, channels)
    trained = trained_part(
        generator.transformer,
        recipe.lora,
        seed=derive_seed(recipe.seed, "adapter"),
        progress=progress,
    )
    if recipe.train.gradient_checkpointing:
        generator.transformer.enable_gradient_checkpointing()
    vae_hash = f"{checkpoint_fingerprint([root / 'vae'])}/{recipe.generator.dtype}"
    cache = PosteriorCache(data.cache, vae_hash)

    def encoder(of: tuple[UsableClip, ...], dropout: DropoutSection, purpose: str) -> BatchEncoder:
        return BatchEncoder(
            generator,
            ClipReader(of, data.stride),
            states,
            cache,
            data,
            dropout,
            recipe.masks,
            derive_seed(recipe.seed, purpose),
        )

    without_any = DropoutSection(text=0.0, control=0.0, reference=0.0, zeroed=1.0)
    return FinetuneParts(
        generator,
        trained,
        order,
        encoder(clips, recipe.dropout, "encoding"),
        None if not held_out else held_out_order(recipe, held_out),
        None if not held_out else encoder(held_out, without_any, "held-out encoding"),
        found,
        fingerprints,
    )


@dataclass(frozen=True)
class LookedAt:
    """A training set, before anything is loaded.

    Attributes:
        survey: Of all of it.
        clips: That are trained on.
        held_out: That are not.
        order: Batches of training.
    """

    survey: Survey
    clips: tuple[UsableClip, ...]
    held_out: tuple[UsableClip, ...]
    order: BatchOrder


def look_at_clips(recipe: FinetuneRecipe, channels: int | None, progress: ProgressFn) -> LookedAt:
    """Look at every clip, and plan the first batch.

    Args:
        recipe: Resolved.
        channels: Input channels of the transformer that is trained, which decide whether control
            files are used; None where they are not known yet: they are not looked at then.
        progress: Told after each clip, and which are left out.

    Raises:
        TuningError: The list is wrong, no clip can be used, nothing is left to train on, every
            held-out clip is trained on, too, or one frame exceeds the budget.
    """
    data = recipe.data
    rows = read_metadata(data.metadata, data.folder)
    found = survey(
        rows,
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
        _kinds(clips),
        recipe.train.batch_size,
        batch_sizes(recipe),
        derive_seed(recipe.seed, "clips"),
    )
    order(0)  # refuses a budget that one frame exceeds
    return LookedAt(found, clips, held_out, order)


def split(
    clips: tuple[UsableClip, ...], held_out: int, seed: int
) -> tuple[tuple[UsableClip, ...], tuple[UsableClip, ...]]:
    """The clips that are trained on, and those that are not: drawn from the seed.

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
    """What shapes the batches of training have."""
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
    """Held-out clips one by one, as long as they are and of the first side."""
    data = recipe.data
    sizes = BatchSizes(
        sides=data.sides[:1],
        image_sides=(data.image_sides or data.sides)[:1],
        frames=data.frames,
        stride=data.stride,
        tokens=data.tokens,
        frame_rule=data.frame_rule,
    )
    return BatchOrder(_kinds(clips), 1, sizes, derive_seed(recipe.seed, "held-out clips"))


def _kinds(clips: tuple[UsableClip, ...]) -> list[tuple[ClipKind, ClipInfo]]:
    return [(clip.row.kind, clip.info) for clip in clips]


def _list_hash(found: Survey) -> str:
    """Of names, texts, frames and bytes: a resumed run must find what it began with."""
    lines = [
        f"{clip.row.file.name}\t{clip.row.text}\t{clip.row.control}\t{clip.info}\t"
        f"{clip.row.file.stat().st_size}"
        for clip in found.clips
    ]
    return "sha256:" + text_sha256("\n".join(lines))
