"""Measure how well the embedded checkpoints keep and follow conditions, on held-out scenes.

Every mode gets its conditions as pixels, like a user's, and is measured by the oracle and in PSNR.
Prompts alternate between English and Chinese.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from base_model.conditions.inpainting import extended
from base_model.conditions.preprocessors import combine_controls, control_clip
from base_model.generator import Generator
from base_model.sampling.guidance import Guidance
from base_model.sampling.sample import euler_sample, start_state, start_step
from base_model.sampling.sigmas import sigma_table
from base_model.tiny.captions import LANGUAGES, draw_caption
from base_model.tiny.condition_clips import path_heat_map
from base_model.tiny.measure import BATCH, GUIDANCE_SCALE
from base_model.tiny.moving_camera import PANS, ZOOM_SPEEDS, ZOOMS, camera_clip
from base_model.tiny.oracle import centres, judge, recognise_clip, soft_mask
from base_model.tiny.paths import draw_path
from base_model.tiny.render import ShapePath, draw_staging, render_staged, straight_path
from base_model.tiny.scenes import COLOURS, FRAMES, SHAPES, SIDE, Scene, scenes

STEPS = 25
STRENGTH = 0.7
EDIT_MARGIN = 4.0
"""Pixels between the shape and the box of a masked edit."""

Numbers = dict[str, float]


@dataclass(frozen=True)
class Asked:
    """Request for one clip.

    Attributes:
        scene: Scene of the prompt.
        inputs: Inputs of `Generator.condition`, without the batch axis.
        clip: (FRAMES, 3, SIDE, SIDE), the clip that the inputs were made from.
        kept: (FRAMES, 1, SIDE, SIDE) bool: pixels that the result must keep from `clip`.
        path: Required places of the shape, (FRAMES, 2) pixels.
        start: (FRAMES, 3, SIDE, SIDE), the clip that sampling starts from.
        motion: Motion of the camera in words.
        speed: Speed of the camera.
        towards: Direction in which the camera moves the picture.
        grows: Whether the camera enlarges the shape.
        frames: Frames of the result.
    """

    scene: Scene
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    clip: Tensor | None = None
    kept: Tensor | None = None
    path: Tensor | None = None
    start: Tensor | None = None
    motion: str | None = None
    speed: float = 1.0
    towards: tuple[float, float] | None = None
    grows: bool | None = None
    frames: int = FRAMES


Ask = Callable[[Scene, random.Random], Asked]


def ask_start(scene: Scene, rng: random.Random) -> Asked:
    """Give the first frame."""
    clip = _clip(scene, rng)
    return Asked(scene, {"image": clip[0]}, clip, kept=_frames_kept(0))


def ask_end(scene: Scene, rng: random.Random) -> Asked:
    """Give the last frame."""
    clip = _clip(scene, rng)
    return Asked(scene, {"end_image": clip[-1]}, clip, kept=_frames_kept(FRAMES - 1))


def ask_both(scene: Scene, rng: random.Random) -> Asked:
    """Give the first and the last frame."""
    clip = _clip(scene, rng)
    inputs = {"image": clip[0], "end_image": clip[-1]}
    return Asked(scene, inputs, clip, kept=_frames_kept(0, FRAMES - 1))


def ask_longer(scene: Scene, rng: random.Random) -> Asked:
    """Give the first five frames."""
    clip = _clip(scene, rng)
    video, mask = (part[0] for part in extended(clip[None, :5], FRAMES))
    return Asked(scene, {"video": video, "mask": mask}, clip, kept=_frames_kept(*range(5)))


def ask_edit(scene: Scene, rng: random.Random) -> Asked:
    """Give a clip of another shape and colour, with a box around it to regenerate."""
    other = replace(
        scene,
        colour=rng.choice([c for c in COLOURS if c != scene.colour]),
        shape=rng.choice([s for s in SHAPES if s != scene.shape]),
    )
    staging = draw_staging(other, rng)
    path = straight_path(staging)
    clip = render_staged(other, staging, path)
    reach = 1.2 * staging.radius + EDIT_MARGIN
    low = (path.centres.amin(dim=0) - reach).clamp(0, SIDE).int().tolist()
    high = (path.centres.amax(dim=0) + reach).clamp(0, SIDE).int().tolist()
    mask = torch.zeros(FRAMES, 1, SIDE, SIDE)
    mask[..., low[1] : high[1], low[0] : high[0]] = 1.0
    return Asked(scene, {"video": clip, "mask": mask}, clip, kept=mask < 0.5)


def ask_variation(scene: Scene, rng: random.Random) -> Asked:
    """Give a clip of another colour to start from, at strength 0.7."""
    other = replace(scene, colour=rng.choice([c for c in COLOURS if c != scene.colour]))
    staging = draw_staging(other, rng)
    path = straight_path(staging)
    clip = render_staged(other, staging, path)
    return Asked(scene, {}, clip, path=path.centres, start=clip)


def ask_edges(scene: Scene, rng: random.Random) -> Asked:
    """Give the edges of a clip of the scene."""
    staging = draw_staging(scene, rng)
    path = draw_path(scene, staging, rng)
    clip = render_staged(scene, staging, path)
    return Asked(scene, {"control": control_clip("canny", clip)}, clip, path=path.centres)


def ask_edges_with_reference(scene: Scene, rng: random.Random) -> Asked:
    """Give the edges of a clip, and a picture of the shape at another place."""
    picture = _clip(scene, rng)[FRAMES // 2]
    asked = ask_edges(scene, rng)
    return replace(asked, inputs={**asked.inputs, "reference": picture})


def ask_two_controls(scene: Scene, rng: random.Random) -> Asked:
    """Give the edges of a clip together with the heat map of its shape's path."""
    asked = ask_edges(scene, rng)
    assert asked.path is not None
    heat_map = path_heat_map(ShapePath(asked.path, 1.0))
    return replace(asked, inputs={"control": combine_controls([asked.inputs["control"], heat_map])})


