"""What `generate` does once its options are read: load, draw, write."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from base_model.shipped import shipped_checkpoints
from reward_tuning.cli.devices import chosen_device
from reward_tuning.condition_files import NOTHING
from reward_tuning.errors import TuningError
from reward_tuning.progress import ProgressEvent, ProgressFn
from reward_tuning.prompts import Prompt

if TYPE_CHECKING:
    from torch import Tensor

    from base_model.attention_backend import Attention
    from base_model.generator import Generator
    from base_model.memory import Memory
    from base_model.quantise import Quantise
    from reward_tuning.read_condition import AskedCondition

SHIPPED_SIZE = (9, 64, 64)  # frames, height, width that the shipped generators know
PUBLISHED_SIZE = (49, 384, 672)
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Request:
    """Clips to be drawn.

    Attributes:
        checkpoint: A shipped name, a folder or a hub id.
        prompts: With the files that each clip follows.
        strengths: One a prompt: share of the steps that is run.
        paths: One list a prompt: the files of its clip.
        asked_size: Frames, height and width; None takes the checkpoint's own.
        steps: Euler steps.
        guidance_scale: 1 = no guidance.
        guidance_rescale: 0 = off.
        negative_prompt: Of the negative guidance branch.
        seed: Of the first clip's noise.
        lora: An adapter.
        lora_scale: 0 = as without.
        previews: Write what was asked beside each clip.
        dtype: Of the weights.
        device: None takes the GPU where there is one.
        attention: Backend of the attention.
        memory: Where the base lies (`base_model.memory`).
        quantise: How the transformer's blocks are stored; None as `dtype`.
    """

    checkpoint: str
    prompts: Sequence[Prompt]
    strengths: Sequence[float]
    paths: Sequence[Sequence[Path]]
    asked_size: tuple[int | None, int | None, int | None]
    steps: int
    guidance_scale: float
    guidance_rescale: float
    negative_prompt: str
    seed: int
    lora: Path | None
    lora_scale: float
    previews: bool
    dtype: str
    device: str | None
    attention: "Attention"
    memory: str
    quantise: str | None

    @property
    def size(self) -> tuple[int, int, int]:
        """Frames, height and width of every clip."""
        own = SHIPPED_SIZE if self.checkpoint in shipped_checkpoints() else PUBLISHED_SIZE
        frames, height, width = (
            size if given is None else given
            for given, size in zip(self.asked_size, own, strict=True)
        )
        return frames, height, width


def draw(request: Request) -> list[dict[str, Any]]:
    """Draw, write and print the clips of a request.

    Returns:
        What is known of each file, in its order.

    Raises:
        TuningError: A file of a condition does not fit, or the disk is full.
        GeneratorError: The checkpoint cannot be loaded, or takes neither size nor condition.
    """
    if request.dtype not in DTYPES:
        raise TuningError(f"--dtype: got {request.dtype!r}; allowed: {', '.join(DTYPES)}")
    from base_model.memory import Memory
    from base_model.quantise import Quantise
    from reward_tuning.cli.display import Display
    from reward_tuning.clips import write_clip
    from reward_tuning.previews import write_previews

    for option, given, allowed in (
        ("--memory", request.memory, get_args(Memory)),
        ("--quantise", request.quantise, (None, *get_args(Quantise))),
    ):
        if given not in allowed:
            names = ", ".join(one for one in allowed if one)
            raise TuningError(f"{option}: got {given!r}; allowed: {names}")
    about = []
    with Display() as progress, ExitStack() as stack:
        generator, asked = _loaded(request, stack, progress)
        for i, read in enumerate(asked):
            clip = _drawn(request, generator, i, read, progress)
            for path in request.paths[i]:
                write_clip(clip, path)
                print(path)
                about.append(_about(request, i, path))
            if request.previews and read is not None:
                for path in write_previews(read, request.paths[i][0]):
                    print(path)
    return about


def _loaded(
    request: Request, stack: ExitStack, progress: ProgressFn
) -> "tuple[Generator, list[AskedCondition | None]]":
    """The generator with its adapter, and each prompt's condition; cheap refusals first."""
    import torch

    from base_model.checkpoint import local_folder
    from base_model.generator import load_generator
    from base_model.kinds import kind_of_checkpoint
    from base_model.sampling import start_step
    from base_model.shipped import resolve_checkpoint
    from reward_tuning.read_condition import check_kind, read_condition

    progress(ProgressEvent("loading", phase=request.checkpoint))
    for strength in request.strengths:
        start_step(request.steps, strength)
    following = [one.files for one in request.prompts if one.files != NOTHING]
    if following:
        kind = kind_of_checkpoint(local_folder(resolve_checkpoint(request.checkpoint)))
        for files in following:
            check_kind(files, kind)
    device = chosen_device(request.device)
    generator = load_generator(
        request.checkpoint,
        dtype=getattr(torch, request.dtype),
        device=device,
        memory=cast("Memory", request.memory),
        quantise=cast("Quantise | None", request.quantise),
    )
    generator.latent_shape(1, *request.size)
    asked = [
        None if one.files == NOTHING else read_condition(one.files, request.size)
        for one in request.prompts
    ]
    if request.lora is not None:
        from reward_tuning.exports import import_adapter
        from reward_tuning.lora import attach_weights, scaled

        weights = import_adapter(request.lora, generator.transformer)
        attach_weights(generator.transformer, weights)
        stack.enter_context(scaled(generator.transformer, request.lora_scale))
    return generator, asked


def _drawn(
    request: Request,
    generator: "Generator",
    i: int,
    read: "AskedCondition | None",
    progress: ProgressFn,
) -> "Tensor":
    """The clip of the i-th prompt, `(f, 3, H, W)` in [0, 1]."""
    from reward_tuning.drawing import sample_clip
    from reward_tuning.encoded_condition import EncodedCondition, encode
    from reward_tuning.seeds import derive_seed

    prompt, seed, strength = request.prompts[i], request.seed + i, request.strengths[i]

    def tell(step: int) -> None:
        phase = f"step {step + 1} of {request.steps}"
        progress(ProgressEvent("clips", i, len(request.prompts), phase))

    condition = EncodedCondition()
    if read is not None:
        condition = encode(
            generator,
            prompt.files,
            read,
            strength=strength,
            noise_seed=derive_seed(seed, "kept pixels"),
        )
    return sample_clip(
        generator,
        prompt.text,
        request.negative_prompt,
        seed=seed,
        size=request.size,
        steps=request.steps,
        guidance_scale=request.guidance_scale,
        guidance_rescale=request.guidance_rescale,
        condition=condition,
        strength=strength,
        attention=request.attention,
        tell=tell,
    )


def _about(request: Request, i: int, path: Path) -> dict[str, Any]:
    """What clips.jsonl says of a file."""
    files = request.prompts[i].files
    return {
        "file": path.name,
        "prompt": request.prompts[i].text,
        "seed": request.seed + i,
        "checkpoint": request.checkpoint,
        "lora": None if request.lora is None else str(request.lora),
        "lora_scale": None if request.lora is None else request.lora_scale,
        "steps": request.steps,
        "guidance_scale": request.guidance_scale,
        "guidance_rescale": request.guidance_rescale,
        "size": list(request.size),
        **({} if files == NOTHING else {"strength": request.strengths[i], **files.given}),
    }
