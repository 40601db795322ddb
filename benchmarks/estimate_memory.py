"""The estimated memory of a run against the measured peak of its process, on the CPU.

    python -m benchmarks.estimate_memory [CASE ...]

A case is the embedded demo, with its own weights, or a model of middle size with random ones, in
each kind of training. Each runs two optimiser steps and a batch of an evaluation in a process of
its own, whose largest resident memory the system keeps. The C library keeps freed memory of up to
32 MB a piece for later use, which is no part of the estimate: the processes run with
MALLOC_MMAP_THRESHOLD_=131072, which gives it back, and once more without, for comparison.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator

from benchmarks.machine import machine
from benchmarks.small_shape import SMALL
from reward_tuning.distil.recipe import DistilRecipe
from reward_tuning.distil.trainer import distil_step
from reward_tuning.estimate.distil_parts import random_distil_parts
from reward_tuning.estimate.estimate import work_of
from reward_tuning.estimate.evaluation_batch import evaluate_batch
from reward_tuning.estimate.finetune_parts import random_finetune_parts
from reward_tuning.estimate.finetune_work import FinetuneWork, sample_one
from reward_tuning.estimate.phase_memory import peak
from reward_tuning.estimate.process_memory import imported_bytes
from reward_tuning.estimate.random_parts import random_parts
from reward_tuning.estimate.shapes import Shape, shape_of
from reward_tuning.evidence.any_recipe import AnyRecipe, load_any_recipe
from reward_tuning.finetune.held_out import measure
from reward_tuning.finetune.recipe import FinetuneRecipe
from reward_tuning.finetune.trained import exported_weights
from reward_tuning.finetune.trainer import finetune_step
from reward_tuning.progress import silent
from reward_tuning.runs.training_state import initial_state
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning.parts import load_parts
from reward_tuning.tuning.trainer import optimiser_step, start

STEPS = 2
CPU = torch.device("cpu")
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072"}
FLOAT32 = (
    *("generator.dtype=float32", "rewards.0.dtype=float32", "rewards.0.frames=2"),
    *("sampling.steps=4", "method.active_steps=2", "train.keep_graphs=1", "train.batch_size=1"),
)
_VIEW = {"image_size": 224, "layers": 6, "width": 384, "patch_size": 16, "head_width": 64}
_READ = {"context_length": 77, "vocab_size": 49408, "width": 256, "heads": 4, "layers": 4}
JUDGE = {"embed_dim": 128, "vision_cfg": _VIEW, "text_cfg": _READ}


@dataclass(frozen=True)
class Case:
    """A recipe and the shapes of its networks.

    Attributes:
        recipe: Name.
        overrides: Of the recipe.
        shape: None for those of its checkpoint, which is loaded.
    """

    recipe: str
    overrides: Sequence[str] = ()
    shape: Shape | None = None

    def loaded(self) -> AnyRecipe:
        """Return the recipe, with one batch a step."""
        overrides = [*self.overrides, "train.gradient_accumulation=1"]
        return load_any_recipe(self.recipe, overrides, check_files=self.shape is None)


def _shape(blocks: tuple[int, int], heads: int, text: int, widths: Sequence[int]) -> Shape:
    own, shared = blocks
    sizes = {"num_attention_heads": heads, "attention_head_dim": 64, "text_embed_dim": text}
    return replace(
        SMALL,
        name=f"{own + shared} blocks of {64 * heads}",
        transformer={**SMALL.transformer, **sizes, "time_embed_dim": 128},
        vae={**SMALL.vae, "block_out_channels": list(widths)},
        text_encoder={"hidden_size": text, "max_position_embeddings": 128},
        judge=JUDGE,
    ).with_blocks(own, shared)


WIDE = _shape((4, 4), 12, 512, (64, 64, 128, 128))
DEEP = _shape((10, 0), 6, 128, (16, 32, 32, 64))
MIDDLE = _shape((6, 0), 8, 256, (32, 64, 64, 64))


def _tuning(shape: Shape, frames: int, side: int) -> Case:
    size = (f"sampling.frames={frames}", f"sampling.height={side}", f"sampling.width={side}")
    return Case("easyanimate-v5.1-7b-hps", (*FLOAT32, *size), shape)


def _finetune(shape: Shape, frames: int, side: int, *overrides: str) -> Case:
    size = (f"data.frames={frames}", f"data.sides=[{side}]", "data.tokens=null")
    plain = ("generator.dtype=float32", "data.held_out=1", "train.batch_size=2")
    return Case("finetune/easyanimate-v5.1-7b-lora", (*plain, *size, *overrides), shape)


def _distil(shape: Shape, frames: int, side: int) -> Case:
    size = (f"student.frames={frames}", f"student.height={side}", f"student.width={side}")
    few = ("student.steps=3", "teacher.steps_per_phase=2", "generator.dtype=float32")
    judge = (
        "evaluation.held_out_rewards.0.dtype=float32",
        "evaluation.held_out_rewards.0.frames=2",
    )
    one = "evaluation.held_out_rewards.1"
    other = (f"{one}.dtype=float32", f"{one}.frames=2", "train.batch_size=2")
    return Case("distil/easyanimate-v5.1-7b-4-steps", (*size, *few, *judge, *other), shape)


CASES: Mapping[str, Case] = {
    "demo": Case("tiny-demo"),
    "wide": _tuning(WIDE, 5, 128),
    "deep": _tuning(DEEP, 13, 96),
    "middle": _tuning(MIDDLE, 9, 128),
    "finetune": _finetune(WIDE, 9, 128),
    "every weight": _finetune(WIDE, 5, 128, "lora=null"),
    "autocast": _finetune(WIDE, 5, 128, "lora=null", "train.autocast=bfloat16"),
    "distil": _distil(MIDDLE, 9, 128),
}


def estimated(case: Case) -> tuple[str, float]:
    """Return the phase that needs most, and the bytes of its tensors."""
    recipe = case.loaded()
    work = work_of(recipe, case.shape or shape_of(recipe.generator))
    return peak(work.follow(cpu=True).memory)


def run_steps(case: Case) -> None:
    """Run the steps in this process, and print its largest resident bytes."""
    match recipe := case.loaded():
        case FinetuneRecipe():
            _run_finetune(recipe, case.shape)
        case DistilRecipe():
            _run_distil(recipe, case.shape)
        case _:
            _run_tuning(recipe, case.shape)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def _run_tuning(recipe: Recipe, shape: Shape | None) -> None:
    if shape is None:
        parts = load_parts(recipe, CPU, STEPS * recipe.train.batch_size, silent)
    else:
        parts = random_parts(recipe, shape, CPU)
    state, accelerator = start(recipe, parts), Accelerator(cpu=True)
    for _ in range(STEPS):
        optimiser_step(recipe, parts, state, accelerator)
    clips = recipe.evaluation.batch_size or recipe.train.batch_size
    evaluate_batch(parts.sampler, parts.judges, parts.stream.drawn(1)[0], clips)


def _run_finetune(recipe: FinetuneRecipe, shape: Shape | None) -> None:
    assert shape is not None
    clips = FinetuneWork(recipe, shape).clips
    (batch,), held_out = clips.largest, clips.held_out[-1]
    parts = random_finetune_parts(recipe, shape, CPU, batch, held_out)
    state, accelerator = initial_state(recipe.train, parts.trained, []), Accelerator(cpu=True)
    for _ in range(STEPS):
        finetune_step(recipe, parts, state, accelerator)
    state.optimiser.zero_grad()
    with exported_weights(parts.trained, state):
        measure(recipe, parts)
        sample_one(recipe, parts, held_out)


def _run_distil(recipe: DistilRecipe, shape: Shape | None) -> None:
    assert shape is not None
    parts = random_distil_parts(recipe, shape, CPU)
    state, accelerator = initial_state(recipe.train, parts.trained, []), Accelerator(cpu=True)
    for _ in range(STEPS):
        distil_step(recipe, parts, state, accelerator)
    clips = recipe.evaluation.batch_size or recipe.train.batch_size
    evaluate_batch(parts.teacher, parts.judges, parts.held_out[0], clips)


def measured(name: str, environment: Mapping[str, str]) -> int:
    """Run a case in a process of its own; return its largest resident bytes."""
    command = [sys.executable, "-m", "benchmarks.estimate_memory", "--run", name]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], metavar="CASE")
    parser.add_argument("--run", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run_steps(CASES[arguments.run])
        return
    print(machine())
    libraries = imported_bytes()  # before the estimates leave anything behind
    print(f"{'case':<13}{'phase':<12}{'estimated':>10}{'measured':>10}{'ratio':>8}{'kept':>10}")
    for name in arguments.cases or CASES:
        case = CASES[name]
        phase, size = estimated(case)
        size += libraries
        real, kept = measured(name, GIVES_BACK), measured(name, {})
        cells = f"{size / 1e9:10.2f}{real / 1e9:10.2f}{size / real:8.3f}{kept / 1e9:10.2f}"
        print(f"{name:<13}{phase:<12}{cells}", flush=True)


if __name__ == "__main__":
    main()
