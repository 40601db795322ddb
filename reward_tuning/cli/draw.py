"""What `generate` does once its options are read: load, draw, write."""

import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reward_tuning.cli.devices import chosen_device
from reward_tuning.cli.request import LATENT, Request
from reward_tuning.cli.stopping import Stopped
from reward_tuning.files.atomic_write import ANOTHER_PLACE, atomic_write, check_place
from reward_tuning.inputs.condition_files import NOTHING
from reward_tuning.progress import ProgressEvent, ProgressFn

if TYPE_CHECKING:
    from torch import Tensor

    from base_model.generator import Generator
    from base_model.loading.clip_size import ClipSize
    from base_model.networks.tiled_decode import Tiling
    from reward_tuning.inputs.read_condition import ConditionPixels
    from reward_tuning.lora.adapter import LoraWeights
    from reward_tuning.sampling.cheap_steps import CheapSteps


@dataclass(frozen=True)
class _Parts:
    """What clips are drawn with: the generator with its adapter, and what each clip follows."""

    generator: "Generator"
    size: "ClipSize"
    asked: "list[ConditionPixels | None]"
    cheap: "CheapSteps"
    tiling: "Tiling | None"


def draw(request: Request) -> None:
    """Draw, write and print the clips of a request; what is known of each goes into `about`.

    Raises:
        TuningError: Options or the files of a condition do not fit, nothing can be written there,
            or the disk is full.
        GeneratorError: The checkpoint cannot be loaded, or takes neither size nor condition.
    """
    request.check()
    for folder in dict.fromkeys(path.parent for of_clip in request.paths for path in of_clip):
        check_place(folder)
    from reward_tuning.cli.display import Display
    from reward_tuning.files.clips import write_clip
    from reward_tuning.inputs.previews import write_previews
    from reward_tuning.sampling.clip_memory import out_of_memory_told

    about: list[dict[str, Any]] = []
    clips = 0
    try:
        with Display() as progress, ExitStack() as stack:
            parts = _loaded(request, stack, progress)
            for i, read in enumerate(parts.asked):
                with out_of_memory_told(f"a clip of {' x '.join(map(str, parts.size))}"):
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
    """Everything that can be refused is, by configs and headers alone, before weights are read."""
    import torch

    from base_model.files.shipped import resolve_checkpoint
    from base_model.generator import load_generator
    from base_model.loading.checkpoint import local_folder
    from base_model.loading.clip_size import ClipSize, check_clip_size, own_clip_size
    from base_model.loading.kinds import kind_of_checkpoint
    from base_model.networks.tiled_decode import Tiling
    from reward_tuning.inputs.read_condition import check_kind, read_condition
    from reward_tuning.inputs.world_notes import world_notes
    from reward_tuning.sampling.clip_memory import check_clip_fits

    progress(ProgressEvent("loading", phase=request.checkpoint))
    device = chosen_device(request.device)
    folder = local_folder(resolve_checkpoint(request.checkpoint))
    own = own_clip_size(folder)
    size = ClipSize(
        *(
            mine if asked is None else asked
            for asked, mine in zip(request.asked_size, own, strict=True)
        )
    )
    check_clip_size(*size)
    following = [one.files for one in request.prompts if one.files != NOTHING]
    if following:
        kind = kind_of_checkpoint(folder)
        for files in following:
            check_kind(files, kind)
    asked = [
        None if one.files == NOTHING else read_condition(one.files, size) for one in request.prompts
    ]
    texts = [one.text for one in request.prompts]
    for note in world_notes(request.checkpoint, texts):
        progress(ProgressEvent("loading", note=note))
    for note in dict.fromkeys(note for read in asked if read is not None for note in read.notes):
        progress(ProgressEvent("loading", note=note))
    adapter, scale = _adapter(request, folder, progress)
    generator = load_generator(
        folder,
        dtype=getattr(torch, request.dtype),
        device=device,
        memory=request.memory,
        quantise=request.quantise,
    )
    if adapter is not None:
        from reward_tuning.lora.adapter import attach_weights, scaled

        attach_weights(generator.transformer, adapter)
        stack.enter_context(scaled(generator.transformer, scale))
    tiling = None if request.tile is None else Tiling(*(side // LATENT for side in request.tile))
    check_clip_fits(generator, size, tiling)
    return _Parts(generator, size, asked, _cheap(request, generator), tiling)


def _adapter(
    request: Request, folder: Path, progress: ProgressFn
) -> "tuple[LoraWeights | None, float]":
    """The LoRAs as one, held against the transformer's shapes, and the scale that it counts at."""
    if not request.loras:
        return None, 1.0
    from reward_tuning.lora.export import import_adapter
    from reward_tuning.lora.module_shapes import transformer_shapes
    from reward_tuning.lora.several import combined, does_nothing, nothing_told

    shapes = transformer_shapes(folder)
    read = [(import_adapter(path, shapes), scale) for path, scale in request.loras]
    for (path, _), (weights, _) in zip(request.loras, read, strict=True):
        if does_nothing(weights):
            progress(ProgressEvent("loading", note=nothing_told(path)))
    return read[0] if len(read) == 1 else (combined(read), 1.0)


def _cheap(request: Request, generator: "Generator") -> "CheapSteps":
    """How the steps are computed; the model itself is compiled at its first step."""
    from reward_tuning.sampling.cheap_steps import CheapSteps
    from reward_tuning.sampling.compilation import compiled

    return CheapSteps(
        cache=request.cache,
        compiled=compiled(generator.transformer) if request.compile else None,
    )


def _drawn(request: Request, parts: _Parts, i: int, progress: ProgressFn) -> "Tensor":
    """The frames of one clip."""
    from reward_tuning.inputs.encoded_condition import EncodedCondition, encode
    from reward_tuning.sampling.draw import decoded, sample_clip
    from reward_tuning.seeds import derive_seed

    prompt, seed, strength = request.prompts[i], request.seed + i, request.strengths[i]

    def tell(step: int) -> None:
        phase = f"step {step + 1} of {request.steps}"
        progress(ProgressEvent("clips", i, len(request.prompts), phase))

    condition, read = EncodedCondition(), parts.asked[i]
    if read is not None:
        condition = encode(
            parts.generator,
            prompt.files,
            read,
            strength=strength,
            noise_seed=derive_seed(seed, "kept pixels"),
        )
    sampled = sample_clip(
        parts.generator,
        prompt.text,
        request.negative_prompt,
        seed=seed,
        size=parts.size,
        steps=request.steps,
        guidance_scale=request.guidance_scale,
        guidance_rescale=request.guidance_rescale,
        condition=condition,
        strength=strength,
        attention=request.attention,
        cheap=parts.cheap,
        tell=tell,
    )
    return decoded(parts.generator, sampled.latents, parts.tiling)[0]


def _one_or_list(values: list[Any]) -> Any:
    return None if not values else values[0] if len(values) == 1 else values


def _about(request: Request, parts: _Parts, i: int, path: Path) -> dict[str, Any]:
    """What clips.jsonl says of a file."""
    prompt = request.prompts[i]
    files, judged = prompt.files, prompt.reward_text
    return {
        "file": path.name,
        "prompt": prompt.text,
        **({} if judged == prompt.text else {"reward_prompt": judged}),
        "seed": request.seed + i,
        "checkpoint": request.checkpoint,
        "lora": _one_or_list([str(path) for path, _ in request.loras]),
        "lora_scale": _one_or_list([scale for _, scale in request.loras]),
        "steps": request.steps,
        "guidance_scale": request.guidance_scale,
        "guidance_rescale": request.guidance_rescale,
        "cache": request.cache,
        "size": list(parts.size),
        **({} if files == NOTHING else {"strength": request.strengths[i], **files.given}),
    }