def ask_trajectory(scene: Scene, rng: random.Random) -> Asked:
    """Give the heat map of a path that the motion word still describes."""
    path = draw_path(scene, draw_staging(scene, rng), rng)
    return Asked(scene, {"control": path_heat_map(path)}, path=path.centres)


def ask_trajectory_with_reference(scene: Scene, rng: random.Random) -> Asked:
    """Give a heat map, and a picture of the shape at another place."""
    picture = _clip(scene, rng)[FRAMES // 2]
    asked = ask_trajectory(scene, rng)
    return replace(asked, inputs={**asked.inputs, "reference": picture})


def ask_pan(scene: Scene, rng: random.Random) -> Asked:
    """Give a single pan at speed 1 past a shape at rest, which must move the other way."""
    motion = rng.choice(PANS)
    still = replace(scene, motion="still")
    clip = camera_clip(still, motion, 1.0, rng)
    towards = {"left": (1.0, 0.0), "right": (-1.0, 0.0), "up": (0.0, 1.0), "down": (0.0, -1.0)}
    return Asked(
        still,
        {"camera": clip.rays},
        motion=motion,
        towards=towards[motion.removeprefix("pan ")],
    )


def ask_pan_with_reference(scene: Scene, rng: random.Random) -> Asked:
    """Give a single pan and a picture of the shape."""
    asked = ask_pan(scene, rng)
    return replace(asked, inputs={**asked.inputs, "reference": _clip(asked.scene, rng)[0]})


def ask_diagonal(scene: Scene, rng: random.Random) -> Asked:
    """Give two simultaneous pans past a shape at rest."""
    still = replace(scene, motion="still")
    sideways, upright = rng.choice(PANS[:2]), rng.choice(PANS[2:])
    motion, speed = f"{sideways} and {upright}", 0.8
    clip = camera_clip(still, motion, speed, rng)
    x = 1.0 if sideways == "pan left" else -1.0
    y = 1.0 if upright == "pan up" else -1.0
    return Asked(still, {"camera": clip.rays}, motion=motion, speed=speed, towards=(x, y))


def ask_zoom(scene: Scene, rng: random.Random) -> Asked:
    """Give a zoom at speed 0.45 on a shape at rest, which grows to 1.5 or shrinks to 0.8."""
    still = replace(scene, motion="still")
    motion, speed = rng.choice(ZOOMS), ZOOM_SPEEDS[1]
    clip = camera_clip(still, motion, speed, rng)
    inputs = {"camera": clip.rays}
    return Asked(still, inputs, motion=motion, speed=speed, grows=motion == "zoom in")


def ask_text(scene: Scene, rng: random.Random) -> Asked:
    """Give the prompt alone."""
    return Asked(scene)


def ask_picture(scene: Scene, rng: random.Random) -> Asked:
    """Give the prompt alone, for a picture."""
    return Asked(scene, frames=1)


MODES: Mapping[str, Mapping[str, Ask]] = {
    "text-to-video": {
        "text": ask_text,
        "picture": ask_picture,
        "video to video": ask_variation,
    },
    "inpaint": {
        "text": ask_text,
        "picture": ask_picture,
        "start": ask_start,
        "end": ask_end,
        "start and end": ask_both,
        "longer": ask_longer,
        "masked edit": ask_edit,
        "video to video": ask_variation,
    },
    "control": {
        "text": ask_text,
        "edges": ask_edges,
        "edges, reference": ask_edges_with_reference,
        "edges and trajectory": ask_two_controls,
        "trajectory": ask_trajectory,
        "trajectory, reference": ask_trajectory_with_reference,
    },
    "camera": {
        "text": ask_text,
        "pan": ask_pan,
        "pan, reference": ask_pan_with_reference,
        "diagonal": ask_diagonal,
        "zoom": ask_zoom,
    },
}
"""By kind of checkpoint and mode: draws one request."""


@torch.no_grad()
def measure_mode(generator: Generator, ask: Ask, count: int, *, seed: int = 0) -> Numbers:
    """Measure how well clips of one mode keep and follow their conditions.

    Each scene is generated in English and in Chinese, with the same inputs and the same noise.

    Args:
        generator: Generator of the kind that takes the mode, with its prompt encoder.
        ask: Entry of `MODES`.
        count: Number of scenes; there are twice as many clips.
        seed: Seed of scenes, captions and noise.

    Returns:
        The share of clips with each attribute right (without motion where the camera moves or the
        result is a picture), `all_right`, and `all_right` by language (`all_right_en`). Where the
        mode defines them: `psnr` (dB of the kept pixels, mean over clips), `psnr_26` (share of
        clips at 26 dB or more), `distance` (pixels between the shape's centre and its path, mean
        over frames and clips), `direction` (share of clips that move to the requested side) and
        `growth` (share whose shape grows or shrinks as requested).
    """
    rng = random.Random(f"modes/{seed}")
    chosen = rng.choices(scenes("held_out"), k=count)
    rows: list[Numbers] = []
    for first in range(0, count, BATCH // len(LANGUAGES)):
        asked = [ask(scene, rng) for scene in chosen[first : first + BATCH // len(LANGUAGES)]]
        seeds = [1000 * seed + first + i for i in range(len(asked))]
        prompts = [draw_caption(one.scene, rng, lang) for lang in LANGUAGES for one in asked]
        both = asked * len(LANGUAGES)
        clips = sample(generator, both, prompts, seeds * len(LANGUAGES))
        score = judge(clips, prompts)
        for i, one in enumerate(both):
            row = {name: float(right[i]) for name, right in score.right.items()}
            if one.motion is not None or one.frames == 1:
                del row["motion"]  # the oracle sees the shape's motion and the camera's as one
            row["all_right"] = min(row.values())
            row[f"all_right_{LANGUAGES[i // len(asked)]}"] = row["all_right"]
            rows.append(row | compared(one, clips[i]))
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row[name] for row in rows if name in row] for name in names}
    return {name: sum(values) / len(values) for name, values in columns.items()}


def sample(
    generator: Generator, asked: Sequence[Asked], prompts: list[str], seeds: list[int]
) -> Tensor:
    """Sample requested clips that have the same kinds of input: (b, f, 3, SIDE, SIDE)."""
    text = generator.encode_prompts(prompts, [""] * len(prompts))
    inputs = {name: torch.stack([one.inputs[name] for one in asked]) for name in asked[0].inputs}
    frames = asked[0].frames
    kept_noise = [seed + 10**6 for seed in seeds]
    condition = generator.condition(
        text, frames=frames if inputs else None, noise_seeds=kept_noise, **inputs
    )
    noise = generator.initial_noise(generator.latent_shape(len(asked), frames, SIDE, SIDE), seeds)
    sigmas = sigma_table(STEPS)
    starts = [one.start for one in asked if one.start is not None]
    if starts:
        sigmas = sigmas[start_step(STEPS, STRENGTH) :]
        noise = start_state(generator.encode(torch.stack(starts)), noise, float(sigmas[0]))
    return generator.decode(
        euler_sample(generator, condition, noise, sigmas, Guidance(GUIDANCE_SCALE))
    )


def compared(asked: Asked, clip: Tensor) -> Numbers:
    """Compare a clip with its request: what it keeps, and how closely it follows."""
    found: Numbers = {}
    if asked.kept is not None:
        assert asked.clip is not None
        square = (clip - asked.clip).square().mean(dim=1, keepdim=True)
        found["psnr"] = -10.0 * square[asked.kept].mean().clamp_min(1e-10).log10().item()
        found["psnr_26"] = float(found["psnr"] >= 26.0)
    if asked.path is not None:
        away = (centres(soft_mask(clip)) - asked.path).norm(dim=1)
        found["distance"] = away.mean().item()
    if asked.towards is not None:
        velocity = torch.tensor(recognise_clip(clip).velocity)
        towards = torch.tensor(asked.towards)
        towards = towards / towards.norm()
        # Within 45 degrees of the asked direction, and faster than what counts as still.
        along = float(velocity @ towards)
        found["direction"] = float(along > 0.6 and along > 0.7071 * float(velocity.norm()))
        found["speed"] = float(velocity.norm())
    if asked.grows is not None:
        sides = soft_mask(clip).sum(dim=(1, 2)).clamp_min(1.0).sqrt()
        grown = float(sides[-2:].mean() / sides[:2].mean())
        found["growth"] = float(grown > 1.1 if asked.grows else grown < 0.9)
    return found


def _clip(scene: Scene, rng: random.Random) -> Tensor:
    return render_staged(scene, draw_staging(scene, rng))


def _frames_kept(*places: int) -> Tensor:
    kept = torch.zeros(FRAMES, 1, SIDE, SIDE, dtype=torch.bool)
    kept[list(places)] = True
    return kept
