"""Floating-point operations of one optimiser step of a recipe, counted on the meta device.

The step that training runs (`optimiser_step`: draws, rollout, decoder, judges, sweep, update) runs
on the meta device, where tensors have shapes and no values, and matrix products, convolutions and
attention are counted operator by operator (`flop_meter`).

All blocks of a kind have one shape, so a count is linear in their number: the step runs with two or
three numbers of blocks, and the line through them is followed to the model's own.

What depends on values cannot be counted without them: with a first-block cache or TeaCache every
block of every step is counted as run, and `train.keep_graphs: auto`, which measures memory, as 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from base_model.generator import Condition, Generator
from reward_tuning.estimate.flop_meter import Counted, FlopMeter
from reward_tuning.estimate.random_parts import random_generator, random_parts
from reward_tuning.estimate.shapes import Shape
from reward_tuning.estimate.step_parts import Parts, WatchedGenerator, watched
from reward_tuning.gradient.plan import Plan
from reward_tuning.judges.judge import Judge
from reward_tuning.progress import ProgressFn
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning.draws import Batch, draw_batch
from reward_tuning.tuning.parts import RunParts
from reward_tuning.tuning.step import anchored_steps
from reward_tuning.tuning.trainer import optimiser_step, options_at, start

META = torch.device("meta")
TERA = 1e12
ONE_BATCH = ("train.gradient_accumulation=1", "train.compile=false")
"""Overrides under which one batch is one step."""

Rows = Mapping[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]]
"""Phases, parts and passes of a row; they overlap nowhere. What is in none is the row `other`."""
ROWS: Rows = {
    "rollout": (("rollout",), ("positive", "negative", "both"), ("forward",)),
    "decoder forward": (("reward",), ("decoder",), ("forward",)),
    "decoder recomputed": (("reward",), ("decoder",), ("again",)),
    "decoder backward": (("reward",), ("decoder",), ("backward",)),
    "judges forward": (("reward",), ("judges",), ("forward",)),
    "judges recomputed": (("reward",), ("judges",), ("again",)),
    "judges backward": (("reward",), ("judges",), ("backward",)),
    "texts": (("reward",), ("text",), ("forward",)),
    "sweep forward": (("sweep",), ("positive", "negative", "both"), ("forward",)),
    "sweep recomputed": (("sweep",), ("positive", "negative", "both"), ("again",)),
    "sweep backward": (("sweep",), ("positive", "negative", "both"), ("backward",)),
    "anchor": (("sweep",), ("base",), ("forward",)),
}


@dataclass(frozen=True)
class Cost:
    """Operations of one clip in one optimiser step, the mean over the run's plans.

    Attributes:
        recipe: Name and overrides.
        shape: What was counted.
        branch: F, operations of one forward pass of one branch.
        rows: Operations of each phase.
        negative: Of all these, those of the negative branch.
        plans: Kinds of plans that cost differently, and how many draws had each.
    """

    recipe: str
    shape: str
    branch: float
    rows: Mapping[str, float]
    negative: float
    plans: Sequence[int]

    @property
    def total(self) -> float:
        """All operations."""
        return sum(self.rows.values())

    def as_json(self) -> dict[str, Any]:
        """Return the numbers, in F and in TFLOP."""
        return {
            "recipe": self.recipe,
            "shape": self.shape,
            "tflop_of_f": self.branch / TERA,
            "f": self.total / self.branch,
            "tflop": self.total / TERA,
            "negative_branch_f": self.negative / self.branch,
            "rows_f": {name: count / self.branch for name, count in self.rows.items()},
            "draws_of_each_cost": list(self.plans),
        }


def cost(
    name: str,
    recipe: Recipe,
    shape: Shape,
    *,
    all_blocks: bool = False,
    most: int | None = None,
) -> Cost:
    """Count a recipe's step.

    Args:
        name: Name in the table.
        recipe: Resolved, with one batch a step (`ONE_BATCH`).
        shape: Shapes of its networks.
        all_blocks: Run the whole transformer instead of following a line.
        most: Count only this many steps, spread over all from the shortest rollout to the longest;
            None counts every kind of step.
    """
    draws = kinds_of_steps(recipe, shape)
    if most is not None and most < len(draws):
        draws = _spread(draws, most)
    total: Counter[Counted] = Counter()
    number = sum(len(steps) for steps in draws.values())

    seen: Seen = {}

    def count(of: Shape) -> Mapping[Counted, float]:
        found: Counter[Counted] = Counter()
        for steps in draws.values():
            for what, flops in metered_step(recipe, of, steps[0], seen).flops.items():
                found[what] += flops * len(steps)
        found["branch", "", ""] = branch_flops(recipe, of)
        return found

    total.update(count(shape) if all_blocks else along_blocks(count, shape))
    branch = total.pop(("branch", "", ""))
    clips = number * recipe.train.batch_size
    each = {what: flops / clips for what, flops in total.items()}
    rows = rows_of(each, ROWS)
    negative = sum(
        n if part == "negative" else n / 2
        for (_, part, _), n in each.items()
        if part in ("negative", "both")
    )
    plans = sorted((len(steps) for steps in draws.values()), reverse=True)
    return Cost(name, shape.name, branch, rows, negative, plans)


def rows_of(each: Mapping[Counted, float], rows: Rows) -> dict[str, float]:
    """Sum operations by row, and the rest as `other`."""
    found = {
        row: sum(n for (a, b, c), n in each.items() if a in phases and b in parts and c in passes)
        for row, (phases, parts, passes) in rows.items()
    }
    return found | {"other": sum(each.values()) - sum(found.values())}


def along_blocks(count: Any, shape: Shape) -> dict[Counted, float]:
    """Follow a count, which is linear in the numbers of blocks, to a shape's own.

    Args:
        count: From a shape to numbers.
        shape: With blocks of one kind or two.
    """
    own, shared = shape.blocks
    few = (min(own, 2), min(shared, 1))
    least = count(shape.with_blocks(*few))
    found = dict(least)
    for kind, (here, there) in enumerate(zip(few, (own, shared), strict=True)):
        if there > here:
            more = [here + (kind == place) for place, here in enumerate(few)]
            one_more = count(shape.with_blocks(*more))
            for what in {*one_more, *least}:
                slope = one_more.get(what, 0) - least.get(what, 0)
                found[what] = found.get(what, 0) + (there - here) * slope
    return found


# --- one step


def metered_step(recipe: Recipe, shape: Shape, step: int, seen: Seen | None = None) -> FlopMeter:
    """Run one optimiser step on the meta device, under the meter.

    Args:
        recipe: Resolved.
        shape: Shapes of the networks.
        step: Index of the step within the run, from 0: it decides the plan.
        seen: Calls of other steps, of this model with any number of blocks, which need not run
            again; None runs every call.
    """
    if recipe.rollout.cache is not None and recipe.rollout.cache.kind != "taylor":
        # It would decide by values that are not there.
        without = recipe.rollout.model_copy(update={"cache": None})
        recipe = recipe.model_copy(update={"rollout": without})
    parts, where = random_parts(recipe, shape, META), Parts()
    watched(parts.sampler.generator, parts.judges, where)
    meter = FlopMeter(where)
    if seen is not None and recipe.rollout.cache is None:
        count_equal_calls_once(parts.sampler.generator, meter, seen, shape.blocks)
    state = start(recipe, parts)
    state.step = step
    with meter:
        optimiser_step(recipe, parts, state, Accelerator(cpu=True), where.on_progress)
    return meter


def metered(
    generator: Generator, judges: Sequence[Judge], step: Callable[[ProgressFn], object]
) -> Mapping[Counted, int]:
    """Return the operations of one step on the meta device.

    Args:
        generator: Of the step.
        judges: Of the step.
        step: Makes it, and reports its phases.
    """
    where = Parts()
    watched(generator, judges, where)
    with FlopMeter(where) as meter:
        step(where.on_progress)
    return meter.flops


class _Known(torch.autograd.Function):
    """The result of a call whose operations, forward and backward, are known."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, like: Tensor, flops: Mapping[Counted, int], meter: FlopMeter
    ) -> Tensor:
        ctx.later = {what: n for what, n in flops.items() if what[2] != "forward"}
        ctx.meter, ctx.shape = meter, x
        meter.flops.update({what: n for what, n in flops.items() if what[2] == "forward"})
        return torch.empty_like(like)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        ctx.meter.flops.update(ctx.later)
        return torch.empty_like(ctx.shape), None, None, None


