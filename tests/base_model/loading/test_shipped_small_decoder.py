"""The small decoder in the package, on rendered clips, which its training never saw."""

from __future__ import annotations

import torch
from torch.nn.functional import cosine_similarity

from base_model.files.shipped import WEIGHTS
from base_model.generator import load_generator
from base_model.loading.small_decoder import find_small_decoder, load_small_decoder
from base_model.networks.small_decoder import decode_small
from base_model.tiny.training_clips import clip_batch
from rewards import load_reward

HPS = WEIGHTS.parents[1] / "rewards" / "weights" / "tiny" / "hps.safetensors"


def test_frames_and_gradient_are_near_those_of_the_vae() -> None:
    """29 to 31 dB and cosines of 0.84 to 0.92 as shipped; a random student has 9 dB and 0.02."""
    generator = load_generator("tiny", text_encoder=False)
    small = load_small_decoder(find_small_decoder(None, generator.vae))
    x = generator.encode(clip_batch(torch.Generator().manual_seed(99)))
    true_x, small_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    frames = generator.decode(true_x, checkpointing=False)
    near = decode_small(small, small_x, checkpointing=False)
    error = (frames - near).detach().square().mean(dim=(1, 2, 3, 4))
    assert (-10.0 * torch.log10(error)).min() > 28.0

    judged = frames.detach().requires_grad_()
    hps = load_reward("hps", HPS)
    prompts = ["a large red circle moves left on a dark background"] * 4
    (cotangent,) = torch.autograd.grad(hps(judged, prompts).sum(), judged)
    (true_gradient,) = torch.autograd.grad(frames, true_x, cotangent)
    (small_gradient,) = torch.autograd.grad(near, small_x, cotangent)
    cosines = cosine_similarity(true_gradient.flatten(1), small_gradient.flatten(1))
    assert cosines.min() > 0.8
