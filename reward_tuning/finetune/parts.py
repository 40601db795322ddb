"""Load everything that a fine-tuning recipe names, after the checks that load nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from base_model.generator import Generator, load_generator
from base_model.training.input_channels import with_input_channels
from reward_tuning.files.hashes import file_sha256
from reward_tuning.finetune.batches import BatchOrder
from reward_tuning.finetune.encoding import EMPTY, BatchEncoder
from reward_tuning.finetune.fresh import fresh_weights
from reward_tuning.finetune.pixels import ClipReader
from reward_tuning.finetune.posterior_cache import PosteriorCache
from reward_tuning.finetune.preflight import check_finetune
from reward_tuning.finetune.recipe import FinetuneRecipe
from reward_tuning.finetune.sections import DropoutSection
from reward_tuning.finetune.survey import Survey, UsableClip
from reward_tuning.finetune.trained import trained_part
from reward_tuning.finetune.training_set import TrainingSet, held_out_order
from reward_tuning.inputs.text_cache import checkpoint_fingerprint
from reward_tuning.inputs.text_states import text_states
from reward_tuning.lora.frozen import frozen_adapter, frozen_sha256
from reward_tuning.lora.init import adapter_file
from reward_tuning.progress import ProgressEvent, ProgressFn
from reward_tuning.runs.training_state import Trained
from reward_tuning.sampling.devices import placed
from reward_tuning.sampling.generator_parts import generator_checkpoint, generator_folder, vae_dtype
from reward_tuning.seeds import derive_seed


@dataclass(frozen=True)
class FinetuneParts:
    """Everything a fine-tuning works with.

    Attributes:
        generator: The generator, with its adapter attached or its transformer thawed.
        trained: The part of it that is trained.
        order: Batches of training.
        encoder: Encodes the batches of training.
        held_out: Batches of the held-out clips, an epoch of which sees each clip once; None for
            none.
        held_out_encoder: Encodes the held-out batches; nothing is dropped.
        survey: All files of the training set.
        fingerprints: Hashes of the checkpoint and of the list of usable clips.
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
    """Load everything, the cheap and the likely to fail first.

    Args:
        recipe: The resolved recipe.
        device: Device of the generator.
        progress: Receives what is being loaded, and which clips are skipped.

    Raises:
        TuningError: Everything that `check_finetune` finds, in one message.
        GeneratorError: The generator cannot be loaded.
    """
    found = check_finetune(recipe, device, progress, fetch=True)
    found.refuse()
    training_set, channels = found.training_set, found.channels
    assert training_set is not None
    assert channels is not None

    root = generator_folder(recipe.generator, text_encoder=False)
    progress(ProgressEvent("loading", phase="checkpoint hashes"))
    fingerprints = fingerprints_of(recipe, root, training_set)
    # Before the generator, so that it and the text encoder are never in memory together.
    states = text_states(
        generator_checkpoint(recipe.generator),
        [clip.row.text for clip in training_set.survey.clips] + [EMPTY],
        dtype=getattr(torch, recipe.generator.dtype),
        device=placed(recipe.generator.text_encoder_device, device),
        progress=progress,
    )
    progress(ProgressEvent("loading", phase=f"generator {recipe.generator.checkpoint}"))
    generator = load_generator(
        generator_checkpoint(recipe.generator),
        dtype=getattr(torch, recipe.generator.dtype),
        vae_dtype=vae_dtype(recipe.generator),
        device=device,
        text_encoder=False,
        memory=recipe.generator.memory,
        quantise=recipe.generator.quantise,
    )
    # The order matters: fresh weights have the checkpoint's channels, new channels start at zero,
    # and an adapter is attached to modules that stay.
    if recipe.generator.fresh:
        fresh_weights(generator.transformer, seed=derive_seed(recipe.seed, "fresh"))
    with_input_channels(generator.transformer, channels)
    frozen_adapter(generator, recipe.generator, progress)
    trained = trained_part(
        generator.transformer,
        recipe.lora,
        seed=derive_seed(recipe.seed, "adapter"),
        progress=progress,
    )
    if recipe.train.gradient_checkpointing:
        generator.transformer.enable_gradient_checkpointing()
    # Half precision rounds, so posteriors of another dtype are other posteriors.
    vae_hash = f"{checkpoint_fingerprint([root / 'vae'])}/{recipe.generator.dtype}"
    cache = PosteriorCache(recipe.data.cache, vae_hash)

    def encoder(of: tuple[UsableClip, ...], dropout: DropoutSection, purpose: str) -> BatchEncoder:
        return BatchEncoder(
            generator,
            ClipReader(of, recipe.data.stride),
            states,
            cache,
            recipe.data,
            dropout,
            recipe.masks,
            derive_seed(recipe.seed, purpose),
        )

    held_out = training_set.held_out
    nothing_dropped = DropoutSection(text=0.0, control=0.0, reference=0.0, zeroed=1.0)
    return FinetuneParts(
        generator,
        trained,
        training_set.order,
        encoder(training_set.clips, recipe.dropout, "encoding"),
        held_out_order(recipe, held_out) if held_out else None,
        encoder(held_out, nothing_dropped, "held-out encoding") if held_out else None,
        training_set.survey,
        fingerprints,
    )


def fingerprints_of(
    recipe: FinetuneRecipe, root: Path, training_set: TrainingSet
) -> dict[str, str]:
    """Hash everything that a resumed run must find unchanged.

    Args:
        recipe: The resolved recipe.
        root: Folder of the generator.
        training_set: Its clips.
    """
    found = {
        "generator": "sha256:" + checkpoint_fingerprint([root / "transformer", root / "vae"]),
        "clips": training_set.fingerprint(),
    }
    if recipe.generator.adapter is not None:
        found["generator.adapter"] = "sha256:" + frozen_sha256(recipe.generator)
    if recipe.lora is not None and recipe.lora.init is not None:
        found["lora.init"] = "sha256:" + file_sha256(adapter_file(Path(recipe.lora.init)))
    return found
