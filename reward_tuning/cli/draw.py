"""Draw the clips of a request: load the generator, sample, decode, write."""

import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from base_model.core.family import FAMILY
from reward_tuning.cli.devices import chosen_device
from reward_tuning.cli.quick_imports import quick_imports
from reward_tuning.cli.request import Request
from reward_tuning.cli.stopping import Stopped
from reward_tuning.files.atomic_write import ANOTHER_PLACE, atomic_write, check_writable
from reward_tuning.inputs.condition_files import NO_CONDITION
from reward_tuning.progress import ProgressEvent, ProgressFn
from reward_tuning.schema.cache_kinds import AUTO, cache_of, cache_text

if TYPE_CHECKING:
    from torch import Tensor

    from base_model.core.family import ClipSize
    from base_model.generator import Generator
    from base_model.memory.modes import Memory
    from base_model.memory.quantise import Quantise
    from base_model.networks.attention_backend import Attention
    from base_model.networks.tiled_decode import Tiling
    from reward_tuning.inputs.condition_pixels import ConditionPixels
    from reward_tuning.lora.adapter import LoraWeights
    from reward_tuning.sampling.cheap_steps import CheapSteps
    from reward_tuning.schema.cache_kinds import CacheSection


@dataclass(frozen=True)
class _Parts:
    """The loaded generator with its adapter, and the pixels that each clip is conditioned on."""

    generator: "Generator"
    size: "ClipSize"
    conditions: "list[ConditionPixels | None]"
    cheap: "CheapSteps"
    tiling: "Tiling | None"


def draw(request: Request) -> None:
    """Draw and write the clips of a request; print each path and describe each clip in `about`.

    Raises:
        TuningError: Options or condition files do not fit together, the output cannot be written,
            or the disk is full.
        GeneratorError: The checkpoint cannot be loaded, or does not take the size or condition.
    """
    with quick_imports():
        request.check()  # imports most of them
    for folder in dict.fromkeys(path.parent for of_clip in request.paths for path in of_clip):
        check_writable(folder)
    with quick_imports():
        from reward_tuning.cli.display import Display
        from reward_tuning.files.clips import write_clip
        from reward_tuning.inputs.previews import write_previews
        from reward_tuning.sampling.clip_memory import reported_out_of_memory

    about: list[dict[str, Any]] = []
    clips = 0
    try:
        with Display() as progress, ExitStack() as stack:
            parts = _loaded(request, stack, progress)
            for i, read in enumerate(parts.conditions):
                with reported_out_of_memory(f"a clip of {' x '.join(map(str, parts.size))}"):
                    clip = _drawn(request, parts, i, progress)
                for path in request.paths[i]:
                    write_clip(clip, path)
                    print(path)
                    about.append(_about(request, parts, i, path))
                if request.previews and read is not None:
                    for path in write_previews(read, request.paths[i][0]):
                        print(path)
                clips += 1
    except Stopped as stop:
        stop.hint = f"{clips} of {len(request.prompts)} clips are written"
        raise
    finally:
        if request.about is not None and about:
            lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in about)
            atomic_write(request.about, lines.encode(), advice=ANOTHER_PLACE)


