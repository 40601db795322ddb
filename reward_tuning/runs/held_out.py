"""Find held-out prompts and clips that are also trained on, which would flatter the evaluation."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from functools import cache
from pathlib import Path

from reward_tuning.errors import TuningError
from reward_tuning.files.hashes import file_sha256
from reward_tuning.inputs.prompts import Prompt


def shared_prompts(train: Sequence[Prompt], held_out: Sequence[Prompt]) -> str:
    """Find held-out prompts that are also trained on.

    Two prompts are equal if their texts are, apart from case, spaces, punctuation and Unicode form,
    and if their conditions are: the same values and the same file names.

    Args:
        train: Prompts to train on.
        held_out: Prompts of the evaluation.

    Returns:
        A warning with their number; empty for none.

    Raises:
        TuningError: All are trained on.
    """
    seen = {_asked(prompt) for prompt in train}
    count = sum(_asked(prompt) in seen for prompt in held_out)
    if count == len(held_out):
        raise TuningError(
            f"prompts.held_out: all {count} prompts of the evaluation are in prompts.train, too, "
            "so nothing is held out; give a file of other prompts"
        )
    return _warning(count, len(held_out), "prompts of the evaluation", "prompts.held_out")


def shared_files(train: Iterable[Path], held_out: Sequence[Path]) -> str:
    """Find held-out clips that are also trained on: files of equal content, under any name.

    Args:
        train: Files of the training clips.
        held_out: Files of the held-out clips.

    Returns:
        A warning with their number; empty for none.

    Raises:
        TuningError: All are trained on.
    """
    of_size: dict[int, set[Path]] = defaultdict(set)
    for path in train:
        of_size[path.stat().st_size].add(path)
    content = cache(file_sha256)
    count = 0
    for path in held_out:
        alike = of_size.get(path.stat().st_size, set())  # only these can be equal
        count += path in alike or any(content(path) == content(other) for other in alike)
    if held_out and count == len(held_out):
        raise TuningError(
            f"data.held_out: all {count} held-out clips are among those to train on, too (the list "
            "names them more than once); remove the repeated rows"
        )
    return _warning(count, len(held_out), "held-out clips", "data.metadata")


def _warning(count: int, whole: int, what: str, key: str) -> str:
    if not count:
        return ""
    are = "is" if count == 1 else "are"
    return (
        f"{count} of {whole} {what} {are} trained on, too, so the evaluation is too favourable; "
        f"remove {'it' if count == 1 else 'them'} from {key}"
    )


def _asked(prompt: Prompt) -> Hashable:
    files = prompt.files
    words = [(key, str(value)) for key, value in files.given.items() if key not in files.paths]
    names = [(key, tuple(path.name for path in paths)) for key, paths in files.paths.items()]
    return _words(prompt.text), tuple(words), tuple(names)


def _words(text: str) -> str:
    """Reduce a text to its words: without case, punctuation and Unicode form, but with emoji.

    A text of nothing but punctuation stays as it is, or all such texts would be equal.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    marks = (" " if unicodedata.category(letter)[0] == "P" else letter for letter in text)
    return " ".join("".join(marks).split()) or text
