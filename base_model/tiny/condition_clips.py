"""Clips of the embedded world with the conditions that a checkpoint is trained with.

All scenes are training scenes. Conditions are encoded frame by frame (`encode_key_frames`), which
equals the published encoding for the embedded VAE.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from base_model.conditions.control_latents import RAY_SCALE
from base_model.conditions.inpainting import inpaint_channels, masked_video
from base_model.conditions.preprocessors import control_clip
from base_model.conditions.trajectory import Track, heat_maps
from base_model.core.family import FAMILY
from base_model.core.latent_grid import to_latent_grid
from base_model.tiny.key_frames import encode_key_frames
from base_model.tiny.moving_camera import draw_camera_clip
from base_model.tiny.paths import draw_path
from base_model.tiny.render import ShapePath, draw_staging, render, render_staged
from base_model.tiny.scenes import FRAMES, SIDE, Scene, draw_scenes
from base_model.training.dropout import draw_dropped
from base_model.training.loop import python_random
from base_model.training.mask_sampling import TEXT_ONLY_SHARE, draw_kept_noise, draw_masks

EDGES_SHARE, SCRIBBLE_SHARE = 0.45, 0.1
"""Shares of the control clips with edges and with strokes; the rest are heat maps of paths."""

ELSEWHERE_SHARE = 0.5
"""Share of the reference images of control clips that show the shape at another place.

If all references are frames of the clip, the model reads the place from them: it then followed a
trajectory to within 14 pixels with a reference from elsewhere, and to within 4 without one.
"""

UNKNOWN_CAMERA_SHARE = 0.6
"""Share of the clips with a static camera that come without rays, like a prompt alone."""

LATENT_SIDE = SIDE // FAMILY.space_stride
LATENT_SIZE = (FAMILY.latent_frames(FRAMES), LATENT_SIDE, LATENT_SIDE)


@dataclass(frozen=True)
class ConditionedClips:
    """Encoded clips and conditions.

    Attributes:
        scenes: b scenes.
        latents: (b, 16, 3, 8, 8), scaled.
        condition: (b, 17, 32 or 22, 3, 8, 8), concatenated to the noisy latents.
    """

    scenes: list[Scene]
    latents: Tensor
    condition: Tensor


@torch.no_grad()
def encoded(vae: Any, clips: Tensor) -> Tensor:
    """Encode clips (b, 4k + 1, 3, H, W) in [0, 1] to scaled latents."""
    return encode_key_frames(vae, clips) * vae.config.scaling_factor


def inpaint_clips(vae: Any, count: int, generator: torch.Generator) -> ConditionedClips:
    """Draw clips, each with a mask from the published distribution."""
    rng = python_random(generator)
    scenes = draw_scenes(count, rng)
    clips = render(scenes, rng)
    size = (FRAMES, SIDE, SIDE)
    masks = draw_masks(count, size, generator)
    noise = draw_kept_noise(count, size, generator)
    zeroed = draw_dropped(count, TEXT_ONLY_SHARE, generator)
    video, generate = masked_video(clips, masks, noise)
    masked = encoded(vae, video.transpose(1, 2) / 2 + 0.5)
    channels = inpaint_channels(masked, generate, vae.config.scaling_factor, zeroed=zeroed)
    return ConditionedClips(scenes, encoded(vae, clips), channels)


def control_clips(vae: Any, count: int, generator: torch.Generator) -> ConditionedClips:
    """Draw clips with drawn paths, each with edges, strokes or a heat map, and a reference."""
    rng = python_random(generator)
    scenes = draw_scenes(count, rng)
    clips, controls, references = [], [], []
    for scene in scenes:
        staging = draw_staging(scene, rng)
        path = draw_path(scene, staging, rng)
        clip = render_staged(scene, staging, path)
        which = rng.random()
        if which < EDGES_SHARE:
            controls.append(control_clip("canny", clip))
        elif which < EDGES_SHARE + SCRIBBLE_SHARE:
            controls.append(control_clip("scribble", clip))
        else:
            controls.append(path_heat_map(path))
        clips.append(clip)
        shown = clip
        if rng.random() < ELSEWHERE_SHARE:
            shown = render_staged(scene, replace(staging, centre=draw_staging(scene, rng).centre))
        references.append(shown[rng.randrange(FRAMES)])
    control = encoded(vae, torch.stack(controls))
    return ConditionedClips(
        scenes,
        encoded(vae, torch.stack(clips)),
        torch.cat([control, reference_channels(vae, torch.stack(references))], dim=1),
    )


def camera_clips(vae: Any, count: int, generator: torch.Generator) -> ConditionedClips:
    """Draw clips of a moving camera, each with its rays and a reference."""
    rng = python_random(generator)
    scenes = draw_scenes(count, rng)
    clips, rays = [], []
    for scene in scenes:
        clip = draw_camera_clip(scene, rng)
        known = clip.motion != "static" or rng.random() >= UNKNOWN_CAMERA_SHARE
        clips.append(clip.frames)
        rays.append(clip.rays * float(known))
    frames = torch.stack(clips)
    references = torch.stack([clip[rng.randrange(FRAMES)] for clip in clips])
    grid = to_latent_grid(torch.stack(rays), LATENT_SIZE) * RAY_SCALE
    return ConditionedClips(
        scenes,
        encoded(vae, frames),
        torch.cat([grid, reference_channels(vae, references)], dim=1),
    )


DRAWS: Mapping[str, Callable[[Any, int, torch.Generator], ConditionedClips]] = {
    "inpaint": inpaint_clips,
    "control": control_clips,
    "camera": camera_clips,
}
"""By kind of checkpoint: draws and encodes a number of clips."""


def path_heat_map(path: ShapePath) -> Tensor:
    """Draw the control clip of a path, one point per frame: (FRAMES, 3, SIDE, SIDE) in [0, 1]."""
    points = (path.centres - 0.5).clamp(0, SIDE - 1).double().numpy()
    track = Track("shape", points, None, "pixel")
    levels = torch.from_numpy(heat_maps([track], FRAMES, SIDE, SIDE)).float() / 255
    return levels[:, None].expand(-1, 3, -1, -1)


def reference_channels(vae: Any, images: Tensor) -> Tensor:
    """Encode reference images (b, 3, SIDE, SIDE) to (b, 16, 3, 8, 8), zero after the first."""
    first = encoded(vae, images[:, None])
    return torch.cat([first, torch.zeros_like(first).expand(-1, -1, LATENT_SIZE[0] - 1, -1, -1)], 2)
