"""A run pushed too far, the same with each guard, and what it looks like.

    python -m benchmarks.overoptimisation [--arms NAME ...] [--steps 120] [--every 20]
                                          [--prompts 48] [--clock wall|process] [--output FOLDER]
    python -m benchmarks.overoptimisation --report FOLDER [--pictures FOLDER]

DRTune on the aesthetic judge alone, which reads no prompt and has no upper end, at four times the
shipped rate. Every `--every` steps held-out prompts are scored, one clip each from the same noise,
by the judge that is trained on and by what it cannot fool: HPS, the held-out judge, the oracle,
motion. Each arm is one line of runs.jsonl and a file of clips; arms that are there are not run
again. The report needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.machine import machine
from benchmarks.trainee import CLOCKS, Trainee
from reward_tuning.lora.adapter import scaled
from reward_tuning.statistics.bootstrap import paired_difference

RECIPE = "tiny-draft-aesthetic"
PUSHED = (
    "method={kind: drtune, active_steps: 4}",
    "sampling.steps=8",
    "train.decoded=random-window",
    "train.decoder_checkpointing=false",
    "train.learning_rate=8.0e-4",
    "train.ema_decay=null",
    "train.anchor=0.0",
)
HPS = "{kind: hps, checkpoint: tiny/hps.safetensors, weight: 10.0}"
AESTHETIC = "{kind: aesthetic, checkpoint: tiny/aesthetic.safetensors, weight: 0.1}"
ARMS: dict[str, tuple[str, ...]] = {
    "pushed": PUSHED,
    "quarter of the rate": (*PUSHED, "train.learning_rate=2.0e-4"),
    "anchor": (*PUSHED, "train.anchor=0.1"),
    "replay": (*PUSHED, "train.replay={weight: 1.0, source: base, clips: 64}"),
    "target": (*PUSHED, "rewards.0.target=8.4"),
    "harder judge": (
        *PUSHED,
        "rewards.0.robust_radius=0.02",
        "rewards.0.augmentation={crop: 0.2, noise: 0.05}",
    ),
    "two judges": (*PUSHED, f"rewards=[{AESTHETIC}, {HPS}]"),
}
DIALS = (0.5, 0.25)
"""Strengths at which the last adapter of the pushed run is measured again."""

METRICS = {
    "aesthetic": "aesthetic, trained on",
    "hps": "HPS",
    "clip_held_out": "held-out judge",
    "oracle": "oracle: everything right",
    "motion": "motion",
}
SHOWN = 4
"""Prompts whose clips are kept."""


def one_arm(name: str, steps: int, every: int, prompts: int, clock: str, output: Path) -> None:
    """Train an arm, measure it on the way, and write its line and clips."""
    trainee = Trainee(RECIPE, ARMS[name], seed=0, clock=clock, prompts=prompts)
    points: list[dict[str, Any]] = []
    clips: dict[str, Tensor] = {}

    def measured(label: str, *, base: bool = False) -> None:
        scores = trainee.measure(1, base=base, keep_clips=SHOWN)
        values = {metric: list(scores.values[metric].values()) for metric in METRICS}
        points.append({"at": label, "seconds": trainee.seconds, "values": values})
        for index, clip in scores.clips.items():
            clips[f"{label}/{index}"] = clip.contiguous()
        print(f"{name}, {label}: {means(values)}", file=sys.stderr, flush=True)

    rows = []
    measured("0", base=True)
    for step in range(1, steps + 1):
        row = trainee.step()
        rows.append({"reward": row["reward"], "drift": row.get("drift"), "motion": row["motion"]})
        if step % every == 0:
            measured(str(step))
    if name == "pushed":
        for strength in DIALS:
            with scaled(trainee.parts.sampler.generator.transformer, strength):
                measured(f"strength {strength:g}")
    line = {
        "arm": name,
        "overrides": list(ARMS[name]),
        "settings": {"steps": steps, "every": every, "prompts": prompts, "clock": clock},
        "seconds_a_step": trainee.seconds / steps,
        "points": points,
        "rows": rows,
        "machine": machine(),
    }
    save_file(clips, output / f"{name.replace(' ', '-')}.safetensors")
    with (output / "runs.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def means(values: Mapping[str, Sequence[float]]) -> str:
    """Metrics in one line."""
    return ", ".join(f"{name} {sum(of) / len(of):.4f}" for name, of in values.items())


def all_arms(arguments: argparse.Namespace) -> None:
    """Run every arm that has no line yet, each in a process of its own."""
    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    done = {line["arm"] for line in read(output)}
    for name in arguments.arms:
        if name in done:
            continue
        command = [sys.executable, "-m", "benchmarks.overoptimisation", "--one", name]
        for option in ("steps", "every", "prompts", "clock", "output"):
            command += [f"--{option}", str(getattr(arguments, option))]
        subprocess.run(command, check=True)


def read(output: Path) -> list[dict[str, Any]]:
    """The finished arms."""
    path = output / "runs.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Every measured moment against the base of its own run, in Markdown."""
    text = [
        "| arm | at step | aesthetic | HPS | held-out judge | oracle, points | motion, % |",
        "|" + "---|" * 7,
    ]
    for line in lines:
        base = line["points"][0]["values"]
        motion = sum(base["motion"]) / len(base["motion"])
        for point in line["points"][1:]:
            cells = [line["arm"], point["at"]]
            for metric, factor, digits in (
                ("aesthetic", 1.0, 2),
                ("hps", 1.0, 3),
                ("clip_held_out", 1.0, 3),
                ("oracle", 100.0, 0),
                ("motion", 100.0 / motion, 0),
            ):
                of = paired_difference(base[metric], point["values"][metric])
                low, mean, high = (f"{factor * v:+.{digits}f}" for v in (of.low, of.mean, of.high))
                cells.append(f"{mean} [{low}, {high}]")
            text.append("| " + " | ".join(cells) + " |")
    return "\n".join(text) + "\n"


