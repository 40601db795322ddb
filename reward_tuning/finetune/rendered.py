"""Write clips of the embedded world like a user's own training set: mp4 files and a list."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from base_model.core.family import FAMILY
from base_model.tiny.captions import LANGUAGES, draw_caption
from base_model.tiny.render import render
from base_model.tiny.scenes import ATTRIBUTES, scenes
from reward_tuning.errors import TuningError
from reward_tuning.files.atomic_write import ANOTHER_PLACE, atomic_write, check_writable
from reward_tuning.files.clip_names import refuse_existing
from reward_tuning.files.clips import write_clip

LIST = "metadata.csv"
ADVICE = "choose another folder, or give --overwrite"
Style = Literal["plain", "negative"]


def write_rendered_clips(
    folder: Path,
    count: int,
    *,
    words: Sequence[str] = (),
    style: Style = "plain",
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Render clips of training scenes with captions in both languages.

    Args:
        folder: Folder for `NNNN.mp4` (9 frames of 64 x 64) and `metadata.csv`.
        count: Number of clips.
        words: Render only scenes with all of these words (`red`, `star`, `left`, ...).
        style: `plain`, or `negative`: inverted colours under the same captions, which no embedded
            checkpoint has been trained on.
        seed: Seed of every draw.
        overwrite: Replace existing files.

    Returns:
        Path of the list.

    Raises:
        TuningError: The world does not have a word, no scene has all of them, the folder already
            has such files, or it cannot be written.
    """
    known = [word for group in ATTRIBUTES.values() for word in group]
    unknown = [word for word in words if word not in known]
    if unknown:
        raise TuningError(f"no word {unknown[0]!r} in the embedded world: {', '.join(known)}")
    wanted = [s for s in scenes("train") if set(words) <= set(asdict(s).values())]
    if not wanted:
        raise TuningError(f"no scene is {' and '.join(words)}; give one word of a kind")
    clips = [folder / f"{i:04d}.mp4" for i in range(count)]
    if not overwrite:
        refuse_existing([folder / LIST, *clips], message="{} exists already", advice=ADVICE)
    check_writable(folder)
    rng = random.Random(f"rendered/{seed}")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file_path", "text", "type"])
    for i, clip in enumerate(clips):
        scene = rng.choice(wanted)
        frames = render([scene], rng)[0]
        write_clip(
            1 - frames if style == "negative" else frames, clip, fps=FAMILY.frames_per_second
        )
        writer.writerow(
            [clip.name, draw_caption(scene, rng, LANGUAGES[i % len(LANGUAGES)]), "video"]
        )
    atomic_write(folder / LIST, text.getvalue().encode(), advice=ANOTHER_PLACE)
    return folder / LIST
