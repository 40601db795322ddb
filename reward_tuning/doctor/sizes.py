"""What a recipe's training writes: the size of its checkpoints and of its LoRA."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

from base_model.core.family import FAMILY
from base_model.files.published_generators import published_size
from base_model.files.shipped import resolve_checkpoint, resolve_part
from base_model.loading.key_map import to_diffusers
from reward_tuning.evidence.any_recipe import AnyRecipe
from reward_tuning.files.safetensors_header import safetensors_shapes
from reward_tuning.lora.presets import PRESETS, in_preset, named
from reward_tuning.sampling.generator_parts import to_download
from reward_tuning.schema.loop_section import LoopSection
from reward_tuning.schema.sections import GeneratorSection, LoraSection

MOMENTS = {"adamw": 8, "adamw-8bit": 2}
"""Bytes that an optimiser keeps of each trained number."""
FORMATS = 3
"""Files in which a finished run writes its LoRA."""
WEIGHT_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
PACKED_BYTES = {"int8": 1.0, "fp8": 1.0, "nf4": 4.5 / 8, "int8-compute": 1.0, "fp8-compute": 1.0}
"""Bytes of a weight in memory, by dtype and as `base_model.memory.quantise` packs it."""
_PREFIX = re.compile(rf"^.*?(?={re.escape(FAMILY.blocks)}\.\d+\.)")

Shapes = Mapping[str, tuple[int, ...]]


def written_bytes(recipe: AnyRecipe) -> int | None:
    """Return the bytes of a run's checkpoints and its LoRA, without its clips.

    None where the generator's transformer is not on this disk and not a published one.
    """
    lora = getattr(recipe, "lora", None)
    count = trained_numbers(recipe.generator, lora)
    if count is None:
        return None
    exports = 1 if lora is None else FORMATS
    return count * (checkpoint_bytes(recipe.train) * kept_checkpoints(recipe.train) + 4 * exports)


def resident_bytes(generator: GeneratorSection) -> int | None:
    """Return the bytes of the transformer's weights in memory; None where they are not known.

    All count as packed where the linear layers of the blocks are, which hold nearly all of them.
    """
    count = trained_numbers(generator, None)
    if count is None:
        return None
    packed = generator.quantise
    return int(count * (PACKED_BYTES[packed] if packed else WEIGHT_BYTES[generator.dtype]))


def checkpoint_bytes(train: LoopSection) -> int:
    """Return the bytes of a checkpoint for each trained number: value, moments and average."""
    return 4 + MOMENTS[train.optimiser.kind] + (4 if train.ema_decay is not None else 0)


def kept_checkpoints(train: LoopSection) -> int:
    """Return the most checkpoints on the disk at once: a new one comes before an old one goes."""
    written = math.ceil(train.steps / train.checkpoint_every)
    return min(train.keep_checkpoints + 1, written)


def trained_numbers(generator: GeneratorSection, lora: LoraSection | None) -> int | None:
    """Return how many numbers a recipe trains, from the headers of the transformer's files.

    Args:
        generator: Resolved.
        lora: The adapter; None for all weights.
    """
    if generator.transformer is None and to_download(generator):
        size = published_size(generator.checkpoint)
        if size is None:
            return None
        if lora is None:
            return size.transformer
        return size.adapter[lora.targets] * lora.rank if isinstance(lora.targets, str) else None
    shapes = _transformer_shapes(generator)
    if not shapes:
        return None
    if lora is None:
        return sum(math.prod(shape) for shape in shapes.values())
    ends = ".weight"
    linear = {
        to_diffusers(_PREFIX.sub("", name.removesuffix(ends))): sum(shape)
        for name, shape in shapes.items()
        if len(shape) == 2 and name.endswith(ends)
    }
    return lora.rank * sum(linear[path] for path in _targets(list(linear), lora.targets))


def _targets(paths: list[str], targets: str | tuple[str, ...]) -> set[str]:
    if isinstance(targets, str):
        assert targets in PRESETS, targets
        return set(in_preset(paths, targets))
    return {path for name in targets for path in named(paths, name)}


def _transformer_shapes(generator: GeneratorSection) -> Shapes:
    """Read the shapes of a transformer's tensors; of one stored as a difference, its base's."""
    from base_model.loading.delta import base_of, is_delta  # imports torch

    place: Path | str
    if generator.transformer is not None:
        place = resolve_part("transformer", generator.transformer)
    else:
        place = resolve_checkpoint(generator.checkpoint)
    while isinstance(place, Path) and is_delta(place):
        place = resolve_checkpoint(base_of(place))
    if isinstance(place, str):
        place = _in_hub_cache(place)
    if place.is_file():
        return safetensors_shapes(place)
    folder = place / "transformer" if (place / "transformer").is_dir() else place
    found: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= safetensors_shapes(file)
    return found


def _in_hub_cache(hub_id: str) -> Path:
    from huggingface_hub import try_to_load_from_cache

    name, _, revision = hub_id.partition("@")
    found = try_to_load_from_cache(name, "transformer/config.json", revision=revision or None)
    return Path(found).parent if isinstance(found, str) else Path(hub_id)