def _loaded(request: Request, stack: ExitStack, progress: ProgressFn) -> _Parts:
    """Load the parts; refuse what configs and headers show to be wrong before reading weights."""
    with quick_imports():
        import torch

        from base_model.core.family import ClipSize
        from base_model.files.shipped import resolve_checkpoint
        from base_model.generator import load_generator
        from base_model.loading.checkpoint import local_folder
        from base_model.loading.clip_size import check_clip_size, own_clip_size
        from base_model.loading.model_configs import kind_of_checkpoint
        from base_model.networks.tiled_decode import Tiling
        from reward_tuning.inputs.condition_pixels import check_kind, read_condition_pixels
        from reward_tuning.inputs.world_notes import world_notes
        from reward_tuning.sampling.cheap_steps import CheapSteps
        from reward_tuning.sampling.clip_memory import check_clip_fits
        from reward_tuning.sampling.compilation import compile_blocks, reported_compilation
        from reward_tuning.sampling.step_cache import check_cache_in

    progress(ProgressEvent("loading", phase=request.checkpoint))
    device = chosen_device(request.cost.device)
    folder = local_folder(resolve_checkpoint(request.checkpoint))
    own = own_clip_size(folder)
    sampling = request.sampling
    given = (sampling.frames, sampling.height, sampling.width)
    size = ClipSize(*(b if a is None else a for a, b in zip(given, own, strict=True)))
    check_clip_size(*size)
    conditions = [one.files for one in request.prompts if one.files != NO_CONDITION]
    if conditions:
        kind = kind_of_checkpoint(folder)
        for files in conditions:
            check_kind(files, kind)
    pixels = [
        None if one.files == NO_CONDITION else read_condition_pixels(one.files, size)
        for one in request.prompts
    ]
    texts = [one.text for one in request.prompts]
    for note in world_notes(request.checkpoint, texts):
        progress(ProgressEvent("loading", note=note))
    for note in dict.fromkeys(note for read in pixels if read is not None for note in read.notes):
        progress(ProgressEvent("loading", note=note))
    if request.cost.cache != AUTO:
        check_cache_in(cache_of(request.cost.cache), folder)
    adapter, scale = _adapter(request, folder, progress)
    generator = load_generator(
        folder,
        dtype=getattr(torch, request.cost.dtype),
        device=device,
        memory=cast("Memory", request.cost.memory),  # checked by name in `Request.check`
        quantise=cast("Quantise | None", request.cost.quantise),
    )
    if adapter is not None:
        from reward_tuning.lora.adapter import attach_weights
        from reward_tuning.lora.schedules import schedule_of, scheduled

        attach_weights(generator.transformer, adapter)
        schedule = schedule_of(request.lora_schedule)
        stack.enter_context(scheduled(generator.transformer, schedule, scale))
    sides = request.cost.tile_sides
    tiling = None if sides is None else Tiling(*(side // FAMILY.space_stride for side in sides))
    check_clip_fits(generator, size, tiling)
    cheap = CheapSteps(cache=_cache(request, generator, progress))
    if request.cost.compile:
        compile_blocks(generator.transformer)
        stack.enter_context(reported_compilation())
    return _Parts(generator, size, pixels, cheap, tiling)


def _adapter(
    request: Request, folder: Path, progress: ProgressFn
) -> "tuple[LoraWeights | None, float]":
    """Return all LoRAs as one, checked against the transformer's shapes, and its scale."""
    if not request.loras:
        return None, 1.0
    from reward_tuning.lora.combining import combine, has_no_effect, no_effect_warning
    from reward_tuning.lora.export import import_adapter
    from reward_tuning.lora.module_shapes import transformer_shapes

    shapes = transformer_shapes(folder)
    read = [(import_adapter(path, shapes), scale) for path, scale in request.loras]
    for (path, _), (weights, _) in zip(request.loras, read, strict=True):
        if has_no_effect(weights):
            progress(ProgressEvent("loading", note=no_effect_warning(path)))
    return read[0] if len(read) == 1 else (combine(read), 1.0)


def _cache(request: Request, generator: "Generator", progress: ProgressFn) -> "CacheSection | None":
    """Return the cache that is asked for, or the automatic one, which is told."""
    if request.cost.cache != AUTO:
        return cache_of(request.cost.cache)
    if request.lora_schedule != "constant":  # the model changes from step to step
        return None
    from reward_tuning.sampling.automatic_cache import automatic_cache

    fewest = min(int(request.sampling.steps * strength) for strength in request.strengths)
    config = generator.transformer.config
    cache = automatic_cache(config, fewest, compiled=request.cost.compile)
    if cache is not None:
        note = f"--cache {cache_text(cache)} is on; --cache none computes every step in full"
        progress(ProgressEvent("loading", note=note))
    return cache


def _drawn(request: Request, parts: _Parts, i: int, progress: ProgressFn) -> "Tensor":
    """Sample and decode one clip; return its frames."""
    from base_model.sampling.guidance import Guidance
    from reward_tuning.inputs.encoded_condition import EncodedCondition, encode_condition
    from reward_tuning.sampling.draw import decoded, sample_clip
    from reward_tuning.seeds import derive_seed

    sampling = request.sampling
    prompt, seed, strength = request.prompts[i], sampling.seed + i, request.strengths[i]

    def report(step: int) -> None:
        phase = f"step {step + 1} of {sampling.steps}"
        progress(ProgressEvent("clips", i, len(request.prompts), phase))

    condition, read = EncodedCondition(), parts.conditions[i]
    if read is not None:
        condition = encode_condition(
            parts.generator,
            prompt.files,
            read,
            strength=strength,
            noise_seed=derive_seed(seed, "kept pixels"),
        )
    sampled = sample_clip(
        parts.generator,
        prompt.text,
        sampling.negative_prompt,
        seed=seed,
        size=parts.size,
        steps=sampling.steps,
        guidance=Guidance(
            sampling.guidance_scale, sampling.guidance_rescale, sampling.guidance_steps
        ),
        condition=condition,
        strength=strength,
        attention=cast("Attention", request.cost.attention),
        cheap=parts.cheap,
        on_step=report,
    )
    return decoded(parts.generator, sampled.latents, parts.tiling)[0]


def _one_or_list(values: list[Any]) -> Any:
    return None if not values else values[0] if len(values) == 1 else values


def _about(request: Request, parts: _Parts, i: int, path: Path) -> dict[str, Any]:
    """Return the line of clips.jsonl that describes a file."""
    prompt = request.prompts[i]
    files, judged = prompt.files, prompt.reward_text
    interval = request.sampling.guidance_steps
    return {
        "file": path.name,
        "prompt": prompt.text,
        **({} if judged == prompt.text else {"reward_prompt": judged}),
        "seed": request.sampling.seed + i,
        "checkpoint": request.checkpoint,
        "lora": _one_or_list([str(path) for path, _ in request.loras]),
        "lora_scale": _one_or_list([scale for _, scale in request.loras]),
        **({"lora_schedule": request.lora_schedule} if request.lora_schedule != "constant" else {}),
        "steps": request.sampling.steps,
        "guidance_scale": request.sampling.guidance_scale,
        "guidance_rescale": request.sampling.guidance_rescale,
        **({} if interval is None else {"guidance_steps": list(interval)}),
        "cache": None if parts.cheap.cache is None else cache_text(parts.cheap.cache),
        "size": list(parts.size),
        **({} if files == NO_CONDITION else {"strength": request.strengths[i], **files.given}),
    }
