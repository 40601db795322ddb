"""Floating-point operations of one optimiser step of a recipe, for each clip and by phase.

    python -m benchmarks.flops [RECIPE [KEY=VALUE ...] ...] [--against RECIPE]
                               [--blocks all] [--json]

Runs the step that training runs (`optimiser_step`: draws, rollout, decoder, judges, sweep, update)
on the meta device, where tensors have shapes and no values, at the published sizes, and counts
matrix products, convolutions and attention operator by operator (`reward_tuning.estimate`). Without
recipes: the shipped ones of the published models. An override belongs to the recipe before it.

F is one forward pass of one guidance branch for one clip, without an adapter: 46.6 TFLOP for the
12B at 256x256 and 49 frames. The mean is over the plans of the whole run, which the recipe's seed
decides; steps whose plans cost the same run once.

All blocks of a kind have one shape, so a count is linear in their number. By default the step runs
with two or three numbers of blocks, and the line through them is followed to the model's own;
`--blocks all` runs the whole model, which takes an hour.

What depends on values cannot be counted without them: with a first-block cache or TeaCache every
block of every step is counted as run, and `train.keep_graphs: auto`, which measures memory, as 0.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from reward_tuning.estimate.shapes import shape_of
from reward_tuning.estimate.step_cost import ONE_BATCH, TERA, Cost, cost
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.locate import shipped_recipes


def table(costs: Sequence[Cost], against: Cost | None) -> str:
    """Return the costs side by side, in F."""
    every = [*costs, *([] if against is None else [against])]
    names = [name for name in every[0].rows if any(of.rows[name] for of in every)]
    width = max(map(len, names)) + 2
    lines = [
        f"[{i}] {of.recipe} ({of.shape}; F = {of.branch / TERA:.4g} TFLOP)"
        for i, of in enumerate(every)
    ]
    lines += ["", "".ljust(width) + "".join(f"{f'[{i}]':>10}" for i in range(len(every)))]
    for name in names:
        lines.append(
            name.ljust(width) + "".join(f"{of.rows[name] / of.branch:10.2f}" for of in every)
        )
    for name, values in {
        "F per clip": [of.total / of.branch for of in every],
        "TFLOP": [of.total / TERA for of in every],
        "of it negative": [of.negative / of.branch for of in every],
    }.items():
        lines.append(name.ljust(width) + "".join(f"{value:10.2f}" for value in values))
    if against is not None:
        ratios = "".join(f"{of.total / against.total:10.3f}" for of in every)
        lines.append("ratio".ljust(width) + ratios)
    return "\n".join(lines)


def asked(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return recipes with their overrides: an override belongs to the recipe before it."""
    found: list[tuple[str, list[str]]] = []
    for word in words:
        if "=" not in word:
            found.append((word, []))
        elif not found:
            raise SystemExit(f"the override {word} stands before any recipe; name the recipe first")
        else:
            found[-1][1].append(word)
    return found


def published_recipes() -> list[str]:
    """Return the names of the shipped recipes that tune a published model on its rewards."""
    return [one.name for one in shipped_recipes() if one.name.startswith("easyanimate-")]


def counted(name: str, overrides: Sequence[str], *, all_blocks: bool) -> Cost:
    recipe = load_recipe(name, [*overrides, *ONE_BATCH], check_files=False)
    return cost(
        " ".join([name, *overrides]), recipe, shape_of(recipe.generator), all_blocks=all_blocks
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipes", nargs="*", metavar="RECIPE [KEY=VALUE ...]")
    parser.add_argument("--against", metavar="RECIPE", help="the recipe of the ratio")
    parser.add_argument("--blocks", choices=["few", "all"], default="few")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    whole = arguments.blocks == "all"
    recipes = asked(arguments.recipes) or [(name, []) for name in published_recipes()]
    costs = [counted(name, overrides, all_blocks=whole) for name, overrides in recipes]
    against = arguments.against and counted(arguments.against, [], all_blocks=whole)
    if arguments.json:
        every = [of.as_json() for of in costs]
        if against:
            for of, row in zip(costs, every, strict=True):
                row["ratio"] = of.total / against.total
        print(json.dumps(every, indent=1))
        return
    print(table(costs, against or None))


if __name__ == "__main__":
    main()
