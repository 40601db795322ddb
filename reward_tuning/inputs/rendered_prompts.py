"""Render a prompt file of the embedded world, with the conditions that its prompts name."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
from torch import Tensor

from base_model.core.family import FAMILY
from base_model.tiny.captions import LANGUAGES, draw_caption, phrasings
from base_model.tiny.measure_modes import (
    Asked,
    ask_edges,
    ask_edit,
    ask_pan,
    ask_start,
    ask_trajectory,
    ask_variation,
)
from base_model.tiny.scenes import Split, scenes
from reward_tuning.errors import TuningError
from reward_tuning.files.atomic_write import ANOTHER_PLACE, atomic_write
from reward_tuning.files.clip_names import refuse_existing
from reward_tuning.files.clips import write_clip

PROMPT_FILE = "prompts.jsonl"
ADVICE = "choose another folder, or give --overwrite"


def write_rendered_prompts(
    folder: Path,
    mode: str,
    count: int,
    *,
    split: Split = "train",
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Write prompts of one mode and render the files that condition their clips.

    Args:
        folder: Folder for `prompts.jsonl` and the files that it names.
        mode: Name in `MODES`.
        count: Number of prompts; languages alternate.
        split: Split of the scenes.
        seed: Seed of every draw.
        overwrite: Replace existing files of these names.

    Returns:
        Path of the prompt file.

    Raises:
        TuningError: Unknown mode, existing files, or a folder that cannot be written.
    """
    if mode not in MODES:
        raise TuningError(f"unknown mode {mode!r}; allowed: {', '.join(MODES)}")
    target = folder / PROMPT_FILE
    if not overwrite:
        named = [folder / f"{i:03d}{end}" for i in range(count) for end in WRITTEN[mode]]
        refuse_existing([target, *named], message="{} exists already", advice=ADVICE)
    ask, write = MODES[mode]
    rng = random.Random(f"rendered prompts/{mode}/{split}/{seed}")
    lines = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for i, scene in enumerate(rng.choices(scenes(split), k=count)):
            asked = ask(scene, rng)
            row = {
                "prompt": draw_caption(asked.scene, rng, LANGUAGES[i % len(LANGUAGES)]),
                "reward_prompt": phrasings(asked.scene, "en")[0],
                **write(asked, folder, f"{i:03d}"),
            }
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    except OSError as error:
        raise TuningError(
            f"{folder} cannot be written: {error.strerror or error}; {ANOTHER_PLACE}"
        ) from error
    atomic_write(target, "".join(lines).encode(), advice=ANOTHER_PLACE)
    return target


Write = Callable[[Asked, Path, str], dict[str, Any]]
"""Writes the condition files of a request with a name stem; returns columns of the prompt."""


def _image(asked: Asked, folder: Path, name: str) -> dict[str, Any]:
    return {"image": _picture(asked.inputs["image"], folder, f"{name}.png")}


def _edit(asked: Asked, folder: Path, name: str) -> dict[str, Any]:
    mask = asked.inputs["mask"][0].expand(3, -1, -1)
    return {
        "video": _clip(asked.inputs["video"], folder, f"{name}.mp4"),
        "mask": _picture(mask, folder, f"{name}-mask.png"),
    }


def _video(asked: Asked, folder: Path, name: str) -> dict[str, Any]:
    assert asked.start is not None
    return {"video": _clip(asked.start, folder, f"{name}.mp4")}


def _edges(asked: Asked, folder: Path, name: str) -> dict[str, Any]:
    assert asked.clip is not None
    return {"control": [_clip(asked.clip, folder, f"{name}.mp4")], "control_type": "canny"}


def _trajectory(asked: Asked, folder: Path, name: str) -> dict[str, Any]:
    assert asked.path is not None
    points = [
        {"x": round(x - 0.5, 1), "y": round(y - 0.5, 1), "frame": frame}
        for frame, (x, y) in enumerate(asked.path.tolist())
    ]
    objects = [{"name": asked.scene.shape, "points": points}]
    file = folder / f"{name}.json"
    file.write_text(json.dumps({"coordinates": "pixel", "objects": objects}) + "\n")
    return {"trajectory": file.name}


def _camera(asked: Asked, _folder: Path, _name: str) -> dict[str, Any]:
    return {"camera": asked.motion, "camera_speed": asked.speed}


MODES: Mapping[str, tuple[Callable[[Any, random.Random], Asked], Write]] = {
    "image": (ask_start, _image),
    "edit": (ask_edit, _edit),
    "video": (ask_variation, _video),
    "edges": (ask_edges, _edges),
    "trajectory": (ask_trajectory, _trajectory),
    "camera": (ask_pan, _camera),
}
"""Mode to the function that draws a request and the one that writes its files."""

WRITTEN: Mapping[str, tuple[str, ...]] = {
    "image": (".png",),
    "edit": (".mp4", "-mask.png"),
    "video": (".mp4",),
    "edges": (".mp4",),
    "trajectory": (".json",),
    "camera": (),
}
"""Mode to the endings of its files' names, after the number of the prompt."""


def _picture(image: Tensor, folder: Path, name: str) -> str:
    levels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    imageio.imwrite(folder / name, levels)
    return name


def _clip(frames: Tensor, folder: Path, name: str) -> str:
    write_clip(frames, folder / name, fps=FAMILY.frames_per_second)
    return name
