"""Compute the text states of a run's prompts once, and free the encoder before training."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from base_model.files.cache_folder import cache_folder
from base_model.files.shipped import resolve_checkpoint
from base_model.files.weight_files import read_json
from base_model.loading.checkpoint import load_text_encoder, local_folder
from base_model.networks.prompt_encoder import MAX_TOKENS, PromptEncoder
from reward_tuning.inputs.text_cache import Encode, TextCache, checkpoint_fingerprint
from reward_tuning.inputs.world_notes import world_notes
from reward_tuning.progress import ProgressEvent, ProgressFn, silent


def text_states(
    checkpoint: str,
    prompts: Iterable[str],
    *,
    dtype: torch.dtype,
    device: torch.device,
    folder: Path | None = None,
    encoder: PromptEncoder | None = None,
    progress: ProgressFn = silent,
) -> dict[str, Tensor]:
    """Return the states of prompts under a checkpoint's text encoder.

    The encoder is loaded only if a state is missing from the cache, and freed on return.

    Args:
        checkpoint: Checkpoint as a resolved recipe names it.
        prompts: Prompts; repeated ones are encoded once.
        dtype: Type of the encoder's weights and of the states.
        device: Device that computes missing states.
        folder: Folder of the cache; None for the user's.
        encoder: The checkpoint's encoder, if it is in memory already; None loads it.
        progress: Called while prompts are encoded.

    Returns:
        Prompt to states `(l, d)` on the CPU.

    Raises:
        GeneratorError: The checkpoint has no complete text encoder.
        TuningError: The cache cannot be written.
    """
    root = local_folder(resolve_checkpoint(checkpoint), text_encoder=True)
    fingerprint = checkpoint_fingerprint([root / "text_encoder", root / "tokenizer"])
    limit = read_json(root / "tokenizer" / "tokenizer_config.json").get("model_max_length")
    cache = TextCache(
        folder or cache_folder("text_states"),
        fingerprint,
        max_length=min(MAX_TOKENS, int(limit)) if limit else MAX_TOKENS,
        dtype=dtype,
    )
    unique = list(dict.fromkeys(prompts))
    for note in world_notes(checkpoint, unique):
        progress(ProgressEvent("text states", note=note))

    def encoding() -> Encode:
        progress(ProgressEvent("text states", phase="loading the text encoder"))
        load = encoder or load_text_encoder(root, dtype=dtype, device=device)
        done = 0

        def encode(batch: object) -> Tensor:
            nonlocal done
            states = load(batch)  # type: ignore[arg-type]
            done += len(states)
            progress(ProgressEvent("text states", done, max(done, missing)))
            return states

        return encode

    missing = sum(not cache.path(prompt).exists() for prompt in unique)
    return cache.encode(unique, encoding)
