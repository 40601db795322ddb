"""Measure what the embedded conditioned checkpoints keep and follow, on held-out scenes.

    python -m benchmarks.modes [--kinds inpaint,control,camera] [--scenes 64] [--json FILE]

Prints a table: for each kind of checkpoint and each of its modes the shares that the oracle reads
right (all attributes; the same in English and Chinese), and what the mode is asked to do: PSNR of
what must be kept (bar: 26 dB), distance of the shape from its path (bar: 4 pixels of 64), share of
pans to the asked side (bar: 0.90). Every scene is asked for in English and Chinese, with the same
inputs and noise. 25 steps, guidance 5.
"""

import argparse
import json
import sys
from pathlib import Path

from base_model.generator import load_generator
from base_model.tiny.measure_modes import MODES, Numbers, measure_mode

COLUMNS = (
    "all_right",
    "all_right_en",
    "all_right_zh",
    "colour",
    "shape",
    "motion",
    "psnr",
    "psnr_26",
    "distance",
    "direction",
    "growth",
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the embedded conditioned checkpoints.")
    parser.add_argument("--kinds", default=",".join(MODES), help="of checkpoints, by commas")
    parser.add_argument("--scenes", type=int, default=64, help="of each mode, each two clips")
    parser.add_argument("--seed", type=int, default=0, help="of scenes, captions and noise")
    parser.add_argument("--json", type=Path, help="also write every number to this file")
    arguments = parser.parse_args()
    kinds = arguments.kinds.split(",")
    unknown = [kind for kind in kinds if kind not in MODES]
    if unknown:
        parser.error(f"no kind {unknown[0]!r}; kinds: {', '.join(MODES)}")

    found: dict[str, dict[str, Numbers]] = {}
    print(f"| checkpoint | mode | {' | '.join(COLUMNS)} |")
    print("|---" * (len(COLUMNS) + 2) + "|")
    for kind in kinds:
        name = "tiny" if kind == "text-to-video" else f"tiny-{kind}"
        generator = load_generator(name)
        for mode, ask in MODES[kind].items():
            numbers = measure_mode(generator, ask, arguments.scenes, seed=arguments.seed)
            found.setdefault(kind, {})[mode] = numbers
            shown = [f"{numbers[key]:.2f}" if key in numbers else "" for key in COLUMNS]
            print(f"| {name} | {mode} | {' | '.join(shown)} |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
        print(arguments.json, file=sys.stderr)


if __name__ == "__main__":
    main()
