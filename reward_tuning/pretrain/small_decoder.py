"""Distil the small decoder of a recipe's VAE, on the latents that the recipe's judges will see.

Lessons come from rollouts of the recipe's own sampler on its training prompts: posterior means at
all noise levels, which early stops show to the judges, and the ends. The cotangents are gradients
of the recipe's judges on the true frames, with noise added. Lessons are files, made first; the
training then reads rows of them, so that a VAE of any size needs no more memory than one rollout.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from base_model.loading.small_decoder import write_small_decoder
from base_model.networks.small_decoder import SmallDecoder, SmallDecoderConfig, vae_fingerprint
from base_model.training.loop import OtherRunError, ReportFn, Schedule, train
from base_model.training.small_decoder import distillation_loss, lesson
from reward_tuning.errors import TuningError
from reward_tuning.files.atomic_write import atomic_write
from reward_tuning.gradient.engine import rollout
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.schema.recipe import Recipe
from reward_tuning.seeds import derive_generator, derive_seed
from reward_tuning.tuning.draws import frames_of
from reward_tuning.tuning.parts import RunParts, load_parts

STAGE = "small-decoder"
RECIPE = "tiny-demo"
"""Recipe of the small decoder in the package."""

WIDTHS = 32
"""Widths are multiples of it: the norms have 8 groups, and the layers 3/4 and 1/4 of the width."""

LEVELS = 3
"""States of a rollout that become lessons: one of each third of its steps."""

NOISE = 0.25
"""Share of white noise in a cotangent, so that the student learns more directions than the judges
of one recipe have."""

SCHEDULE = Schedule(
    steps=1000,
    learning_rate=2e-3,
    optimiser="muon",
    weight_decay=0.0,
    ema_decay=0.99,
    checkpoint_every=50,
)


@dataclass(frozen=True)
class Distillation:
    """What a distillation makes, and at what length.

    Attributes:
        width: Channels of the student at h/8, a multiple of 32.
        rollouts: Rollouts of `train.batch_size` clips that become lessons.
        windows: Latents of each clip that are decoded for lessons.
        steps: Optimiser steps.
        batch: Lessons in a step.
    """

    width: int = 64
    rollouts: int = 40
    windows: int = 2
    steps: int = 1000
    batch: int = 8


def distil_decoder(
    recipe: Recipe,
    *,
    output: Path,
    command: str,
    size: Distillation = Distillation(),  # frozen
    device: torch.device | None = None,
    progress: ProgressFn = silent,
) -> Path:
    """Distil a small decoder, or continue an interrupted distillation.

    Args:
        recipe: Resolved; of its keys those of the generator, the prompts, the sampling and the
            rewards count.
        output: Folder of the lessons, the checkpoint and `small-decoder.safetensors`.
        command: Command to record in the file.
        size: Size of student, lessons and training.
        device: Device of everything; None for the CPU.
        progress: Called as the work proceeds.

    Returns:
        Path of the file.

    Raises:
        TuningError: A wrong width, a recipe without a judge of frames, a folder of another
            distillation, or a loss that is not finite.
        GeneratorError: The generator cannot be loaded.
        RewardError: A judge cannot be loaded.
    """
    if size.width < WIDTHS or size.width % WIDTHS:
        raise TuningError(
            f"pretrain small-decoder: --width: got {size.width}; allowed: multiples of {WIDTHS}"
        )
    if not any(judge.kind != "latent" for judge in recipe.rewards):
        raise TuningError(
            "pretrain small-decoder: the recipe has no judge of frames, whose gradients the small "
            f"decoder is distilled on; choose a recipe with one, such as {RECIPE}"
        )
    device = device or torch.device("cpu")
    count = size.rollouts * recipe.train.batch_size
    parts = load_parts(recipe, device, count, progress)

    def report(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
        progress(ProgressEvent(stage, done, total, metrics=numbers))

    config = SmallDecoderConfig.of_width(size.width)
    lessons = make_lessons(recipe, parts, output / "lessons", size, config.past, report)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(recipe.seed, STAGE, "weights"))
        student = SmallDecoder(config)
    student.to(device)

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = draw_rows(lessons, size.batch, generator)
        return distillation_loss(student, {name: of.to(device) for name, of in rows.items()})

    try:
        train(
            STAGE,
            student,
            loss,
            replace(SCHEDULE, steps=size.steps),
            folder=output,
            seed=recipe.seed,
            report=report,
        )
    except (OtherRunError, FloatingPointError) as error:
        raise TuningError(f"pretrain small-decoder: {error}") from error
    path = output / "small-decoder.safetensors"
    fingerprint = vae_fingerprint(parts.sampler.generator.vae)
    write_small_decoder(path, student, fingerprint=fingerprint, command=command)
    return path


def make_lessons(
    recipe: Recipe,
    parts: RunParts,
    folder: Path,
    size: Distillation,
    past: int,
    report: ReportFn,
) -> list[Path]:
    """Write the lessons of each rollout to a file, or keep the file that is there.

    Raises:
        TuningError: The folder holds lessons of another distillation.
    """
    judges = [judge for judge in parts.judges if isinstance(judge, FramedJudge)]
    check_same_lessons(folder, about_lessons(recipe, parts, size, past))
    paths = [folder / f"{number:05d}.safetensors" for number in range(size.rollouts)]
    for number, path in enumerate(paths):
        if not path.is_file():
            temporary = path.with_suffix(".tmp")
            save_file(rollout_lessons(recipe, parts, judges, number, size, past), temporary)
            temporary.replace(path)
        report("lessons", number + 1, len(paths), {})
    return paths


def about_lessons(recipe: Recipe, parts: RunParts, size: Distillation, past: int) -> str:
    """Return everything that decides the lessons of a rollout, as JSON."""
    keys = {"seed", "sampling", "rewards", "lora"}
    decided = {
        "recipe": recipe.model_dump(mode="json", include=keys),
        "clips": recipe.train.batch_size,
        "windows": size.windows,
        "past": past,
        "files": dict(parts.fingerprints),
    }
    return json.dumps(decided, indent=1, sort_keys=True)


def check_same_lessons(folder: Path, about: str) -> None:
    """Record what decides the lessons of a folder; refuse a folder with other lessons.

    Raises:
        TuningError: The folder's record differs, or it holds files and no record.
    """
    record = folder / "about.json"
    if record.is_file() and record.read_text() == about:
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise TuningError(
            f"pretrain small-decoder: {folder} holds lessons of another recipe, other weights or "
            "of another size; choose a new --output, or delete that folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(record, about.encode())


def rollout_lessons(
    recipe: Recipe,
    parts: RunParts,
    judges: Sequence[FramedJudge],
    number: int,
    size: Distillation,
    past: int,
) -> dict[str, Tensor]:
    """Return the lessons of one rollout, all its rows concatenated."""
    batch, sampler = recipe.train.batch_size, parts.sampler
    draw = derive_generator(recipe.seed, STAGE, "lessons", number)
    places = range(number * batch, (number + 1) * batch)
    prompts = [parts.stream.prompt_at(place) for place in places]
    noise = sampler.noise([derive_seed(recipe.seed, STAGE, "noise", place) for place in places])
    velocity = sampler.velocity(sampler.condition(prompts), parts.sigmas)
    states = rollout(velocity, noise, parts.sigmas, len(parts.sigmas) - 1)
    shown = shown_latents(states, parts.sigmas)
    texts = [prompt.reward_text for prompt in prompts]
    rows: list[dict[str, Tensor]] = []
    for third in range(LEVELS):
        low, high = (len(shown) * edge // LEVELS for edge in (third, third + 1))
        latents = shown[int(torch.randint(low, max(high, low + 1), (), generator=draw))]
        order = torch.randperm(latents.shape[2], generator=draw)[: size.windows]
        for i in sorted(order.tolist()):
            judge = judges[int(torch.randint(len(judges), (), generator=draw))]
            cotangent = partial(judge_cotangent, judge, texts, draw, i)
            with parts.offload.at_work():
                rows.append(
                    lesson(
                        sampler.generator.vae,
                        latents,
                        i,
                        cotangent,
                        past=past,
                        checkpointing=sampler.decoder_checkpointing,
                    )
                )
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def shown_latents(states: Sequence[Tensor], sigmas: Tensor) -> list[Tensor]:
    """Return what judges may see of a rollout: the posterior mean at each step, and the end.

    The velocity at a step is the change of the state over that of sigma (Euler's method).
    """
    means = [
        x - sigmas[i] * (after - x) / (sigmas[i + 1] - sigmas[i])
        for i, (x, after) in enumerate(itertools.pairwise(states))
    ]
    return [*means, states[-1]]


def judge_cotangent(
    judge: FramedJudge,
    texts: Sequence[str],
    draw: torch.Generator,
    i: int,
    frames: Tensor,
    first: int,
) -> Tensor:
    """Return a judge's gradient on latent i's frames, of unit size in each clip, with noise."""
    x = frames.detach().requires_grad_()
    scores = judge.within(tuple(frames_of(i))).scores(x, texts, first=first)
    (gradient,) = torch.autograd.grad(scores.sum(), x)
    size = gradient.square().flatten(1).mean(dim=1).sqrt().clamp_min(1e-20)
    noise = torch.randn(gradient.shape, generator=draw).to(gradient)
    return gradient / size[:, None, None, None, None] + NOISE * noise


def draw_rows(lessons: Sequence[Path], count: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw lessons from any of the files, with replacement; only these rows are read."""
    found: list[dict[str, Tensor]] = []
    for _ in range(count):
        path = lessons[int(torch.randint(len(lessons), (), generator=generator))]
        with safe_open(path, framework="pt") as file:
            total = file.get_slice("first").get_shape()[0]
            row = int(torch.randint(total, (), generator=generator))
            names = list(file.keys())
            found.append({name: file.get_slice(name)[row : row + 1] for name in names})
    return {name: torch.cat([row[name] for row in found]) for name in found[0]}
