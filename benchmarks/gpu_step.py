"""One optimiser step at the published 7B and 12B shapes, by phase and lever: seconds and memory.

    python -m benchmarks.gpu_step [--shape 7b 12b] [--minutes 10] [--only NAME ...] > gpu_step.json
    python -m benchmarks.gpu_step --device cpu --shape small

**No number of it has been measured on a GPU yet**: none was at hand. On a CPU everything runs at a
small shape, and tests check everything but the numbers.

Nothing is downloaded: weights are random; networks, judge (ViT-H-14) and clip (256x256, 49 frames)
have the published shapes. A row is the shipped recipe with 12 sampling steps to the end, 4 of them
active, one clip a step, and the lever's overrides. The step that warms up is counted operator by
operator (`reward_tuning.estimate`); the next one, of the same prompt, noise and plan, is timed.
Rates are compared with the device's own for matrix products in the row's dtype, measured first.

The rows come in the order of their importance. One that would not fit in the time left, does not
fit in memory, or needs a package that is not here is listed as such. Two goals are judged: 50 % of
the matrix rate in the transformer, and under 10 % of the step outside transformer, decoder and
judges.

The table goes to the standard error, JSON to the standard output.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

import torch
from accelerate import Accelerator

from base_model.errors import GeneratorError
from benchmarks.machine import machine
from benchmarks.small_shape import SMALL, SMALL_CLIP
from benchmarks.step_clock import StepClock, matrix_rate
from reward_tuning.errors import TuningError
from reward_tuning.estimate.flop_meter import FlopMeter
from reward_tuning.estimate.random_parts import random_parts
from reward_tuning.estimate.shapes import Shape, shape_of
from reward_tuning.estimate.step_parts import TRANSFORMER, Parts, watched
from reward_tuning.sampling.compilation import uncompiled
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning.trainer import optimiser_step, start
from rewards import RewardError

RATE_GOAL, OUTSIDE_GOAL = 0.5, 0.1
SHAPES = ("7b", "12b", "small")
BASE = (
    "sampling.steps=12",
    "method.early_stop=false",
    "method.active_steps=4",
    "train.keep_graphs=0",
    "train.batch_size=1",
    "train.gradient_accumulation=1",
)
SIZES = {"cuda": (2048, 4096, 8192), "cpu": (128, 256)}
"""Of the matrices whose products give the device's rate."""


@dataclass(frozen=True)
class Lever:
    """One row.

    Attributes:
        name: In the table.
        overrides: Of the recipe.
        weight: Expected time of its step, in steps of the plain row.
        least: Seconds that it needs in any case.
    """

    name: str
    overrides: tuple[str, ...] = ()
    weight: float = 1.0
    least: float = 0.0


LEVERS = (
    Lever("plain"),
    Lever("K = 1", ("method.active_steps=1",)),
    Lever("K = 10", ("method.active_steps=10",), 1.7),
    Lever("4 graphs kept", ("train.keep_graphs=4",)),
    Lever("10 graphs kept, K = 10", ("method.active_steps=10", "train.keep_graphs=10"), 1.5),
    Lever("no gradient checkpoints", ("train.gradient_checkpointing=false",)),
    Lever("4 steps at once", ("train.steps_at_once=4",)),
    Lever("guidance at sigma 0.3 to 0.9", ("sampling.guidance_steps=[0.3, 0.9]",)),
    Lever("small decoder", ("train.decoder=small",)),
    Lever("decoder without checkpoints", ("train.decoder_checkpointing=false",)),
    Lever(
        "judge in one pass",
        ("rewards.0.chunk=null", "rewards.0.gradient_checkpointing=false"),
    ),
    Lever("no anchor", ("train.anchor=0", "train.anchor_steps=null")),
    Lever("offload", ("generator.memory=offload",), 1.5),
    Lever("block-offload", ("generator.memory=block-offload",), 4.0),
    Lever("fp8", ("generator.quantise=fp8",), 1.5),
    Lever("int8", ("generator.quantise=int8",), 1.5),
    Lever("nf4", ("generator.quantise=nf4",), 1.5),
    Lever("int8-compute", ("generator.quantise=int8-compute",), 1.5),
    Lever("fp8-compute", ("generator.quantise=fp8-compute",), 1.5),
    Lever("first-block cache 0.1", ("rollout.cache=0.1",)),
    Lever("Taylor cache, interval 2", ("rollout.cache=taylor:2",)),
    Lever("TeaCache 0.08", ("rollout.cache=teacache:0.08",)),
    Lever("two updates a rollout", ("train.updates_per_rollout=2",), 1.5),
    Lever("float32", ("generator.dtype=float32",), 4.0),
    Lever(
        "float32, rollout in bfloat16", ("generator.dtype=float32", "rollout.dtype=bfloat16"), 3.0
    ),
    Lever("compiled blocks", ("train.compile=true",), 1.0, 60.0),
)


