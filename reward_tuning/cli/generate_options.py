"""The options of `generate`, in sections: one field for each, with range, default and help text."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, ClassVar

from typer import Option

from base_model.memory.modes import ALONE_HELP
from reward_tuning.inputs.condition_files import ConditionFiles, resolve_condition_files

TILE, TILE_OVERLAP = 384, 96  # pixels, the defaults of `base_model.networks.tiled_decode.Tiling`


@dataclass(frozen=True)
class OutputOptions:
    """Where the clips go."""

    output: Annotated[Path, Option(help="A folder, or a .mp4, .gif or .png file for one clip")]
    formats: Annotated[
        list[str] | None,
        Option("--format", help="File types in a folder: mp4, gif, png; repeat for several"),
    ] = None
    overwrite: Annotated[bool, Option("--overwrite", help="Replace existing files")] = False


@dataclass(frozen=True)
class PromptOptions:
    """What the clips show."""

    prompt: Annotated[
        list[str] | None, Option("--prompt", help="Text of a clip; repeat for several clips")
    ] = None
    prompts_file: Annotated[
        Path | None,
        Option(
            help="Prompts from a file: txt, or jsonl, ndjson, json, csv, tsv, which may also name "
            "images, clips and cameras to condition on"
        ),
    ] = None


@dataclass(frozen=True)
class ModelOptions:
    """The generator and its adapters."""

    checkpoint: Annotated[str, Option(help="A shipped name, a folder or a hub id")] = "tiny"
    lora: Annotated[
        list[Path] | None,
        Option(
            "--lora",
            help="A LoRA in any layout of docs/lora.md, or a run folder; repeat for several",
        ),
    ] = None
    lora_scale: Annotated[
        list[float] | None,
        Option("--lora-scale", help="0 = no effect, 1 = as trained; one for each --lora, in order"),
    ] = None
    lora_schedule: Annotated[
        str,
        Option(
            help="Scale by noise level: constant; annealed (base early, LoRA late: (1 - sigma)^2, "
            "arXiv 2409.06493) or annealed:POWER; below:SIGMA (the base above this noise level)"
        ),
    ] = "constant"


@dataclass(frozen=True)
class SamplingOptions:
    """How a clip is sampled from noise."""

    steps: Annotated[int, Option(min=1, help="Euler steps")] = 25
    guidance_scale: Annotated[
        float, Option(min=1.0, help="Classifier-free guidance (CFG); 1 = no guidance")
    ] = 6.0
    guidance_steps: Annotated[
        tuple[float, float] | None,
        Option(
            metavar="LOW HIGH",
            help="Interval of sigma, in [0, 1], with guidance; at other noise levels the positive "
            "branch runs alone (arXiv 2404.07724); default: everywhere",
        ),
    ] = None
    guidance_rescale: Annotated[
        float, Option(min=0.0, max=1.0, help="CFG rescale (arXiv 2305.08891); 0 = off")
    ] = 0.0
    negative_prompt: Annotated[str, Option(help="Text of the negative guidance branch")] = ""
    seed: Annotated[
        int, Option(min=0, max=2**62, help="Seed of the first clip; clip n uses seed + n")
    ] = 0
    frames: Annotated[
        int | None,
        Option(
            min=1,
            help="Number of frames, 4k + 1; 1 makes a picture. Default of frames, height and "
            "width: the size the checkpoint is made for (tiny: 9 x 64 x 64, the published ones: "
            "49 x 384 x 672)",
        ),
    ] = None
    height: Annotated[int | None, Option(min=16, help="Pixels, a multiple of 16")] = None
    width: Annotated[int | None, Option(min=16, help="Pixels, a multiple of 16")] = None


@dataclass(frozen=True)
class ConditionOptions:
    """Images, clips and motions that every clip is conditioned on."""

    PANEL: ClassVar[str] = "Conditions"

    image: Annotated[Path | None, Option(help="First frame (inpaint checkpoint)")] = None
    end_image: Annotated[Path | None, Option(help="Last frame (inpaint checkpoint)")] = None
    video: Annotated[
        Path | None,
        Option(help="Clip to change: all of it with --strength, a part of it with --mask"),
    ] = None
    mask: Annotated[
        Path | None,
        Option(
            help="White where --video is generated anew: a picture or a clip of the video's size "
            "(inpaint checkpoint)"
        ),
    ] = None
    strength: Annotated[
        float | None,
        Option(
            help="Fraction of the steps to run, starting from the noised --video; default: 0.7, "
            "or 1 with --mask"
        ),
    ] = None
    extend: Annotated[Path | None, Option(help="Clip to continue (inpaint checkpoint)")] = None
    keep_frames: Annotated[
        int | None, Option(min=1, help="Number of first frames of --extend to keep; default: all")
    ] = None
    control: Annotated[
        list[Path] | None,
        Option(
            "--control",
            help="Control clip (control checkpoint); several are merged by the brightest value of "
            "each pixel",
        ),
    ] = None
    control_type: Annotated[
        str | None,
        Option(
            help="How to make the control clip from the file: raw (unchanged), or a preprocessor "
            "such as canny or scribble"
        ),
    ] = None
    reference: Annotated[
        Path | None, Option(help="Reference image for appearance (control, camera checkpoints)")
    ] = None
    trajectory: Annotated[Path | None, Option(help="Points file (control checkpoint)")] = None
    camera: Annotated[
        str | None,
        Option(help="A pose file (.txt), or words: 'pan left then zoom in' (camera checkpoint)"),
    ] = None
    camera_speed: Annotated[
        float | None, Option(help="Speed factor of a --camera motion in words")
    ] = None
    previews: Annotated[
        bool,
        Option(
            "--previews",
            help="Also write the conditions of each clip: heat map, control, mask, camera path",
        ),
    ] = False

    def files(self) -> ConditionFiles:
        """Return the files and settings that the options name, with absolute paths.

        Raises:
            TuningError: A file does not exist, or no file can have this name.
        """
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        # these two belong to the request as a whole
        del given["strength"], given["previews"]
        return resolve_condition_files(given, Path())


@dataclass(frozen=True)
class CostOptions:
    """Precision, device, and what makes sampling faster or smaller."""

    PANEL: ClassVar[str] = "Speed and memory"

    dtype: Annotated[str, Option(help="Precision of the weights: float32, bfloat16 or float16")] = (
        "float32"
    )
    device: Annotated[
        str | None, Option(help="cpu, cuda, cuda:1; default: cuda if available, else cpu")
    ] = None
    attention: Annotated[
        str, Option(help="Attention kernels: auto, math, flash, efficient, cudnn")
    ] = "auto"
    cache: Annotated[
        str,
        Option(
            help="Cache of steps: auto (where measured or published, with enough steps), none (the "
            "plain sample), or taylor:INTERVAL, teacache:THRESHOLD, first-block:THRESHOLD "
            "(docs/generator.md)"
        ),
    ] = "auto"
    compile: Annotated[
        bool,
        Option(
            "--compile",
            help="torch.compile the transformer: the first step is slow, later ones are faster",
        ),
    ] = False
    tiled_decode: Annotated[
        bool,
        Option(
            "--tiled-decode", help="Decode large frames tile by tile, in the memory of one tile"
        ),
    ] = False
    tile: Annotated[
        int | None,
        Option(help=f"Side of a tile in pixels, a multiple of 8; default: {TILE}"),
    ] = None
    tile_overlap: Annotated[
        int | None,
        Option(
            help="Overlap of neighbouring tiles in pixels, a multiple of 8; default: "
            f"{TILE_OVERLAP}"
        ),
    ] = None
    memory: Annotated[
        str,
        Option(help=f"Where the weights are. {ALONE_HELP}"),
    ] = "resident"
    quantise: Annotated[
        str | None,
        Option(
            "--quantise",
            "--quantize",
            help="Store the transformer's blocks as int8, nf4 or fp8; int8-compute and fp8-compute "
            "also compute in 8 bits; default: in --dtype",
        ),
    ] = None

    @property
    def tile_sides(self) -> tuple[int, int] | None:
        """Side and overlap of the decoded tiles in pixels; None decodes frames in one piece."""
        if not self.tiled_decode:
            return None
        side = TILE if self.tile is None else self.tile
        return side, TILE_OVERLAP if self.tile_overlap is None else self.tile_overlap