Seen = dict[tuple[Any, ...], tuple[Tensor, Counter[Counted]]]
"""Result and operations of a call, by everything that decides its shapes."""


def count_equal_calls_once(
    generator: Generator, meter: FlopMeter, seen: Seen, blocks: tuple[int, int]
) -> None:
    """Let decodes, and velocities without gradient, run once for each shape, in place.

    The others of them add the same operations to the meter and return a tensor of the same shape,
    which is all that the meta device computes.

    Args:
        generator: On the meta device.
        meter: Of this step.
        seen: Calls of earlier steps; those of this step join them.
        blocks: Numbers of the transformer's blocks, which the decoder does not depend on.
    """
    assert isinstance(generator, WatchedGenerator)
    parts, run_velocity, run_decode = generator.parts, generator.velocity, generator.decode

    def known(key: tuple[Any, ...], x: Tensor, run: Callable[[], Tensor], part: str) -> Tensor:
        phase = parts.phase
        if key in seen:
            return _Known.apply(x, *seen[key], meter)
        before = Counter(meter.flops)
        result = run()

        def since() -> Counter[Counted]:
            new = meter.flops - before
            return Counter({what: n for what, n in new.items() if what[:2] == (phase, part)})

        seen[key] = result.detach(), since()
        if result.requires_grad:
            # The mark at the part's entrance has run before the gradient reaches x.
            x.register_hook(lambda gradient: seen.update({key: (result.detach(), since())}))
        return result

    def velocity(latents: Tensor, sigma: Tensor | float, condition: Condition) -> Tensor:
        if torch.is_grad_enabled():
            return run_velocity(latents, sigma, condition)
        part = generator.branch_of(condition)
        key = (blocks, parts.phase, part, latents.shape, condition.text.shape)
        return known(key, latents, lambda: run_velocity(latents, sigma, condition), part)

    def decode(latents: Tensor, frames: slice | None = None, **options: Any) -> Tensor:
        wanted = () if frames is None else (frames.start, frames.stop)
        graph = torch.is_grad_enabled() and latents.requires_grad
        key = (parts.phase, "decoder", latents.shape, wanted, *sorted(options.items()), graph)
        return known(key, latents, lambda: run_decode(latents, frames, **options), "decoder")

    generator.velocity = velocity  # type: ignore[method-assign]
    generator.decode = decode  # type: ignore[method-assign]


