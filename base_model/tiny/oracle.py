"""Read the attributes of a clip from its pixels, without learning.

Backgrounds and clutter are grey, so only the shape has chroma. The chroma gives a soft mask, its
hue (colour), its area (size), its drift (motion) and its overlap with ideal outlines (shape); the
rest of the picture is compared with the four background patterns. A reading without a good fit is
`unclear`, which never counts as right. No method may train on the oracle: it separates improvement
from reward hacking.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from base_model.tiny.captions import parse_caption
from base_model.tiny.render import HUES, PERIOD, RADII, TONES, pixel_grid, shape_coverage
from base_model.tiny.scenes import ATTRIBUTES, SHAPES, SIDE

UNCLEAR = "unclear"

BINOMIAL = torch.tensor([0.25, 0.5, 0.25])
"""Kernel of a light blur before chroma is read, because noise has chroma too."""

MIN_CHROMA = 0.2
"""Chroma (max - min over RGB) below which a pixel belongs to the background."""

MIN_AREA = 40.0
"""Pixels below which there is no shape; the smallest one has 100."""

MAX_HUE_ERROR = 25.0
"""Degrees; neighbouring colours are 60 apart, and renders vary by 8."""

MAX_HUE_SPREAD = 0.9
"""Length of the mean hue vector below which the shape has several colours."""

MIN_OVERLAP = 0.8
"""Intersection over union with the best outline below which a shape is none of the four."""

STILL_SPEED = 0.6
"""Pixels per frame; moving shapes have 1.8 to 2.2."""

MAX_SPEED_SIDEWAYS = 0.6
"""Largest speed across the main axis, as a share of the speed along it."""

MIN_PATTERN = 0.06
"""Amplitude of a fitted pattern below which a background is plain; renders have 0.12 to 0.18."""


@dataclass(frozen=True)
class Reading:
    """Reading of one clip: a word (or `unclear`) for each attribute, and the numbers behind it.

    Attributes:
        words: Attribute name to word.
        overlap: Intersection over union of the mask with the best ideal outline, [0, 1].
        radius: Radius of the circle of equal area, pixels.
        velocity: (x, y) drift of the centre, in pixels per frame.
        tone: Mean grey of the background, [0, 1]; NaN if none of it is visible.
    """

    words: Mapping[str, str]
    overlap: float
    radius: float
    velocity: tuple[float, float]
    tone: float


@dataclass(frozen=True)
class OracleScore:
    """Shares in [0, 1] of clips that show what their prompts say.

    Attributes:
        all_right: (b,), 1 where every attribute is right.
        right: By attribute name: (b,), 1 where that attribute is right.
        tone_off: (b,), distance of the background's grey from the range that the world renders for
            its word, in [0, 1]; 1 if no background is visible.
    """

    all_right: Tensor
    right: Mapping[str, Tensor]
    tone_off: Tensor

    def means(self) -> dict[str, float]:
        """Return `all_right` and the mean of each attribute."""
        parts = {name: value.mean().item() for name, value in self.right.items()}
        return {"all_right": self.all_right.mean().item(), **parts}


def soft_mask(frames: Tensor) -> Tensor:
    """Return the share of each pixel that the coloured shape covers, from chroma alone.

    Args:
        frames: (f, 3, H, W) in [0, 1].

    Returns:
        (f, H, W) in [0, 1], scaled so that the inside of the shape is 1.
    """
    smooth = blurred(frames)
    chroma = smooth.amax(dim=1) - smooth.amin(dim=1)
    inside = chroma[chroma > MIN_CHROMA]
    if inside.numel() < MIN_AREA:
        return torch.zeros_like(chroma)
    return steepened(chroma / inside.quantile(0.6))


def blurred(images: Tensor) -> Tensor:
    """Blur (n, c, H, W) lightly, with repeated edges."""
    channels = images.shape[1]
    kernel = (BINOMIAL[:, None] * BINOMIAL).expand(channels, 1, 3, 3)
    return F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernel, groups=channels)


def steepened(coverage: Tensor) -> Tensor:
    """Steepen coverage about one half: a quarter and less (noise) becomes 0, three quarters 1."""
    return (2.0 * coverage - 0.5).clamp(0.0, 1.0)


def read_colour(frames: Tensor, mask: Tensor) -> str:
    """Return the colour word of the masked pixels, or `unclear` when hues disagree."""
    red, green, blue = frames.unbind(dim=1)
    x = red - 0.5 * (green + blue)
    y = math.sqrt(0.75) * (green - blue)
    weight = mask.pow(2)
    length = torch.sqrt(x * x + y * y).clamp_min(1e-6)
    mean_x = (weight * x / length).sum() / weight.sum()
    mean_y = (weight * y / length).sum() / weight.sum()
    if math.hypot(mean_x.item(), mean_y.item()) < MAX_HUE_SPREAD:
        return UNCLEAR
    hue = math.degrees(math.atan2(mean_y.item(), mean_x.item())) % 360.0
    errors = {word: abs((hue - ideal + 180.0) % 360.0 - 180.0) for word, ideal in HUES.items()}
    best = min(errors, key=errors.__getitem__)
    return best if errors[best] <= MAX_HUE_ERROR else UNCLEAR


def read_size(radius: float) -> str:
    """Return the size word whose radius is nearest on a logarithmic scale."""
    return min(RADII, key=lambda word: abs(math.log(max(radius, 1e-3) / RADII[word])))


def centres(mask: Tensor) -> Tensor:
    """Return the centre of mass of each frame, (f, 2) as x, y in pixels."""
    y, x = pixel_grid()
    weight = mask.sum(dim=(1, 2)).clamp_min(1e-6)
    return (
        torch.stack([(mask * x).sum(dim=(1, 2)), (mask * y).sum(dim=(1, 2))], 1) / weight[:, None]
    )


def read_motion(path: Tensor) -> tuple[str, tuple[float, float]]:
    """Return the motion word of a path of centres, and its least-squares velocity.

    Args:
        path: (f, 2) pixels.
    """
    time = torch.arange(len(path), dtype=path.dtype)
    time = time - time.mean()
    vx, vy = ((time[:, None] * path).sum(dim=0) / time.square().sum()).tolist()
    speed = math.hypot(vx, vy)
    if speed < STILL_SPEED:
        return "still", (vx, vy)
    along, across = max(abs(vx), abs(vy)), min(abs(vx), abs(vy))
    if across > MAX_SPEED_SIDEWAYS * along:
        return UNCLEAR, (vx, vy)
    if abs(vx) > abs(vy):
        return ("right" if vx > 0 else "left"), (vx, vy)
    return ("down" if vy > 0 else "up"), (vx, vy)


def read_shape(mask: Tensor, path: Tensor, radius: float) -> tuple[str, float]:
    """Return the shape word whose ideal outline overlaps the mask best, and that overlap.

    Every frame is compared at its own centre of mass with outlines turned by -12 to 12 degrees,
    blurred and steepened like the mask; the overlap of a shape is the mean over frames of its best
    turn.
    """
    y, x = pixel_grid()
    dx = x - path[:, 0, None, None]
    dy = y - path[:, 1, None, None]
    overlaps = {}
    for shape in SHAPES:
        # The centre of mass differs from the centre of the outline only for clipped shapes.
        turns = (0.0,) if shape == "circle" else tuple(range(-12, 13, 6))
        best = torch.zeros(len(mask))
        for degrees in turns:
            c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            cover = shape_coverage(shape, c * dx + s * dy, c * dy - s * dx, radius)
            ideal = steepened(blurred(cover[:, None])[:, 0])
            shared = torch.minimum(mask, ideal).sum(dim=(1, 2))
            either = torch.maximum(mask, ideal).sum(dim=(1, 2)).clamp_min(1e-6)
            best = torch.maximum(best, shared / either)
        overlaps[shape] = best.mean().item()
    word = max(overlaps, key=overlaps.__getitem__)
    return (word if overlaps[word] >= MIN_OVERLAP else UNCLEAR), overlaps[word]


def read_background(frames: Tensor, mask: Tensor) -> tuple[str, float]:
    """Return the background word and the mean grey.

    Stripes and checks are fitted to the mean luminance over time outside the shape.
    """
    keep = (mask < 0.05).float()
    weight = keep.sum(dim=0)
    luminance = (frames.mean(dim=1) * keep).sum(dim=0) / weight.clamp_min(1.0)
    seen = (weight > 0).float()
    if seen.sum() < SIDE * SIDE / 8:
        return UNCLEAR, math.nan
    tone = ((luminance * seen).sum() / seen.sum()).item()
    y, x = pixel_grid()
    wave = 2 * math.pi / PERIOD
    lines = {"sx": torch.sin(wave * x), "cx": torch.cos(wave * x)}
    rows = {"sy": torch.sin(wave * y), "cy": torch.cos(wave * y)}
    fits = {
        "striped": torch.stack(list(lines.values())),
        "checkered": torch.stack([a * b for a in lines.values() for b in rows.values()]),
    }
    rest = (luminance - tone) * seen
    strength = {}
    for word, basis in fits.items():
        masked = (basis * seen).flatten(1)
        gram = masked @ masked.T + 1e-3 * torch.eye(len(masked))
        fitted = torch.linalg.solve(gram, masked @ rest.flatten()) @ masked
        strength[word] = math.sqrt(2 * fitted.square().sum().item() / seen.sum().item())
    word = max(strength, key=strength.__getitem__)
    if strength[word] >= MIN_PATTERN:
        return word, tone
    if tone < 0.3:
        return "dark", tone
    return ("bright" if tone > 0.65 else UNCLEAR), tone


def tone_off(tone: float, background: str) -> float:
    """Return the distance of a grey from the range rendered for a background's word, in [0, 1]."""
    if math.isnan(tone):
        return 1.0
    low, high = TONES[background]
    return max(low - tone, tone - high, 0.0)


