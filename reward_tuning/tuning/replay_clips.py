"""The latents of a replay: sampled by the base or encoded from files, once, into the run folder.

A resumed run reads them back, and refuses a file that is damaged or has another origin.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors import SafetensorError, safe_open
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.files.atomic_write import atomic_write
from reward_tuning.files.hashes import file_sha256, tensor_sha256, text_sha256
from reward_tuning.inputs.condition_files import NO_CONDITION
from reward_tuning.inputs.run_conditions import conditions_hash
from reward_tuning.lora.adapter import scaled
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.schema.cache_kinds import cache_identity
from reward_tuning.schema.recipe import Recipe
from reward_tuning.seeds import derive_seed
from reward_tuning.tuning.replay import ReplayClips
from reward_tuning.tuning.replay_sources import ReplaySource, read_fitting
from reward_tuning.tuning.sigma_tables import evaluation_sigmas

STAGE = "replay clips"
METADATA_KEY = "about"  # the one entry of the file's metadata


def replay_clips(
    recipe: Recipe,
    sampler: ClipSampler,
    sources: Sequence[ReplaySource],
    *,
    generator_hash: str,
    file: Path,
    accelerator: Accelerator,
    decoding: Callable[[], AbstractContextManager[None]] = nullcontext,
    progress: ProgressFn = silent,
) -> tuple[ReplayClips, str]:
    """Make the latents of a replay, or read them back; the processes share the work.

    Args:
        recipe: Resolved.
        sampler: Sampler with the text states of every source's prompt; its adapter is disabled.
        sources: At least one; all are prompts for the base, or all are files.
        generator_hash: Hash of the weights.
        file: File of the latents in the run folder.
        accelerator: Accelerator of the run.
        decoding: Context that is entered while the VAE works.
        progress: Called after every sampling step, and after every clip.

    Returns:
        The clips, and the hash of their latents.

    Raises:
        TuningError: The file is damaged or has another origin, a clip has the wrong size, or the
            disk is full.
    """
    prompts = tuple(source.asked for source in sources)
    sigmas = evaluation_sigmas(recipe)
    made_of = origin(recipe, sources, sigmas, generator_hash)
    # Every process looks before the main one writes: `gather_object` below makes it wait.
    if file.exists():
        latents = read_kept(file, made_of)
        return ReplayClips(prompts, latents), latents_hash(latents)
    size = recipe.evaluation.batch_size or recipe.train.batch_size
    batches = [range(i, min(i + size, len(sources))) for i in range(0, len(sources), size)]
    own: dict[int, Tensor] = {}
    for number in range(accelerator.process_index, len(batches), accelerator.num_processes):
        batch = batches[number]
        if sources[0].video is None:

            def report_step(step: int, done: int = batch.start) -> None:
                phase = f"step {step + 1} of {len(sigmas) - 1}"
                progress(ProgressEvent(STAGE, done, len(sources), phase))

            seeds = [derive_seed(recipe.seed, "replay", "clip", i) for i in batch]
            with scaled(sampler.generator.transformer, 0.0):
                made = sampler.latents([prompts[i] for i in batch], seeds, sigmas, report_step)
        else:
            with decoding():
                made = _encoded(sampler, [sources[i].video for i in batch])
            progress(ProgressEvent(STAGE, batch.stop, len(sources)))
        own[number] = made.float().cpu()
    if accelerator.num_processes > 1:
        own = {number: made for part in gather_object([own]) for number, made in part.items()}
    latents = torch.cat([own[number] for number in range(len(batches))])
    if not bool(latents.isfinite().all()):
        raise TuningError(
            "train.replay: the clips contain NaN or infinity; set generator.dtype to bfloat16 or "
            "float32 instead of float16"
        )
    progress(ProgressEvent(STAGE, len(sources), len(sources)))
    if accelerator.is_main_process:
        keep(file, latents, made_of)
    return ReplayClips(prompts, latents), latents_hash(latents)


@torch.no_grad()
def _encoded(sampler: ClipSampler, videos: Sequence[Path | None]) -> Tensor:
    """Encode one clip at a time, so that its latents do not depend on its neighbours."""
    clips = [read_fitting(video, sampler.size) for video in videos]
    return torch.cat([sampler.generator.encode(clip[None]) for clip in clips])


def origin(
    recipe: Recipe, sources: Sequence[ReplaySource], sigmas: Tensor, generator_hash: str
) -> str:
    """Hash everything that the latents depend on, including the clips' files."""
    sampling = recipe.sampling
    about: dict[str, Any] = {
        "generator": generator_hash,
        "dtype": recipe.generator.dtype,
        "size": [sampling.frames, sampling.height, sampling.width],
        "prompts": [source.prompt for source in sources],
        "videos": [file_sha256(source.video) for source in sources if source.video is not None],
    }
    if sources[0].video is None:
        about |= {
            "seed": recipe.seed,
            "sigmas": sigmas.tolist(),
            "guidance": [sampling.guidance_scale, sampling.guidance_rescale],
            "negative_prompt": sampling.negative_prompt,
        }
        if recipe.evaluation.guidance_steps is not None:
            about["guidance_steps"] = list(recipe.evaluation.guidance_steps)
        if recipe.evaluation.cache is not None:
            about["cache"] = cache_identity(recipe.evaluation.cache)
    if any(source.files != NO_CONDITION for source in sources):
        about |= {
            "conditions": [conditions_hash([source.files]) for source in sources],
            "strength": sampling.strength,
        }
    return "sha256:" + text_sha256(json.dumps(about, sort_keys=True))


def latents_hash(latents: Tensor) -> str:
    """Return the hash of the latents' bytes."""
    return "sha256:" + tensor_sha256(latents)


def keep(file: Path, latents: Tensor, made_of: str) -> None:
    """Write the latents, completely or not at all.

    Raises:
        TuningError: The disk is full.
    """
    for left in file.parent.glob(f".{file.name}.*"):  # of a run that was killed while it wrote
        left.unlink(missing_ok=True)
    about = json.dumps({"made_of": made_of, "content": latents_hash(latents)})
    # One entry: safetensors writes several in an order that differs from process to process.
    atomic_write(file, safetensors.torch.save({"latents": latents}, {METADATA_KEY: about}))


def read_kept(file: Path, made_of: str) -> Tensor:
    """Read the latents back.

    Raises:
        TuningError: They are damaged, or their origin is not that of the run.
    """
    try:
        with safe_open(file, "pt") as opened:
            about = json.loads((opened.metadata() or {})[METADATA_KEY])
            latents = opened.get_tensor("latents")
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise TuningError(_damaged(file, str(error))) from error
    if latents_hash(latents) != about.get("content"):
        raise TuningError(_damaged(file, "its content differs from its hash"))
    if about.get("made_of") != made_of:
        raise TuningError(
            f"{file} was made from other clips, prompts, weights or sampling settings than the run "
            "has now; restore the files that train.replay.source named at the start and resume, or "
            "start a new run with another output"
        )
    return latents


def _damaged(file: Path, reason: str) -> str:
    return (
        f"{file} is damaged ({reason}); delete this file and resume: the same clips are made again"
    )
