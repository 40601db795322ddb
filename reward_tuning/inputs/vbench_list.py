"""VBench's prompt lists, `VBench_full_info.json` and its relatives, as prompt files.

The format, as VBench at commit 45e79ec publishes it: a JSON list of `{"prompt_en": "...",
"dimension": ["...", ...]}`, some with `auxiliary_info`, which only VBench's own judges read. The
lists of VBench-2.0 and of trustworthiness have the same keys. VBench's `.txt` files, one for each
dimension, are lines of text like any other.
"""

from __future__ import annotations

import json
from pathlib import Path

from reward_tuning.errors import TuningError
from reward_tuning.files.clean_text import cleaned, short_json
from reward_tuning.files.columns import Column, Row

VBENCH_PROMPT = Column(("prompt_en",), required=True)
VBENCH_DIMENSION = Column(("dimension",), required=True)
PICTURE = Column(("image_name",))
"""Key of VBench's list for image to video: a picture that VBench ships apart from the list."""


def is_vbench_list(path: Path) -> bool:
    """Return whether a file is a prompt list of VBench: a `.json` list whose first row is one.

    A file that cannot be read, or is no JSON, is not one: the reader of rows reports its fault.
    """
    if path.suffix.lower() != ".json":
        return False
    try:
        rows = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    first = rows[0] if isinstance(rows, list) and rows else None
    return isinstance(first, dict) and "prompt_en" in first and "dimension" in first


def first_dimension(row: Row) -> str:
    """Return the first dimension that VBench measures on clips of a prompt.

    Raises:
        TuningError: The row has no list of names.
    """
    value = row.values["dimension"]
    names = [value] if isinstance(value, str) else value
    fits = isinstance(names, list) and bool(names)
    if not fits or not all(isinstance(name, str) and cleaned(name) for name in names):
        raise TuningError(f"dimension is {short_json(value)}; expected a list of names")
    return cleaned(names[0])


def refuse_picture_names(row: Row) -> None:
    """Refuse a row of VBench's list for image to video, whose clips start from a picture.

    Raises:
        TuningError: The row names a picture.
    """
    if "image_name" in row.values and "image" not in row.values:
        raise TuningError(
            f"image_name is {short_json(row.values['image_name'])}: this clip starts from a "
            "picture; add the key `image` with the path of that picture, from VBench's download"
        )
