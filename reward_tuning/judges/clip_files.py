"""From the files and folders that the user names to clips, each with its prompt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reward_tuning.errors import TuningError
from reward_tuning.files.clean_text import cleaned, lone_surrogate, text_fault
from reward_tuning.files.clip_names import CLIP_LIST
from reward_tuning.files.columns import PROMPT, REWARD_PROMPT, VIDEO, Row, RowFormat
from reward_tuning.files.rows import read_rows

VIDEOS = (".mp4", ".webm", ".mov", ".m4v", ".mkv", ".avi", ".wmv", ".flv", ".mpg", ".mpeg", ".ogv")
READ_SUFFIXES = (
    *VIDEOS,
    ".gif",
    ".apng",
    ".png",
    ".jpg",
    ".jpeg",
    ".webp",
    ".bmp",
    ".tif",
    ".tiff",
)
CLIP_ROWS = RowFormat(
    what="prompt file",
    # Next to `file`, the `video` of a `clips.jsonl` is the clip that generation started from.
    columns=(replace(VIDEO, preferred="file"), PROMPT, REWARD_PROMPT),
    example='{"file": "clip.mp4", "prompt": "..."}',
    empty="names no clip",
)


@dataclass(frozen=True)
class ClipFile:
    """A clip on disk.

    Attributes:
        path: Path of the file.
        prompt: Text that the judges read; None if there is none.
    """

    path: Path
    prompt: str | None = None


def find_clips(sources: Sequence[Path]) -> list[Path]:
    """List the clips of files and folders.

    Args:
        sources: Files, and folders that are searched with their subfolders, in the order of names.

    Returns:
        Each file once, in the order of the sources.

    Raises:
        TuningError: A source is missing, has the ending of no clip, or is a folder without clips.
    """
    found: list[Path] = []
    for source in sources:
        if source.is_dir():
            inside = [
                path
                for path in sorted(source.rglob("*"))
                if path.suffix.lower() in READ_SUFFIXES and path.is_file() and path.name[0] != "."
            ]
            if not inside:
                raise TuningError(
                    f"{source} contains no clip; a clip ends in {', '.join(READ_SUFFIXES)}"
                )
            found += inside
        elif not source.is_file():
            raise TuningError(f"{source}: no such file or folder")
        elif source.suffix.lower() not in READ_SUFFIXES:
            raise TuningError(
                f"{source}: ending {source.suffix or '(none)'}; allowed: {', '.join(READ_SUFFIXES)}"
            )
        else:
            found.append(source)
    return list(dict.fromkeys(found))


def with_prompts(
    paths: Sequence[Path], *, prompt: str | None = None, prompts_file: Path | None = None
) -> list[ClipFile]:
    """Give each clip its prompt.

    The one prompt for all; else its entry in the prompt file; else the text of the `.txt` next to
    it; else its entry in the `clips.jsonl` of its folder, as `reward-tuning generate` writes one.

    Args:
        paths: Paths of the clips.
        prompt: One prompt for all clips.
        prompts_file: Rows with a `file` (or `video`, `file_path`), a `prompt` (or `text`,
            `caption`) and, optionally, a `reward_prompt` that the judges read instead, in a format
            of `rows.read_rows`. A relative path starts from the prompt file's folder; a name alone
            fits a clip of that name in any folder.

    Raises:
        TuningError: A prompt file is missing or has bad lines, each listed with its number.
    """
    if prompt is not None and (wrong := lone_surrogate(prompt)):
        raise TuningError(f"--prompt: {wrong}")
    if prompt is not None:
        return [ClipFile(path, prompt) for path in paths]
    given = {} if prompts_file is None else read_file_prompts(prompts_file)
    of_folders: dict[Path, Mapping[Path | str, str]] = {}
    clips = []
    for path in paths:
        text = _prompt_of(path, given)
        note = path.with_suffix(".txt")
        if text is None and note.is_file():
            text = _read_note(note)
        if text is None and path.parent not in of_folders:
            about = path.parent / CLIP_LIST
            of_folders[path.parent] = read_file_prompts(about) if about.is_file() else {}
        if text is None:
            text = _prompt_of(path, of_folders[path.parent])
        clips.append(ClipFile(path, text))
    return clips


def read_file_prompts(path: Path) -> dict[Path | str, str]:
    """Read a file of clips and prompts.

    Args:
        path: Prompt file as `with_prompts` describes it.

    Returns:
        Absolute path of a clip, and its bare name, to the text that the judges read. A bare name
        that belongs to clips with different prompts is left out.

    Raises:
        TuningError: It cannot be read, or has bad lines, each listed with its number.
    """
    found: dict[Path | str, str] = {}
    names: dict[str, set[str]] = {}
    for file, text in read_rows(path, CLIP_ROWS, lambda row: _file_and_text(row, path.parent)):
        found[file.resolve()] = text
        names.setdefault(file.name, set()).add(text)
    return found | {name: texts.pop() for name, texts in names.items() if len(texts) == 1}


def _prompt_of(path: Path, prompts: Mapping[Path | str, str]) -> str | None:
    return prompts.get(path.resolve(), prompts.get(path.name))


def _read_note(path: Path) -> str | None:
    try:
        text = cleaned(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise TuningError(f"prompt {path}: cannot be read as UTF-8 text ({error})") from error
    if text and (wrong := text_fault("the text", text)):
        raise TuningError(f"prompt {path}: {wrong}")
    return text or None


def _file_and_text(row: Row, folder: Path) -> tuple[Path, str]:
    """Return the file of a row and the text that the judges read.

    Raises:
        TuningError: A value of the row is wrong.
    """
    texts = [row.text(one) for one in (PROMPT, REWARD_PROMPT) if one.names[0] in row.values]
    return row.path(VIDEO, folder), texts[-1]
