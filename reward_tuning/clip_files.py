"""Which clips a person means, and which prompt belongs to each: files, folders, prompt files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reward_tuning.errors import TuningError
from reward_tuning.prompts import (
    MOST_TOLD,
    REWARD_TEXT,
    TEXT,
    half_letter,
    json_row,
    misspelt,
    text_fault,
)

ENDINGS = (".mp4", ".webm", ".gif", ".png", ".jpg", ".jpeg")  # what `clips.read_clip` reads
FILE = "file"
ABOUT = "clips.jsonl"  # what `reward-tuning generate` writes beside its clips


@dataclass(frozen=True)
class ClipFile:
    """A clip on the disk.

    Attributes:
        path: Of the file.
        prompt: What the judges read; None where nobody says.
    """

    path: Path
    prompt: str | None = None


def find_clips(sources: Sequence[Path]) -> list[Path]:
    """List the clips of files and folders.

    Args:
        sources: Files, and folders that are searched with all that is in them, by name.

    Returns:
        Each file once, in the order of the sources.

    Raises:
        TuningError: A source is missing, is no clip by its ending, or a folder without clips.
    """
    found: list[Path] = []
    for source in sources:
        if source.is_dir():
            inside = [
                path
                for path in sorted(source.rglob("*"))
                if path.suffix.lower() in ENDINGS and path.is_file() and path.name[0] != "."
            ]
            if not inside:
                raise TuningError(f"{source} holds no clip; a clip ends in {', '.join(ENDINGS)}")
            found += inside
        elif not source.is_file():
            raise TuningError(f"{source}: no such file or folder")
        elif source.suffix.lower() not in ENDINGS:
            raise TuningError(
                f"{source}: ending {source.suffix or '(none)'}; allowed: {', '.join(ENDINGS)}"
            )
        else:
            found.append(source)
    return list(dict.fromkeys(found))


def with_prompts(
    paths: Sequence[Path], *, prompt: str | None = None, prompts_file: Path | None = None
) -> list[ClipFile]:
    """Give each clip its prompt.

    The one prompt for all; else what the prompt file says of it; else the text of the `.txt` beside
    it; else what a `clips.jsonl` in its folder says, as `reward-tuning generate` writes one.

    Args:
        paths: Of the clips.
        prompt: For all.
        prompts_file: `.jsonl` with a `file` and a `prompt` a line, and a `reward_prompt` where the
            judges shall read another text. A file is named from the prompt file's folder, or by its
            name alone.

    Raises:
        TuningError: A prompt file is missing or damaged, each bad line with its number.
    """
    if prompt is not None and (wrong := half_letter(prompt)):
        raise TuningError(f"--prompt: {wrong}")
    if prompt is not None:
        return [ClipFile(path, prompt) for path in paths]
    given = {} if prompts_file is None else read_file_prompts(prompts_file)
    beside: dict[Path, Mapping[Path | str, str]] = {}
    clips = []
    for path in paths:
        text = _of(path, given)
        note = path.with_suffix(".txt")
        if text is None and note.is_file():
            text = _note(note)
        if text is None and path.parent not in beside:
            about = path.parent / ABOUT
            beside[path.parent] = read_file_prompts(about) if about.is_file() else {}
        clips.append(ClipFile(path, text if text is not None else _of(path, beside[path.parent])))
    return clips


def read_file_prompts(path: Path) -> dict[Path | str, str]:
    """Read a file of clips and prompts.

    Args:
        path: See `with_prompts`.

    Returns:
        Absolute path of a clip, and its bare name, to what the judges read. A bare name that
        belongs to clips of different prompts is left out.

    Raises:
        TuningError: It cannot be read, or lines are bad, each told with its number.
    """
    if path.suffix.lower() != ".jsonl":
        raise TuningError(
            f"prompt file {path}: a .jsonl file is wanted, with "
            f'{{"{FILE}": "clip.mp4", "{TEXT}": "..."}} a line'
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TuningError(f"prompt file {path}: cannot be read ({error})") from error
    rows = [(number, _row(line)) for number, line in enumerate(lines, 1) if line.strip()]
    bad = [f"  line {number}: {row}" for number, row in rows if isinstance(row, str)]
    if bad:
        more = [f"  and {len(bad) - MOST_TOLD} more"] if len(bad) > MOST_TOLD else []
        raise TuningError("\n".join([f"prompt file {path}:", *bad[:MOST_TOLD], *more]))
    found: dict[Path | str, str] = {}
    names: dict[str, set[str]] = {}
    for _, row in rows:
        assert not isinstance(row, str)
        name, text = row
        found[(path.parent / Path(name).expanduser()).resolve()] = text
        names.setdefault(Path(name).name, set()).add(text)
    return found | {name: texts.pop() for name, texts in names.items() if len(texts) == 1}


def _of(path: Path, prompts: Mapping[Path | str, str]) -> str | None:
    return prompts.get(path.resolve(), prompts.get(path.name))


def _note(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8-sig").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        raise TuningError(f"prompt {path}: cannot be read as UTF-8 text ({error})") from error


def _row(line: str) -> tuple[str, str] | str:
    """File and text of a line, or what is wrong with it."""
    try:
        row = json_row(line)
    except TuningError as error:
        return str(error)
    if not isinstance(row, dict):
        return f'got {line.strip()[:60]}; wanted: {{"{FILE}": "clip.mp4", "{TEXT}": "..."}}'
    wrong = misspelt(row)
    if wrong is not None:
        return wrong
    for key in (FILE, TEXT, *([REWARD_TEXT] if REWARD_TEXT in row else [])):
        value = row.get(key)
        if key not in row:
            return f"the key `{key}` is missing"
        if wrong := text_fault(key, value):
            return wrong
    return str(row[FILE]), str(row.get(REWARD_TEXT, row[TEXT])).strip()
