"""The loop of EasyAnimate's published reward script, stated again in this project's words.

`scripts/train_reward_lora.py` of aigc-apps/EasyAnimate, from the noise to the optimiser's step:
what it does, in its order, and nothing better. Every sampling step runs with gradient mode on and
both guidance branches in the graph; a step that is not chosen is detached after its forward; the
graphs of the chosen steps, of the decoder and of the judge are held together until one backward.
Prompts, noise, adapter and judge are the trainer's, so that only the loop differs.

Where the script is broken and we are not, it gets what works: prompts of a batch are encoded one by
one (there they become one conversation), and latents stay float32 (there bfloat16).
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from base_model.generator import Generator
from base_model.networks.magvit import clear_caches
from reward_tuning.gradient.kept import VelocityFn
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.runs.training_state import TrainingState
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning.draws import Batch, clips_a_step, draw_batch
from reward_tuning.tuning.parts import RunParts

SETTINGS = (
    "sampling.negative=joint",
    "train.decoded=first",
    "train.weight_decay=0.03",
    "train.adam_eps=1.0e-10",
    "train.max_grad_norm=0.3",
    "train.warmup_steps=0",
    "train.ema_decay=null",
)
"""What the script's own command line says, as overrides of a recipe; of a clip the first latent is
decoded and judged (`--num_decoded_latents=1`)."""
BEST_HPS = 1.0  # the script's loss is the distance of a score from the best one there is
DECODED_LATENTS = 1


def published_latents(
    velocity: VelocityFn,
    noise: Tensor,
    sigmas: Tensor,
    active: Container[int],
    *,
    stop_input_gradient: bool = False,
) -> Tensor:
    """Sample with gradient, as the script's denoising loop.

    Args:
        velocity: Guided, both branches in the graph.
        noise: `(b, ...)`, float32.
        sigmas: `(N + 1,)`, falling from 1 to 0.
        active: Steps that receive gradient; the others run with gradient mode on all the same.
        stop_input_gradient: `--stop_latent_model_input_gradient`.

    Returns:
        x_N with the graphs of the active steps behind it.
    """
    x = noise
    for i in range(len(sigmas) - 1):
        v = velocity(x.detach() if stop_input_gradient else x, i)
        if i not in active:
            v = v.detach()
        x = x + (sigmas[i + 1] - sigmas[i]) * v
    return x


def published_frames(
    generator: Generator, latents: Tensor, decoded_latents: int = DECODED_LATENTS
) -> Tensor:
    """The first latents through the VAE as it is, no part of it recomputed later.

    Args:
        generator: With the VAE.
        latents: `(b, 16, t, h/8, w/8)`.
        decoded_latents: `--num_decoded_latents`.

    Returns:
        `(b, f, 3, H, W)` in [0, 1], f = 4 (decoded_latents - 1) + 1.
    """
    vae = generator.vae
    first = latents[:, :, :decoded_latents] / vae.config.scaling_factor
    weight = vae.post_quant_conv.weight
    try:
        video = vae.decode(first.to(weight.device, weight.dtype)).sample
    finally:
        clear_caches(vae)
    frames: Tensor = (video.clamp(-1, 1) / 2 + 0.5).clamp(0, 1).transpose(1, 2)
    return frames


def published_loss(judge: FramedJudge, frames: Tensor, prompts: Sequence[str]) -> Tensor:
    """`mean |score - best|`: the script's loss of `(b, f, 3, H, W)` and b prompts, a scalar."""
    return (judge.reward(frames, prompts) - BEST_HPS).abs().mean()


def published_gradient(
    sampler: ClipSampler, judge: FramedJudge, batch: Batch, sigmas: Tensor
) -> float:
    """One batch, forward and backward; the gradient is added to the parameters' `.grad`.

    Args:
        sampler: The generator with its adapter attached.
        judge: The only reward; sees the frames of the first latent.
        batch: Prompts, noise, and the plan whose active steps and `nested` (0 or 1) are taken.
        sigmas: `(N + 1,)`, the sampler's table.

    Returns:
        The loss.
    """
    condition = sampler.condition(batch.prompts)
    latents = published_latents(
        replace(sampler, negative="joint").velocity(condition, sigmas),
        sampler.noise(batch.noise_seeds),
        sigmas,
        batch.plan.active,
        stop_input_gradient=batch.plan.nested == 0.0,
    )
    frames = published_frames(sampler.generator, latents)
    loss = published_loss(judge, frames, [prompt.reward_text for prompt in batch.prompts])
    torch.autograd.backward(loss)
    return float(loss.detach())


def published_step(
    recipe: Recipe, parts: RunParts, state: TrainingState, accelerator: Accelerator
) -> dict[str, float]:
    """One update of the adapter, on the batch that the trainer would have drawn.

    Args:
        recipe: With `SETTINGS` and a method of kind `easyanimate`.
        parts: Of that recipe.
        state: Begun with `trainer.start`; moved on by one step.
        accelerator: Of one process.

    Returns:
        Loss and the gradient's norm before clipping.
    """
    train = recipe.train
    (judge,) = parts.judges
    assert isinstance(judge, FramedJudge)
    batch = draw_batch(recipe, parts.stream, parts.sigmas, state, accelerator, 0)
    loss = published_gradient(parts.sampler, judge, batch, parts.sigmas)
    assert train.max_grad_norm is not None
    norm = float(nn.utils.clip_grad_norm_(parts.parameters, train.max_grad_norm))
    state.optimiser.step()
    state.optimiser.zero_grad()
    state.step += 1
    state.position += clips_a_step(train, accelerator)
    return {"loss": loss, "grad_norm": norm}
