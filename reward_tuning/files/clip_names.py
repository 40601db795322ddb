"""How clips and what lies beside them are named, and that none is overwritten unasked."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from reward_tuning.errors import TuningError, first_lines

WRITTEN_SUFFIXES = (".mp4", ".gif", ".png")
LONGEST_ENDING = 5  # .webm, .jpeg; "clips.of-monday" is a folder
CLIP_LIST = "clips.jsonl"
"""File that `generate` writes next to its clips: a row with the prompt and the options of each."""
PREVIEWS = ("heat-map", "control", "mask", "camera")


def clip_paths(output: Path, count: int, formats: Sequence[str]) -> list[list[Path]]:
    """Name the files of each clip.

    Args:
        output: A file for one clip, or a folder.
        count: Clips.
        formats: In a folder: mp4, gif, png.

    Raises:
        TuningError: The output cannot hold them.
    """
    if is_clip(output):
        if count > 1:
            raise TuningError(
                f"--output: {output} is one file, but there are {count} prompts; give a folder"
            )
        return [[output]]
    if output.suffix and not output.is_dir() and len(output.suffix) <= LONGEST_ENDING:
        raise TuningError(
            f"--output: got {output}; allowed: a clip that ends in {', '.join(WRITTEN_SUFFIXES)}, "
            "or a folder without a suffix"
        )
    wrong = [one for one in formats if f".{one}" not in WRITTEN_SUFFIXES]
    if wrong:
        raise TuningError(f"--format: got {wrong[0]!r}; allowed: mp4, gif, png")
    if output.exists() and not output.is_dir():
        raise TuningError(f"--output: {output} is a file that is no clip; give a folder")
    return [[output / f"{i:04d}.{one}" for one in formats] for i in range(count)]


def is_clip(output: Path) -> bool:
    """Whether the output is a file, and not a folder."""
    return output.suffix in WRITTEN_SUFFIXES and not output.is_dir()


def preview_path(clip: Path, name: str) -> Path:
    """Where a preview lies beside its clip: `dog.mp4` has `dog.mask.mp4`."""
    return clip.with_name(f"{clip.stem}.{name}{clip.suffix}")


def refuse_existing(
    paths: Iterable[Path],
    *,
    told: str = "--output: {} exists",
    advice: str = "give another --output, or --overwrite",
) -> None:
    """Refuse to write where something is.

    Args:
        paths: Everything that would be written.
        told: What the message begins with, and where it names the file.
        advice: What it ends with.

    Raises:
        TuningError: Names the first such file.
    """
    existing = [str(path) for path in paths if path.exists()]
    if existing:
        first, *others = first_lines(existing, 1)
        count = f" ({others[0]})" if others else ""
        raise TuningError(f"{told.format(first)}{count} and is not overwritten; {advice}")