def branch_flops(recipe: Recipe, shape: Shape) -> int:
    """Count one forward pass of one branch for one clip, without an adapter."""
    generator = random_generator(recipe.generator, shape, META)
    size = (recipe.sampling.frames, recipe.sampling.height, recipe.sampling.width)
    latents = torch.empty(generator.latent_shape(1, *size), device=META)
    with torch.no_grad(), FlopMeter() as meter:
        generator.velocity(latents, 0.5, Condition(torch.empty(1, *shape.text, device=META)))
    return meter.total


# --- the plans of a run


def kinds_of_steps(recipe: Recipe, shape: Shape) -> dict[Any, list[int]]:
    """Return the steps of a run by what decides their cost."""
    found: dict[Any, list[int]] = {}
    for step, (batch, parts) in enumerate(_batches(recipe, shape)):
        decoder = options_at(parts.options, recipe.train, step + 1).decoder
        found.setdefault((decoder, *cost_key(batch, parts)), []).append(step)
    return found


def _batches(recipe: Recipe, shape: Shape) -> Iterator[tuple[Batch, RunParts]]:
    """Draw the batch of every step of a run."""
    parts = random_parts(recipe, shape.with_blocks(1, 0), META)
    state = start(recipe, parts)
    for step in range(recipe.train.steps):
        state.step = step
        yield draw_batch(recipe, parts.stream, parts.sigmas, state, Accelerator(cpu=True), 0), parts


def _spread(draws: Mapping[Any, list[int]], most: int) -> dict[Any, list[int]]:
    """Return a step of each of equal shares of all steps, in the order of their rollouts."""
    order = sorted(draws, key=lambda kind: (kind[1][0], str(kind)))
    steps = [(kind, step) for kind in order for step in draws[kind]]
    chosen = [steps[(2 * i + 1) * len(steps) // (2 * most)] for i in range(most)]
    return {(i, *kind): [step] for i, (kind, step) in enumerate(chosen)}


def largest_step(recipe: Recipe, shape: Shape) -> int:
    """Return the step of a run that holds most: most frames judged, most active steps."""
    sizes = [
        (
            recipe.sampling.frames if batch.frames is None else len(batch.frames),
            len(batch.plan.active),
            batch.plan.stop,
        )
        for batch, _ in _batches(recipe, shape)
    ]
    return max(range(len(sizes)), key=sizes.__getitem__)


def cost_key(batch: Batch, parts: RunParts) -> tuple[Any, ...]:
    """Return what the cost of a batch depends on: how many steps of which kind, and the frames.

    Which of equal steps they are does not matter.
    """
    guided: list[bool] = parts.sampler.guidance.applies(parts.sigmas).tolist()
    chains = [(0, (batch.plan, *batch.more_plans))]
    chains += [(restart.first, restart.plans) for restart in batch.restarts]
    every = [
        (
            plans[0].stop,
            plans[0].reward_input,
            sum(guided[first : first + len(plans[0].weights)]),
            tuple(_plan_key(plan, guided[first:], batch, parts) for plan in dict.fromkeys(plans)),
        )
        for first, plans in chains
    ]
    return (*every, batch.frames, batch.guidance_scale == 1.0)


def _plan_key(plan: Plan, guided: Sequence[bool], batch: Batch, parts: RunParts) -> tuple[Any, ...]:
    swept = Counter((i in plan.active, plan.flows_through(i), guided[i]) for i in plan.visited)
    anchored = anchored_steps(plan.active, parts.options.anchor_steps, batch.noise_seeds[0])
    guided_anchors = sum(guided[i] for i in anchored)
    return (plan.renoised, len(plan.leaps), guided_anchors, *sorted(swept.items()))
