"""Train the embedded judge of noisy latents on what the generator's transformer was trained on.

The latents are those of the transformer's own cache, noised to every level its sampler visits. A
latent clip shows all five attributes: motion is a difference between its three latents.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from base_model.tiny.captions import draw_caption
from base_model.tiny.pretraining import TinyPretraining
from base_model.tiny.scenes import ATTRIBUTES, Scene
from base_model.training.flow_matching import draw_sigmas
from base_model.training.loop import python_random
from reward_tuning.errors import TuningError
from reward_tuning.pretrain.judge_clip import Student, contrastive_loss
from reward_tuning.pretrain.judge_configs import (
    LATENT_CLIP,
    MERGES_FILE,
    JudgeRun,
    save_judge,
    seed_weights,
    small_tokenizer,
)
from rewards.clip_towers.tower import unit_length
from rewards.networks.latent_tower import build_latent_model

BATCH = 64

MU = 0.0
"""Shift of the noise levels: none. -1 gave sigma 0.8 up to 10 points less and low noise no more."""

HEAD_WEIGHTS = dict.fromkeys(ATTRIBUTES, 0.3) | {"shape": 2.0}
"""Of each attribute's cross-entropy. With equal weights shape was read in 52 % after 500 steps of
64, with these in 99 %, and everything else no worse."""

BACKWARDS = {"left": "right", "right": "left", "up": "down", "down": "up", "still": "still"}
"""What a motion is when the clip runs backwards."""


@dataclass(frozen=True)
class LatentBatch:
    """Clips, each with its caption, and then as many captions that are wrong in one word.

    Attributes:
        scenes: what the n clips show.
        latents: `(n, 16, t, h, w)`, clean.
        captions: 2 n texts.
        match: `(n, 2 n)`, 1 where a clip shows what a caption says.
    """

    scenes: list[Scene]
    latents: Tensor
    captions: list[str]
    match: Tensor


def train_latent_clip(run: JudgeRun) -> Path:
    """Contrastive training at all noise levels, with a cross-entropy on all attributes.

    Raises:
        FileNotFoundError: the run's training folder has neither cached latents nor a VAE.
        TuningError: the cache there is of a version that did not note its clips' scenes.
    """
    cache = TinyPretraining(run.training, seed=run.seed, report=run.report).latent_cache()
    if "scenes" not in cache:
        raise TuningError(
            f"{run.training / 'latents.safetensors'} does not say what its clips show: an earlier "
            "version made it. Delete it; the same command makes it again, in minutes."
        )
    tokenizer = small_tokenizer(run.out_dir, LATENT_CLIP)
    seed_weights(run)
    model = build_latent_model(LATENT_CLIP)
    student = Student(model, LATENT_CLIP["embed_dim"], tuple(ATTRIBUTES)).train()
    student.to(memory_format=torch.channels_last_3d)

    def contrast(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        batch = draw_latents(BATCH, cache, generator)
        sigma = draw_sigmas(BATCH, generator, mu=MU)
        s = sigma[:, None, None, None, None]
        noise = torch.randn(batch.latents.shape, generator=generator)
        noisy = (1 - s) * batch.latents + s * noise
        noisy = noisy.contiguous(memory_format=torch.channels_last_3d)
        # Plain products: at 32 tokens flash attention takes the text tower twice as long.
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            features = model.encode_latents(noisy, sigma).float()
            texts = model.encode_text(tokenizer(batch.captions)).float()
        scale = model.logit_scale.exp().clamp(max=50)
        logits = scale * unit_length(features) @ unit_length(texts).T
        found = batch.match.gather(1, logits.argmax(dim=1, keepdim=True)).mean()
        losses, right = student.read(features, batch.scenes)
        read = sum(HEAD_WEIGHTS[name] * loss for name, loss in losses.items())
        return contrastive_loss(logits, batch.match) + read, {"retrieved": float(found), **right}

    run.train(student, contrast)
    metadata = {
        "kind": "latent",
        "architecture": json.dumps(LATENT_CLIP),
        "tokenizer": MERGES_FILE,
    }
    return save_judge(run, model.state_dict(), metadata)


def draw_latents(
    count: int, cache: Mapping[str, Tensor], generator: torch.Generator
) -> LatentBatch:
    """Draw clips of the cache, half of them backwards, and their captions.

    Args:
        count: clips.
        cache: `latents` and `scenes` of `TinyPretraining.latent_cache`.
        generator: of every draw.
    """
    rng = python_random(generator)
    rows = torch.randint(len(cache["latents"]), (count,), generator=generator)
    latents = cache["latents"][rows]
    scenes = []
    for i, places in enumerate(cache["scenes"][rows].tolist()):
        scene = Scene.of_places(places)
        backwards = replace(scene, motion=BACKWARDS[scene.motion])
        # Latents are codes of single frames, so their order is all there is of time.
        if rng.random() < 0.5 and backwards.split == "train":
            scene, latents[i] = backwards, latents[i].flip(1)
        scenes.append(scene)
    said = [*scenes, *(one_word_off(scene, rng) for scene in scenes)]
    match = torch.tensor([[float(stated == shown) for stated in said] for shown in scenes])
    return LatentBatch(scenes, latents, [draw_caption(scene, rng) for scene in said], match)


def one_word_off(scene: Scene, rng: random.Random) -> Scene:
    """A training scene that differs in one attribute."""
    while True:
        name = rng.choice(list(ATTRIBUTES))
        word = rng.choice([w for w in ATTRIBUTES[name] if w != getattr(scene, name)])
        other = replace(scene, **{name: word})
        if other.split == "train":
            return other