@dataclass(frozen=True)
class Row:
    """What one lever gave at one shape.

    Attributes:
        lever: Its name.
        shape: Of the networks.
        status: `measured`, `out of memory`, `out of time` or `not available`.
        why: The error, or the time that was missing.
        seconds: Of each phase and of the step.
        parts: Seconds of transformer, decoder, judges and the rest.
        tflop: Operations of these, in 10^12.
        memory: Largest bytes of each phase.
        rate: TFLOP/s of the step.
        transformer_rate: TFLOP/s in the transformer.
        of_matrix_rate: That as a share of the device's matrix rate.
        outside: Share of the step outside transformer, decoder and judges.
        reads: Times that the host waited for a value.
    """

    lever: str
    shape: str
    status: str = "measured"
    why: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, float] = field(default_factory=dict)
    tflop: Mapping[str, float] = field(default_factory=dict)
    memory: Mapping[str, int] = field(default_factory=dict)
    rate: float = 0.0
    transformer_rate: float = 0.0
    of_matrix_rate: float = 0.0
    outside: float = 0.0
    reads: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the row with its goals."""
        measured = self.status == "measured"
        goals = {
            "half_of_matrix_rate": self.of_matrix_rate >= RATE_GOAL,
            "tenth_outside": self.outside < OUTSIDE_GOAL,
        }
        return asdict(self) | {"goals": goals if measured else None}


def recipe_of(shape: str, overrides: Sequence[str]) -> Recipe:
    """Return the recipe of a row."""
    size = "7b" if shape == "small" else shape
    small = SMALL_CLIP if shape == "small" else ()
    return load_recipe(
        f"easyanimate-v5.1-{size}-hps", [*BASE, *small, *overrides], check_files=False
    )


def networks_of(shape: str, recipe: Recipe) -> Shape:
    """Return the shapes of a row's networks."""
    return SMALL if shape == "small" else shape_of(recipe.generator)


def group_of(part: str) -> str:
    """Return transformer, decoder, judges or rest."""
    if part in TRANSFORMER:
        return "transformer"
    return {"decoder": "decoder", "judges": "judges", "text": "judges"}.get(part, "rest")


def measured(lever: Lever, shape: str, device: torch.device, rate: Callable[..., float]) -> Row:
    """Count one step and time the next.

    Args:
        lever: The row.
        shape: Name of the shape.
        device: Where it runs.
        rate: From a dtype to the device's operations a second.
    """
    recipe = recipe_of(shape, lever.overrides)
    parts = random_parts(recipe, networks_of(shape, recipe), device)
    clock = StepClock(device)
    where = Parts(clock)
    watched(parts.sampler.generator, parts.judges, where)
    state, accelerator = start(recipe, parts), Accelerator(cpu=device.type == "cpu")
    meter = FlopMeter(where)

    def step() -> dict[str, Any]:
        state.step = state.position = 0  # the same prompt, noise and plan
        return optimiser_step(recipe, parts, state, accelerator, where.on_progress)

    # No meter sees the compiler's operators.
    with meter, uncompiled(parts.sampler.generator.transformer):
        step()
    if recipe.train.compile:
        step()
    clock.begin()
    row = step()
    seconds = clock.end(where.where)
    if state.bad_steps:
        raise RuntimeError(f"{lever.name}: a step was not finite; the random weights are too large")
    spent = dict.fromkeys(("transformer", "decoder", "judges", "rest"), 0.0)
    tflop = dict(spent)
    for (_, part), value in seconds.items():
        spent[group_of(part)] += value
    for (_, part, _), count in meter.flops.items():
        if part != "text":  # encoded once: the timed step has it already
            tflop[group_of(part)] += count / 1e12
    total = sum(spent.values())
    of_transformer = tflop["transformer"] / spent["transformer"]
    return Row(
        lever.name,
        shape,
        seconds=row["seconds"],
        parts=spent,
        tflop=tflop,
        memory=row["memory"],
        rate=sum(tflop.values()) / total,
        transformer_rate=of_transformer,
        of_matrix_rate=of_transformer * 1e12 / rate(getattr(torch, recipe.generator.dtype)),
        outside=spent["rest"] / total,
        reads=sum(meter.reads.values()),
    )


