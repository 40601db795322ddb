"""Write the prompt files of the embedded world: captions in both languages, one scene per line."""

from __future__ import annotations

import json
import random
from pathlib import Path

from base_model.tiny.captions import LANGUAGES, draw_caption, phrasings
from base_model.tiny.scenes import Split, scenes

COUNTS: dict[Split, int] = {"train": 400, "held_out": 128}


def write_prompt_files(folder: Path) -> None:
    """Write `train.jsonl` and `held_out.jsonl`.

    Scenes are drawn without replacement from their split; languages alternate. The reward
    prompt is always English, because the published judges read English.

    Args:
        folder: Folder of the two files; existing ones are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in COUNTS.items():
        rng = random.Random(f"prompts/{split}")
        lines = []
        for i, scene in enumerate(rng.sample(scenes(split), count)):
            row = {
                "prompt": draw_caption(scene, rng, LANGUAGES[i % len(LANGUAGES)]),
                "reward_prompt": phrasings(scene, "en")[0],
            }
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