def recognise_clip(frames: Tensor) -> Reading:
    """Recognise what one clip shows.

    Args:
        frames: (f, 3, 64, 64) in [0, 1].

    Returns:
        The reading; on a clip without a shape all attributes but the background are `unclear`.
    """
    frames = frames.detach().float().clamp(0.0, 1.0)
    mask = soft_mask(frames)
    areas = mask.sum(dim=(1, 2))
    background, tone = read_background(frames, mask)
    if areas.min() < MIN_AREA:
        words = dict.fromkeys(ATTRIBUTES, UNCLEAR) | {"background": background}
        return Reading(words, overlap=0.0, radius=0.0, velocity=(0.0, 0.0), tone=tone)
    radius = math.sqrt(areas.median().item() / math.pi)
    path = centres(mask)
    motion, velocity = read_motion(path)
    shape, overlap = read_shape(mask, path, radius)
    words = {
        "colour": read_colour(frames, mask),
        "shape": shape,
        "background": background,
        "size": read_size(radius),
        "motion": motion,
    }
    return Reading(words, overlap=overlap, radius=radius, velocity=velocity, tone=tone)


def judge(frames: Tensor, prompts: Sequence[str]) -> OracleScore:
    """Score which clips show what their prompts say.

    Args:
        frames: (b, f, 3, 64, 64) in [0, 1].
        prompts: One caption of the grammar for each clip.

    Raises:
        ValueError: A prompt is no caption of the grammar, or the numbers differ.
    """
    if len(frames) != len(prompts):
        raise ValueError(
            f"got {len(frames)} clips and {len(prompts)} prompts; give one prompt for each clip"
        )
    right: dict[str, list[float]] = {name: [] for name in ATTRIBUTES}
    off = []
    for clip, prompt in zip(frames, prompts, strict=True):
        scene, _ = parse_caption(prompt)
        reading = recognise_clip(clip)
        for name in ATTRIBUTES:
            right[name].append(float(reading.words[name] == getattr(scene, name)))
        off.append(tone_off(reading.tone, scene.background))
    tensors = {name: torch.tensor(values) for name, values in right.items()}
    all_right = torch.stack(list(tensors.values())).amin(dim=0)
    return OracleScore(all_right, tensors, torch.tensor(off))
