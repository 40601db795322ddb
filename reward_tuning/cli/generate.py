"""`reward-tuning generate`: clips from prompts, and from inputs that they follow."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from reward_tuning.cli.draw import draw
from reward_tuning.cli.request import Request, asked_prompts, asked_strength
from reward_tuning.errors import TuningError
from reward_tuning.files.clip_names import (
    ABOUT,
    PREVIEWS,
    clip_paths,
    is_clip,
    preview_path,
    refuse_existing,
)
from reward_tuning.inputs.condition_files import resolved

if TYPE_CHECKING:
    from base_model.memory.modes import Memory
    from base_model.memory.quantise import Quantise
    from base_model.networks.attention_backend import Attention

CONDITION_KEYS = "What the clip follows"
COST = "Speed and memory"
TILE, TILE_OVERLAP = 384, 96  # pixels, the defaults of `base_model.networks.tiled_decode.Tiling`


def generate(
    output: Annotated[Path, typer.Option(help="A folder, or a .mp4, .gif or .png for one clip.")],
    checkpoint: Annotated[str, typer.Option(help="A shipped name, a folder or a hub id.")] = "tiny",
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", help="May be given several times.")
    ] = None,
    prompts_file: Annotated[
        Path | None,
        typer.Option(
            help="txt, or jsonl, ndjson, json, csv, tsv, which may name inputs that clips follow."
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Euler steps.")] = 25,
    guidance_scale: Annotated[float, typer.Option(min=1.0, help="1 = no guidance.")] = 6.0,
    guidance_rescale: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Give the positive branch's contrast back.")
    ] = 0.0,
    negative_prompt: Annotated[str, typer.Option(help="Of the negative branch.")] = "",
    seed: Annotated[
        int,
        typer.Option(
            min=0, max=2**62, help="Of the first clip's noise; each further clip one more."
        ),
    ] = 0,
    frames: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="4k + 1; 1 is a picture. Default, also of height and width: what the checkpoint "
            "is made for (tiny 9 x 64 x 64, the published ones 49 x 384 x 672).",
        ),
    ] = None,
    height: Annotated[int | None, typer.Option(min=16, help="Pixels, a multiple of 16.")] = None,
    width: Annotated[int | None, typer.Option(min=16, help="Pixels, a multiple of 16.")] = None,
    image: Annotated[
        Path | None,
        typer.Option(help="First frame (inpaint checkpoint).", rich_help_panel=CONDITION_KEYS),
    ] = None,
    end_image: Annotated[
        Path | None, typer.Option(help="Last frame (inpaint).", rich_help_panel=CONDITION_KEYS)
    ] = None,
    video: Annotated[
        Path | None,
        typer.Option(
            help="Clip to be changed: with --strength as a whole, with --mask in part.",
            rich_help_panel=CONDITION_KEYS,
        ),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            help="White where --video is made anew: a picture or a clip of its size (inpaint).",
            rich_help_panel=CONDITION_KEYS,
        ),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(
            help="Share of the steps run, from the noised --video on; 0.7, or 1 with --mask.",
            rich_help_panel=CONDITION_KEYS,
        ),
    ] = None,
    extend: Annotated[
        Path | None,
        typer.Option(help="Clip to be gone on with (inpaint).", rich_help_panel=CONDITION_KEYS),
    ] = None,
    keep_frames: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="First frames of --extend that are kept. Default: all.",
            rich_help_panel=CONDITION_KEYS,
        ),
    ] = None,
    control: Annotated[
        list[Path] | None,
        typer.Option(
            "--control",
            help="Control clip; several: the brightest of each pixel (control checkpoint).",
            rich_help_panel=CONDITION_KEYS,
        ),
    ] = None,
    control_type: Annotated[
        str | None,
        typer.Option(
            help="How --control is made of its file: raw, canny, scribble.",
            rich_help_panel=CONDITION_KEYS,
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Picture of what things look like (control, camera).",
            rich_help_panel=CONDITION_KEYS,
        ),
    ] = None,
    trajectory: Annotated[
        Path | None,
        typer.Option(help="Points file (control checkpoint).", rich_help_panel=CONDITION_KEYS),
    ] = None,
    camera: Annotated[
        str | None,
        typer.Option(
            help="A pose file (.txt), or words: 'pan left then zoom in' (camera checkpoint).",
            rich_help_panel=CONDITION_KEYS,
        ),
    ] = None,
    camera_speed: Annotated[
        float | None, typer.Option(help="Of a motion in words.", rich_help_panel=CONDITION_KEYS)
    ] = None,
    previews: Annotated[
        bool,
        typer.Option(
            "--previews",
            help="Also write the inputs of each clip: heat map, control, mask, camera path.",
            rich_help_panel=CONDITION_KEYS,
        ),
    ] = False,
    lora: Annotated[
        list[Path] | None,
        typer.Option(
            "--lora",
            help="An adapter in any layout of docs/lora.md, or a run folder; repeat for several.",
        ),
    ] = None,
    lora_scale: Annotated[
        list[float] | None,
        typer.Option(
            "--lora-scale", help="0 = no effect, 1 = as trained; one for each --lora, in order."
        ),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="Into a folder: mp4, gif, png; may be given several times."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there.")
    ] = False,
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16 or float16.", rich_help_panel=COST)
    ] = "float32",
    device: Annotated[
        str | None,
        typer.Option(
            help="cpu, cuda, cuda:1; default: cuda where there is one.", rich_help_panel=COST
        ),
    ] = None,
    attention: Annotated[
        str,
        typer.Option(
            help="Its kernels: auto, math, flash, efficient, cudnn.", rich_help_panel=COST
        ),
    ] = "auto",
    cache: Annotated[
        float | None,
        typer.Option(
            help="First-block cache: a step whose first block adds what it did, but for this "
            "share, runs no other block (0.05 to 0.2). Default: off.",
            rich_help_panel=COST,
        ),
    ] = None,
    compile_: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="torch.compile the transformer: slow at the first step, faster after it.",
            rich_help_panel=COST,
        ),
    ] = False,
    tiled_decode: Annotated[
        bool,
        typer.Option(
            "--tiled-decode",
            help="Decode large frames tile by tile, in the memory of one.",
            rich_help_panel=COST,
        ),
    ] = False,
    tile: Annotated[
        int | None,
        typer.Option(
            help=f"Side of a tile in pixels, a multiple of 8; {TILE}.", rich_help_panel=COST
        ),
    ] = None,
    tile_overlap: Annotated[
        int | None,
        typer.Option(
            help=f"Of neighbouring tiles, in pixels, a multiple of 8; {TILE_OVERLAP}.",
            rich_help_panel=COST,
        ),
    ] = None,
    memory: Annotated[
        str,
        typer.Option(
            help="resident; offload: text encoder and VAE on the CPU while unused; block-offload: "
            "the transformer's blocks, too, one at a time.",
            rich_help_panel=COST,
        ),
    ] = "resident",
    quantise: Annotated[
        str | None,
        typer.Option(
            help="Store the transformer's blocks as int8, nf4 or fp8; default: dtype.",
            rich_help_panel=COST,
        ),
    ] = None,
) -> None:
    """Generate clips from prompts and from inputs that they follow; write mp4, gif or png files.

    Pictures and clips are scaled until they cover the size, and cut to it around the middle. Of
    videos the first frames are taken, frame by frame.
    """
    loras = _loras(lora or [], lora_scale or [])
    files = resolved(
        {
            "image": image,
            "end_image": end_image,
            "video": video,
            "mask": mask,
            "extend": extend,
            "keep_frames": keep_frames,
            "control": control or None,
            "control_type": control_type,
            "reference": reference,
            "trajectory": trajectory,
            "camera": camera,
            "camera_speed": camera_speed,
        },
        Path(),
    )
    prompts = asked_prompts(prompt or [], negative_prompt, prompts_file, files)
    shares = [asked_strength(strength, one.files) for one in prompts]
    for one, share in zip(prompts, shares, strict=True):
        one.files.check(share)
    paths = clip_paths(output, len(prompts), formats or ["mp4"])
    if not overwrite:
        refuse_existing(_written(output, paths, previews))
    draw(
        Request(
            checkpoint=checkpoint,
            prompts=prompts,
            strengths=shares,
            paths=paths,
            about=None if is_clip(output) else output / ABOUT,
            asked_size=(frames, height, width),
            steps=steps,
            guidance_scale=guidance_scale,
            guidance_rescale=guidance_rescale,
            negative_prompt=negative_prompt,
            seed=seed,
            loras=loras,
            previews=previews,
            dtype=dtype,
            device=device,
            # refused by name where they are none
            attention=cast("Attention", attention),
            cache=cache,
            compile=compile_,
            tile=_tile(tiled_decode, tile, tile_overlap),
            memory=cast("Memory", memory),
            quantise=cast("Quantise | None", quantise),
        )
    )


def _loras(paths: Sequence[Path], scales: Sequence[float]) -> tuple[tuple[Path, float], ...]:
    """Each adapter with its scale; what cannot be paired is refused before anything is loaded."""
    if scales and not paths:
        raise TuningError(f"--lora-scale {scales[0]:g} is for --lora, which is not given")
    if scales and len(scales) != len(paths):
        raise TuningError(
            f"--lora is given {len(paths)} times and --lora-scale {len(scales)} times; give one "
            "scale for each LoRA, in the same order. (All clips of a call use the same scales; for "
            "others, call again.)"
        )
    if not paths:
        return ()
    from reward_tuning.cli.adapters import adapter_path

    return tuple(zip(map(adapter_path, paths), scales or [1.0] * len(paths), strict=True))


def _tile(tiled: bool, side: int | None, overlap: int | None) -> tuple[int, int] | None:
    """Side and overlap of the tiles; None where the decode is in one piece."""
    if tiled:
        return TILE if side is None else side, TILE_OVERLAP if overlap is None else overlap
    for option, given in (("--tile", side), ("--tile-overlap", overlap)):
        if given is not None:
            raise TuningError(f"{option} {given} is for --tiled-decode, which is not given")
    return None


def _written(output: Path, paths: Sequence[Sequence[Path]], previews: bool) -> list[Path]:
    """Everything that may be written."""
    every = [path for of_clip in paths for path in of_clip]
    if previews:
        every += [preview_path(of_clip[0], name) for of_clip in paths for name in PREVIEWS]
    return every if is_clip(output) else [*every, output / ABOUT]
