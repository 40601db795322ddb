"""The README's picture: a run's first held-out prompts, base, tuned and rendered side by side.

    python -m benchmarks.demo_picture RUN [--prompts 8] [--output docs/images/before-after.gif]

RUN is a finished run on the embedded generator, such as that of `make demo`. The clips are those of
its evaluation: the first held-out prompts in the order of the file, none left out, from the same
noise. Under each clip stands what the oracle says of it. "Rendered" is what the embedded world
itself draws of the prompt. Needs no GPU.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import load_file
from torch import Tensor

from base_model.tiny.captions import parse_caption, phrasings
from base_model.tiny.oracle import judge
from base_model.tiny.render import render
from reward_tuning.files.clips import write_clip
from reward_tuning.progress import silent
from reward_tuning.schema.loading import load_recipe
from reward_tuning.tuning.evaluation import evaluate
from reward_tuning.tuning.parts import load_parts
from reward_tuning.tuning.sigma_tables import evaluation_sigmas

SIDES = ("base", "tuned", "rendered")
ENLARGE = 2
SIDE = 64 * ENLARGE
MARGIN, GAP, HEADER, LABEL = 12, 28, 26, 40
"""Pixels: around the picture, between groups, above them, and below each group of clips."""
GROUPS = 2  # a row
RIGHT, WRONG, INK = (30, 130, 60), (190, 40, 40), (40, 40, 40)


def clips_of_run(run: Path, prompts: int) -> tuple[list[str], list[list[Tensor]]]:
    """English captions of the first held-out prompts, and the clips of each, one a side."""
    recipe = load_recipe(str(run / "recipe.yaml"), [])
    parts = load_parts(recipe, torch.device("cpu"), 1, silent)
    last = max((run / "checkpoints").iterdir())
    average = last / "ema.safetensors"
    adapter = load_file(average if average.exists() else last / "adapter.safetensors")
    chosen = dict(enumerate(parts.held_out[:prompts]))
    shown = [
        evaluate(
            parts.sampler,
            state,
            chosen,
            [],
            evaluation_sigmas(recipe),
            seed=recipe.seed,
            batch_size=recipe.evaluation.batch_size or recipe.train.batch_size,
            keep_clips=prompts,
        ).clips
        for state in (parts.start, adapter)
    ]
    captions, groups = [], []
    for i, prompt in chosen.items():
        scene, _ = parse_caption(prompt.text)
        rendered = render([scene], random.Random(f"reference/{i}"))[0]
        captions.append(phrasings(scene, "en")[0])
        groups.append([shown[0][i], shown[1][i], rendered])
    return captions, groups


def picture(captions: list[str], groups: list[list[Tensor]]) -> Tensor:
    """Lay the clips out, `(f, 3, H, W)` in [0, 1]; the three of a prompt touch each other."""
    rows = -(-len(groups) // GROUPS)
    group = len(SIDES) * SIDE
    width = 2 * MARGIN + GROUPS * group + (GROUPS - 1) * GAP
    height = 2 * MARGIN + HEADER + rows * (SIDE + LABEL)
    sheet = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    places = []
    for i, (caption, clips) in enumerate(zip(captions, groups, strict=True)):
        left = MARGIN + i % GROUPS * (group + GAP)
        top = MARGIN + HEADER + i // GROUPS * (SIDE + LABEL)
        right = judge(torch.stack(clips), [caption] * len(clips)).all_right.tolist()
        for column, (side, good) in enumerate(zip(SIDES, right, strict=True)):
            x = left + column * SIDE
            if i < GROUPS:
                draw.text((x + SIDE / 2, MARGIN + 8), side, INK, font, anchor="mm")
            if side != "rendered":
                word, colour = ("right", RIGHT) if good else ("wrong", WRONG)
                draw.text((x + SIDE / 2, top + SIDE + 8), word, colour, font, anchor="mm")
        draw.text((left + group / 2, top + SIDE + 23), caption, INK, font, anchor="mm")
        places.append((left, top, torch.cat(clips, dim=3)))
    paper = torch.from_numpy(np.asarray(sheet).copy()).permute(2, 0, 1) / 255
    frames = paper.expand(groups[0][0].shape[0], -1, -1, -1).clone()
    for left, top, clips_of_group in places:
        large = clips_of_group.repeat_interleave(ENLARGE, 2).repeat_interleave(ENLARGE, 3)
        frames[:, :, top : top + SIDE, left : left + group] = large
    return frames


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the README's picture from a run.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--output", type=Path, default=Path("docs/images/before-after.gif"))
    arguments = parser.parse_args()
    write_clip(picture(*clips_of_run(arguments.run, arguments.prompts)), arguments.output)
    print(arguments.output)


if __name__ == "__main__":
    main()
