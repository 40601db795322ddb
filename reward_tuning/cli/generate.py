"""`reward-tuning generate`: clips from prompts, with or without a LoRA."""

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from reward_tuning.errors import TuningError
from reward_tuning.prompts import Prompt, read_prompts

if TYPE_CHECKING:
    from torch import Tensor

    from base_model.generator import Generator

ENDINGS = (".mp4", ".gif", ".png")
LONGEST_ENDING = 5  # .webm, .jpeg; "clips.of-monday" is a folder
SHIPPED_SIZES = {"tiny": (9, 64, 64)}  # frames, height, width that a shipped generator knows
PUBLISHED_SIZE = (49, 384, 672)


def generate(
    output: Annotated[Path, typer.Option(help="A folder, or a .mp4, .gif or .png for one clip.")],
    checkpoint: Annotated[str, typer.Option(help="A shipped name, a folder or a hub id.")] = "tiny",
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", help="May be given several times.")
    ] = None,
    prompts_file: Annotated[Path | None, typer.Option(help="txt, jsonl or csv.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Euler steps.")] = 25,
    guidance_scale: Annotated[float, typer.Option(min=1.0, help="1 = no guidance.")] = 6.0,
    guidance_rescale: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Give the positive branch's contrast back.")
    ] = 0.0,
    negative_prompt: Annotated[str, typer.Option(help="Of the negative branch.")] = "",
    seed: Annotated[
        int, typer.Option(min=0, help="Of the first clip's noise; each further clip one more.")
    ] = 0,
    frames: Annotated[int | None, typer.Option(min=1, help="4k + 1.")] = None,
    height: Annotated[int | None, typer.Option(min=16, help="A multiple of 16.")] = None,
    width: Annotated[int | None, typer.Option(min=16, help="A multiple of 16.")] = None,
    lora: Annotated[
        Path | None, typer.Option(help="An adapter in any of the three export formats, or a run.")
    ] = None,
    lora_scale: Annotated[float, typer.Option(help="0 = as without.")] = 1.0,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="Into a folder: mp4, gif, png; may be given several times."),
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1; default: cuda where there is one.")
    ] = None,
    memory: Annotated[
        str,
        typer.Option(
            help="resident; offload: text encoder and VAE on the CPU while unused; block-offload: "
            "the transformer's blocks, too, one at a time."
        ),
    ] = "resident",
    quantise: Annotated[
        str | None,
        typer.Option(help="Store the transformer's blocks as int8, nf4 or fp8; default: dtype."),
    ] = None,
) -> None:
    """Draw clips from prompts and write them as mp4, gif or png."""
    if lora is not None:
        from reward_tuning.cli.adapters import adapter_path

        lora = adapter_path(lora)  # refused before anything is loaded
    prompts = _prompts(prompt or [], prompts_file)
    files = _files(output, len(prompts), formats or ["mp4"])
    import torch

    from base_model.generator import load_generator
    from base_model.memory import Memory
    from base_model.quantise import Quantise
    from reward_tuning.cli.display import Display
    from reward_tuning.clips import write_clip
    from reward_tuning.progress import ProgressEvent

    if dtype not in ("float32", "bfloat16", "float16"):
        raise TuningError(f"--dtype: got {dtype!r}; allowed: float32, bfloat16, float16")
    for option, given, allowed in (
        ("--memory", memory, get_args(Memory)),
        ("--quantise", quantise, (None, *get_args(Quantise))),
    ):
        if given not in allowed:
            names = ", ".join(one for one in allowed if one)
            raise TuningError(f"{option}: got {given!r}; allowed: {names}")
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    sizes = SHIPPED_SIZES.get(checkpoint, PUBLISHED_SIZE)
    size = (frames or sizes[0], height or sizes[1], width or sizes[2])
    with Display() as progress, ExitStack() as stack:
        progress(ProgressEvent("loading", phase=checkpoint))
        generator = load_generator(
            checkpoint,
            dtype=getattr(torch, dtype),
            device=place,
            memory=cast("Memory", memory),
            quantise=cast("Quantise | None", quantise),
        )
        generator.latent_shape(1, *size)  # refuses wrong sizes before any work
        if lora is not None:
            from reward_tuning.exports import import_adapter
            from reward_tuning.lora import attach_weights, scaled

            weights = import_adapter(lora, generator.transformer)
            attach_weights(generator.transformer, weights)
            stack.enter_context(scaled(generator.transformer, lora_scale))
        about = []
        for i, (one, paths) in enumerate(zip(prompts, files, strict=True)):

            def tell(step: int, clip: int = i) -> None:
                progress(ProgressEvent("clips", clip, len(prompts), f"step {step + 1} of {steps}"))

            clip = sample_clip(
                generator,
                one.text,
                negative_prompt,
                seed=seed + i,
                size=size,
                steps=steps,
                guidance_scale=guidance_scale,
                guidance_rescale=guidance_rescale,
                tell=tell,
            )
            for path in paths:
                write_clip(clip, path)
                about.append(
                    {
                        "file": path.name,
                        "prompt": one.text,
                        "seed": seed + i,
                        "checkpoint": checkpoint,
                        "lora": None if lora is None else str(lora),
                        "lora_scale": None if lora is None else lora_scale,
                        "steps": steps,
                        "guidance_scale": guidance_scale,
                    }
                )
                print(path)
    if output.suffix not in ENDINGS:
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in about)
        (output / "clips.jsonl").write_text(text, encoding="utf-8")


