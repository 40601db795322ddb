"""Names of written clips and of the files next to them; refuse to overwrite any."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from reward_tuning.errors import TuningError, first_lines

WRITTEN_SUFFIXES = (".mp4", ".gif", ".png")
MAX_SUFFIX = 5  # characters of a suffix: .webm, .jpeg; "clips.of-monday" is a folder
CLIP_LIST = "clips.jsonl"
"""File that `generate` writes next to its clips: a row with the prompt and the options of each."""
PREVIEWS = ("heat-map", "control", "mask", "camera")


def clip_paths(output: Path, count: int, formats: Sequence[str]) -> list[list[Path]]:
    """Return the files of each clip.

    Args:
        output: File for one clip, or a folder.
        count: Number of clips.
        formats: Formats of the files in a folder: mp4, gif, png.

    Raises:
        TuningError: The output is one file for several clips, or has another suffix.
    """
    if is_clip_file(output):
        if count > 1:
            raise TuningError(
                f"--output: {output} is one file, but there are {count} prompts; give a folder"
            )
        return [[output]]
    if output.suffix and not output.is_dir() and len(output.suffix) <= MAX_SUFFIX:
        raise TuningError(
            f"--output: got {output}; allowed: a clip that ends in {', '.join(WRITTEN_SUFFIXES)}, "
            "or a folder without a suffix"
        )
    wrong = [one for one in formats if f".{one}" not in WRITTEN_SUFFIXES]
    if wrong:
        raise TuningError(f"--format: got {wrong[0]!r}; allowed: mp4, gif, png")
    if output.exists() and not output.is_dir():
        raise TuningError(f"--output: {output} is a file and not a clip; give a folder")
    return [[output / f"{i:04d}.{one}" for one in formats] for i in range(count)]


def is_clip_file(output: Path) -> bool:
    """Return whether the output names a clip file and not a folder."""
    return output.suffix in WRITTEN_SUFFIXES and not output.is_dir()


def preview_path(clip: Path, name: str) -> Path:
    """Return the path of a preview next to its clip: `dog.mask.mp4` for `dog.mp4`."""
    return clip.with_name(f"{clip.stem}.{name}{clip.suffix}")


def refuse_existing(
    paths: Iterable[Path],
    *,
    message: str = "--output: {} exists",
    advice: str = "give another --output, or --overwrite",
) -> None:
    """Refuse to overwrite files.

    Args:
        paths: Files that would be written.
        message: Start of the message, with `{}` for the first existing file.
        advice: Next step, at the end of the message.

    Raises:
        TuningError: A file exists.
    """
    existing = [str(path) for path in paths if path.exists()]
    if existing:
        first, *others = first_lines(existing, 1)
        count = f" ({others[0]})" if others else ""
        raise TuningError(f"{message.format(first)}{count} and is not overwritten; {advice}")
