"""Weighted sums of adapters that were trained on different rewards: reward soups.

A sum of adapters is an adapter again, and its weights trade the rewards off without further
training (Ramé et al., Rewarded soups, arXiv 2306.04488).
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from base_model.files.shipped import resolve_checkpoint, shipped_checkpoints
from reward_tuning.errors import TuningError
from reward_tuning.evidence.adapters import adapter_path, base_in_header, checkpoint_of
from reward_tuning.lora.adapter import LoraWeights
from reward_tuning.lora.combining import combine
from reward_tuning.lora.export import export_adapter, import_adapter
from reward_tuning.lora.metadata import BASE
from reward_tuning.lora.module_shapes import transformer_shapes
from reward_tuning.lora.rank import Truncation, truncated

MOST_MIXES = 60  # clips of each are sampled on every prompt: more is a slip of --grid
MOST_WEIGHT = 10.0  # beyond it, nothing but noise has ever come out


@dataclass(frozen=True)
class Mix:
    """One weighted sum.

    Attributes:
        weights: Factor of each adapter, in the order of the sources.
    """

    weights: tuple[float, ...]

    @property
    def name(self) -> str:
        """Name of its file, such as `mix-0.25-0.75`."""
        return "mix-" + "-".join(f"{weight:g}" for weight in self.weights)


def base_of_mix(sources: Sequence[Path], checkpoint: str | None) -> str:
    """Return the generator of adapters that are to be mixed.

    Args:
        sources: Two or more run folders, LoRA files and LoRA folders.
        checkpoint: As given; None takes that of the first source inside a run folder, else the
            first that the header of a LoRA names.

    Raises:
        TuningError: Fewer than two sources, or no known generator.
    """
    if len(sources) < 2:
        raise TuningError(f"{len(sources)} LoRA to mix; give two or more")
    base = checkpoint or next(filter(None, map(checkpoint_of, sources)), None)
    base = base or next(filter(None, map(base_in_header, sources)), None)
    if base is None:
        raise TuningError(
            "none of the LoRAs is inside a run folder, so their generator is unknown; name it with "
            "--checkpoint, such as --checkpoint tiny"
        )
    return base


def read_adapters(sources: Sequence[Path], base: str) -> list[LoraWeights]:
    """Read adapters of one generator.

    Raises:
        TuningError: An adapter cannot be read, or is for another generator.
    """
    shapes = transformer_shapes(base)
    return [import_adapter(adapter_path(source), shapes) for source in sources]


def checked_weights(weights: Sequence[float], adapters: int) -> Mix:
    """Check the weights of one mix.

    Raises:
        TuningError: There are more or fewer weights than adapters, one is not finite or far too
            large, or all of them are 0.
    """
    if len(weights) != adapters:
        raise TuningError(
            f"--weights has {len(weights)} numbers for {adapters} LoRAs; give one each"
        )
    for weight in weights:
        if not math.isfinite(weight) or abs(weight) > MOST_WEIGHT:
            raise TuningError(
                f"--weights: got {weight:g}; allowed: -{MOST_WEIGHT:g} to {MOST_WEIGHT:g}"
            )
    if not any(weights):
        raise TuningError("--weights: all of them are 0, which is the base; give one that is not")
    return Mix(tuple(weights))


def grid_of_mixes(adapters: int, parts: int) -> list[Mix]:
    """Return the mixes of a grid whose weights sum to 1, without the adapters themselves.

    Args:
        adapters: Number of adapters, 2 or more.
        parts: Number of steps from 0 to 1: 4 gives 0.25, 0.5 and 0.75.

    Raises:
        TuningError: The grid has no mix, or more than can be evaluated.
    """
    if parts < 2:
        raise TuningError(f"--grid: got {parts}; allowed: 2 or more, such as 4 for quarters")
    count = math.comb(parts + adapters - 1, adapters - 1) - adapters
    if count > MOST_MIXES:
        raise TuningError(
            f"--grid {parts} of {adapters} LoRAs has {count} mixes; allowed: {MOST_MIXES}. Give a "
            "smaller --grid, or mix fewer LoRAs"
        )
    shares = (
        shares
        for shares in itertools.product(range(parts + 1), repeat=adapters)
        if sum(shares) == parts and max(shares) < parts
    )
    return [Mix(tuple(share / parts for share in one)) for one in shares]


def mixed(adapters: Sequence[LoraWeights], mix: Mix, rank: int | None) -> tuple[LoraWeights, str]:
    """Return the weighted sum, and what a smaller rank costs; "" where the sum is exact.

    Args:
        adapters: Adapters of one generator.
        mix: Their weights.
        rank: Rank of the result; None keeps the sum of the ranks, in which the sum is exact.

    Raises:
        TuningError: The rank is larger than the sum of the ranks.
    """
    used = [one for one in zip(adapters, mix.weights, strict=True) if one[1] != 0]
    total = combine(used)
    if rank is None:
        return total, ""
    if rank >= total.rank:
        raise TuningError(
            f"--rank: got {rank}; the exact sum has rank {total.rank}, so give less or leave out "
            "--rank"
        )
    small: Truncation = truncated(total, rank)
    return small.weights, str(small)


def write_mixes(
    adapters: Sequence[LoraWeights], mixes: Sequence[Mix], folder: Path, rank: int | None, base: str
) -> list[Path]:
    """Write each mix as one file into a folder, and return the files in order.

    Raises:
        TuningError: A file cannot be written.
    """
    paths = []
    for mix in mixes:
        weights, _ = mixed(adapters, mix, rank)
        path = folder / f"{mix.name}.safetensors"
        paths.append(export_adapter(weights, path, "diffusers", about=about_mix(mix, base)))
    return paths


def about_mix(mix: Mix, base: str) -> dict[str, str]:
    """Return what the header of a mix says of it.

    Args:
        mix: The mix.
        base: Its generator; a folder is not named, for its last part could be a shipped name.
    """
    found = {"reward_tuning.mix": ", ".join(f"{weight:g}" for weight in mix.weights)}
    if isinstance(resolve_checkpoint(base), str) or base in shipped_checkpoints():
        found[BASE] = json.dumps({"checkpoint": base})
    return found


def require_untrained(primary: str | None, trained_on: Sequence[str]) -> None:
    """Check, before anything is sampled, that a grid can choose by an honest judge.

    Args:
        primary: The metric that decides; None without one.
        trained_on: Judges that one of the runs was trained on.

    Raises:
        TuningError: None decides, or one that was trained on.
    """
    if primary is None or primary in trained_on:
        raise TuningError(
            f"--grid chooses by a metric that no run was trained on, and {primary or 'none'} "
            "decides here; name another with --primary, or add one with --judges"
        )


def best_side(evaluation: Mapping[str, Any]) -> int:
    """Return the index of the side with the highest mean of the metric that decides.

    Only sides at the main number of steps and guidance scale, at strength 1, take part.

    Args:
        evaluation: Content of evaluation.json.
    """
    primary = evaluation["primary"]
    sides = evaluation["sides"]
    main = (sides[0]["steps"], sides[0]["guidance_scale"])
    taking_part = [
        index
        for index, side in enumerate(sides)
        if side["strength"] == 1 and (side["steps"], side["guidance_scale"]) == main
    ]
    return max(taking_part, key=lambda index: sides[index]["means"][primary])
