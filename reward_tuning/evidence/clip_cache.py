"""Sampled clips on the disk, named by a hash of everything that decides them.

`cache/clips/KEY.safetensors` holds the latents of one clip, so another judge or strength does not
sample the others again. A file is written whole or not at all; a damaged one is sampled again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from reward_tuning.files.atomic_write import ANOTHER_PLACE, atomic_write
from reward_tuning.files.hashes import tensor_sha256, text_sha256
from reward_tuning.progress import ProgressEvent, ProgressFn, silent

SAMPLER_VERSION = 1
"""Counts the changes of the sampler that change clips; clips of another one are not reused."""
CORRECTIONS = ("rotary tables", "text stream")
"""What `base_model.networks.corrections` corrects in every generator that is loaded."""


@dataclass(frozen=True)
class ClipFacts:
    """Everything that decides a clip.

    Attributes:
        generator: Fingerprint of transformer and VAE.
        text_encoder: Fingerprint of text encoder and tokenizer.
        adapter: Hash of the adapter (`adapter_sha256`); None for the base.
        strength: Factor of its effect; 0 for the base.
        prompt: Text that the generator gets.
        conditions: Hash of the files and words besides the text; None for none.
        kept_pixels: Seed of the noise on kept pixels; None without conditions.
        noise_seed: Seed of the initial noise.
        steps: Euler steps of the whole table.
        video_strength: Share of the steps that run.
        guidance_scale: Classifier-free guidance; 1 = none.
        guidance_rescale: CFG rescale.
        negative_prompt: Text of the negative branch.
        size: Frames, height and width.
        dtype: Type of the weights.
        quantise: How the weights are stored; None for as they are.
        sampler: `SAMPLER_VERSION`.
        corrections: `CORRECTIONS`.
        guidance_steps: Interval of sigma with guidance; None for all noise levels.
        cache: Cache of steps (`cache_identity`); None for none.
    """

    generator: str
    text_encoder: str
    adapter: str | None
    strength: float
    prompt: str
    conditions: str | None
    kept_pixels: int | None
    noise_seed: int
    steps: int
    video_strength: float
    guidance_scale: float
    guidance_rescale: float
    negative_prompt: str
    size: tuple[int, int, int]
    dtype: str
    quantise: str | None
    sampler: int = SAMPLER_VERSION
    corrections: tuple[str, ...] = CORRECTIONS
    guidance_steps: tuple[float, float] | None = None
    cache: str | None = None

    @property
    def key(self) -> str:
        """Name of the clip: 64 hexadecimal digits."""
        facts = asdict(self)
        for added in ("guidance_steps", "cache"):  # so that clips from before the key are found
            if facts[added] is None:
                del facts[added]
        return text_sha256(json.dumps(facts, sort_keys=True))


class ClipCache:
    """The latents of sampled clips.

    Args:
        folder: Folder of the files, created on the first write.
        progress: Receives a note on each damaged file.
    """

    def __init__(self, folder: Path, progress: ProgressFn = silent) -> None:
        self.folder = folder
        self._progress = progress

    def path(self, key: str) -> Path:
        """Return the file of a clip."""
        return self.folder / f"{key}.safetensors"

    def read(self, key: str) -> Tensor | None:
        """Return the latents `(16, t, h/8, w/8)` of a clip; None if there are none, or no whole."""
        path = self.path(key)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                latents: Tensor = file.get_tensor("latents")
        except (SafetensorError, OSError) as error:
            problem = str(error)
        else:
            if about.get("sha256") == tensor_sha256(latents) and about.get("clip") == key:
                return latents
            problem = "its content does not fit its checksum"
        note = f"clip cache: {path} is damaged ({problem}); sampling that clip again"
        self._progress(ProgressEvent("clip cache", note=note))
        return None

    def write(self, key: str, facts: ClipFacts, latents: Tensor) -> None:
        """Write the latents of a clip, whole or not at all.

        Raises:
            TuningError: The disk is full.
        """
        content = latents.detach().to("cpu", torch.float32, copy=True).contiguous()
        about: Mapping[str, str] = {
            "clip": key,
            "sha256": tensor_sha256(content),
            "about": json.dumps(asdict(facts), ensure_ascii=True),
        }
        data = safetensors.torch.save({"latents": content}, metadata=dict(about))
        atomic_write(self.path(key), data, advice=KEPT)


KEPT = f"{ANOTHER_PLACE} with --output; the same command then continues where it stopped"