def sample_clip(
    generator: "Generator",
    prompt: str,
    negative_prompt: str,
    *,
    seed: int,
    size: tuple[int, int, int],
    steps: int,
    guidance_scale: float,
    guidance_rescale: float,
    tell: Callable[[int], None],
) -> "Tensor":
    """Draw one clip.

    Args:
        generator: With its text encoder.
        prompt: What the clip shows.
        negative_prompt: Of the negative guidance branch.
        seed: Of the noise.
        size: Frames, height, width.
        steps: Euler steps.
        guidance_scale: 1 = no guidance.
        guidance_rescale: 0 = off.
        tell: Called after each step with its index.

    Returns:
        `(f, 3, H, W)` in [0, 1].
    """
    import torch

    from base_model.sampling import euler_sample
    from base_model.sigmas import sigma_table

    condition = generator.condition(generator.encode_prompts([prompt], [negative_prompt]))
    noise = generator.initial_noise(generator.latent_shape(1, *size), [seed])
    latents = euler_sample(
        generator,
        condition,
        noise,
        sigma_table(steps),
        guidance_scale,
        on_step=lambda step, _: tell(step),
        guidance_rescale=guidance_rescale,
    )
    with torch.no_grad():
        return generator.decode(latents)[0]


def _prompts(given: Sequence[str], file: Path | None) -> list[Prompt]:
    prompts = [Prompt(text, text) for text in given]
    if file is not None:
        prompts += read_prompts(file)
    if not prompts:
        raise TuningError("no prompt; give --prompt TEXT or --prompts-file FILE")
    return prompts


def _files(output: Path, count: int, formats: Sequence[str]) -> list[list[Path]]:
    """Name the files of each clip."""
    if output.suffix in ENDINGS and not output.is_dir():
        if count > 1:
            raise TuningError(
                f"--output: {output} is one file, but there are {count} prompts; give a folder"
            )
        return [[output]]
    if output.suffix and not output.is_dir() and len(output.suffix) <= LONGEST_ENDING:
        raise TuningError(
            f"--output: got {output}; a clip ends in {', '.join(ENDINGS)}, a folder's name in none"
        )
    wrong = [one for one in formats if f".{one}" not in ENDINGS]
    if wrong:
        raise TuningError(f"--format: got {wrong[0]!r}; allowed: mp4, gif, png")
    if output.exists() and not output.is_dir():
        raise TuningError(f"--output: {output} is a file that is no clip; give a folder")
    return [[output / f"{i:04d}.{one}" for one in formats] for i in range(count)]