def tried(lever: Lever, shape: str, device: torch.device, rate: Callable[..., float]) -> Row:
    """Measure a row, or say why there is none."""
    try:
        return measured(lever, shape, device, rate)
    except (GeneratorError, TuningError, RewardError) as error:
        return Row(lever.name, shape, "not available", str(error))
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "out of memory" not in str(error):
            raise
        first = (str(error).splitlines() or ["of the host"])[0]
        return Row(lever.name, shape, "out of memory", first)
    finally:
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def rows_within(
    seconds: float, levers: Sequence[Lever], shapes: Sequence[str], measure: Callable[..., Row]
) -> Iterator[Row]:
    """Measure row after row, as long as the next one is expected to end in time.

    A row takes about three steps of its kind: its weights, the counted step and the timed one.

    Args:
        seconds: For all of them.
        levers: In the order of their importance.
        shapes: Likewise; a lever is tried at each before the next one.
        measure: `(lever, shape) -> row`.
    """
    began = time.monotonic()
    plain: dict[str, float] = {}  # seconds of the first row at a shape, for one of weight 1
    for lever in levers:
        for shape in shapes:
            left = seconds - (time.monotonic() - began)
            needed = max(lever.least, lever.weight * plain.get(shape, 0.0))
            if needed > left:
                why = f"{needed:.0f} s needed, {max(left, 0.0):.0f} s left"
                yield Row(lever.name, shape, "out of time", why)
                continue
            start_of_row = time.monotonic()
            row = measure(lever, shape)
            if row.status == "measured":
                plain.setdefault(shape, (time.monotonic() - start_of_row) / lever.weight)
            yield row


# --- the command


def table(rows: Sequence[Row], rates: Mapping[str, Mapping[int, float]]) -> str:
    """Return the rows for people."""
    lines = [
        f"matrix products in {dtype}: "
        + ", ".join(f"{size}: {rate / 1e12:.3g} TFLOP/s" for size, rate in found.items())
        for dtype, found in rates.items()
    ]
    names = ("rollout", "reward", "sweep", "update", "step")
    head = f"{'shape':6} {'lever':30}" + "".join(f"{name:>9}" for name in names)
    lines += ["", head + f"{'GB':>7}{'TFLOP':>8}{'TFLOP/s':>9}{'of rate':>9}{'outside':>9}  goals"]
    for row in rows:
        line = f"{row.shape:6} {row.lever:30}"
        if row.status != "measured":
            lines.append(f"{line} {row.status}: {row.why}")
            continue
        line += "".join(f"{row.seconds[name]:9.3g}" for name in names)
        line += f"{max(row.memory.values()) / 1e9:7.1f}{sum(row.tflop.values()):8.3g}"
        line += f"{row.rate:9.3g}{row.of_matrix_rate:9.0%}{row.outside:9.0%}"
        goals = row.as_json()["goals"]
        lines.append(line + "  " + ", ".join("met" if met else "not met" for met in goals.values()))
    lines.append(
        f"goals: {RATE_GOAL:.0%} of the matrix rate in the transformer; under {OUTSIDE_GOAL:.0%} "
        "of the step outside transformer, decoder and judges"
    )
    return "\n".join(lines)


def device_of(name: str | None) -> torch.device:
    """Return the device to measure.

    Raises:
        SystemExit: There is no CUDA device and none was named.
    """
    if name is None and not torch.cuda.is_available():
        raise SystemExit(
            "gpu_step measures a CUDA device, and torch sees none here. Run it where there is one, "
            "or check it at a small shape with --device cpu --shape small"
        )
    return torch.device(name or "cuda")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", help="cuda if not given")
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=["7b", "12b"])
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="no row begins that would exceed"
    )
    names = [lever.name for lever in LEVERS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="LEVER")
    arguments = parser.parse_args(words)
    device = device_of(arguments.device)
    if device.type == "cpu" and arguments.shape != ["small"]:
        raise SystemExit("on a CPU a published shape takes hours a step; give --shape small")
    began = time.monotonic()
    rates: dict[str, dict[int, float]] = {}

    @cache
    def rate(dtype: torch.dtype) -> float:
        found = matrix_rate(device, dtype, SIZES[device.type])
        rates[str(dtype).removeprefix("torch.")] = found
        return max(found.values())

    rate(torch.bfloat16)
    left = 60 * arguments.minutes - (time.monotonic() - began)
    rows = []
    for row in rows_within(
        left,
        [lever for lever in LEVERS if lever.name in arguments.only],
        arguments.shape,
        lambda lever, shape: tried(lever, shape, device, rate),
    ):
        print(f"{row.shape} {row.lever}: {row.status}", file=sys.stderr, flush=True)
        rows.append(row)
    print(table(rows, rates), file=sys.stderr)
    about = {"machine": machine(), "base": BASE, "matrix_rates": rates}
    print(json.dumps(about | {"rows": [row.as_json() for row in rows]}, indent=1))


if __name__ == "__main__":
    main()