def noticed(lines: Sequence[Mapping[str, Any]]) -> str:
    """When each measure first says that an arm does harm, in Markdown.

    That is the first measured step whose paired 95 % interval lies below 0; a dash for never.
    """
    watched = [metric for metric in METRICS if metric != "aesthetic"]
    head = [METRICS[metric].split(":")[0] for metric in watched]
    text = [
        "| arm | " + " | ".join(head) + " | seconds a step |",
        "|" + "---|" * (len(watched) + 2),
    ]
    for line in lines:
        base = line["points"][0]["values"]
        cells = [line["arm"]]
        for metric in watched:
            steps = [
                point["at"]
                for point in line["points"][1:]
                if point["at"].isdigit()
                and paired_difference(base[metric], point["values"][metric]).high < 0.0
            ]
            cells.append(f"step {steps[0]}" if steps else "-")
        cells.append(f"{line['seconds_a_step']:.2f}")
        text.append("| " + " | ".join(cells) + " |")
    return "\n".join(text) + "\n"


def draw(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Each measure against the step, one line an arm."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(13, 6.5), layout="constrained", sharex=True)
    for place, (metric, title) in zip(axes.flat, METRICS.items(), strict=False):
        for line in lines:
            points = [p for p in line["points"] if p["at"].isdigit()]
            heights = [sum(p["values"][metric]) / len(p["values"][metric]) for p in points]
            place.plot([int(p["at"]) for p in points], heights, marker="o", label=line["arm"])
        place.set_title(title)
        place.grid(alpha=0.3)
        place.set_xlabel("step")
    axes[1, 2].axis("off")
    axes[1, 2].legend(*axes[0, 0].get_legend_handles_labels(), loc="center")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def sheet(clips: Mapping[str, Tensor], labels: Sequence[str]) -> Tensor:
    """First, middle and last frame of each prompt's clip in a row, one row a moment.

    Returns:
        `(1, 3, H, W)` in [0, 1].
    """
    rows = []
    for label in labels:
        cells = []
        for index in range(SHOWN):
            clip = clips[f"{label}/{index}"]
            cells += [clip[f] for f in (0, len(clip) // 2, len(clip) - 1)]
        rows.append(torch.cat(cells, dim=2))
    return torch.cat(rows, dim=1)[None]


def report(output: Path, pictures: Path | None) -> None:
    """Print the table; draw the curves and a sheet of clips of each arm."""
    lines = read(output)
    print(table(lines))
    print(noticed(lines))
    if pictures is None:
        return
    pictures.mkdir(parents=True, exist_ok=True)
    draw(lines, pictures / "overoptimisation.png")
    for line in lines:
        name = line["arm"].replace(" ", "-")
        clips = load_file(output / f"{name}.safetensors")
        labels = [point["at"] for point in line["points"]]
        write_picture(sheet(clips, labels)[0], pictures / f"overoptimisation-{name}.jpg")


def write_picture(image: Tensor, path: Path) -> None:
    """`(3, H, W)` in [0, 1] as a JPEG, colour at full resolution: a sixth of a PNG's bytes."""
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(path, quality=92, subsampling=0)


def main() -> None:
    parser = argparse.ArgumentParser(description="What over-optimisation looks like.")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--every", type=int, default=20, help="steps between two measurements")
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    parser.add_argument("--output", type=Path, default=Path("runs/overoptimisation"))
    parser.add_argument("--one", choices=list(ARMS), help="run this arm in this process")
    parser.add_argument("--report", type=Path, metavar="FOLDER")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    if arguments.report:
        report(arguments.report, arguments.pictures)
    elif arguments.one:
        a = arguments
        a.output.mkdir(parents=True, exist_ok=True)
        one_arm(a.one, a.steps, a.every, a.prompts, a.clock, a.output)
    else:
        all_arms(arguments)


if __name__ == "__main__":
    main()
