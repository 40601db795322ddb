"""LoRA file formats: one reader for all layouts, one writer per format.

A new format is a module of this folder with a function `write(weights, path, dtype, about)`, and
its line in `FORMATS`. The table imports no torch, so that `--help` can list it.
"""

from collections.abc import Mapping
from typing import NamedTuple


class ExportFormat(NamedTuple):
    """A format that adapters are written in.

    Attributes:
        module: Module of this folder that writes it.
        about: Description in help texts, a fragment.
        is_folder: The format is a folder; otherwise it is one .safetensors file.
    """

    module: str
    about: str
    is_folder: bool = False


FORMATS: Mapping[str, ExportFormat] = {
    "peft": ExportFormat("peft_folder", "a folder", is_folder=True),
    "diffusers": ExportFormat("diffusers_file", "one file"),
    "original": ExportFormat("original_file", "one file, for the original trainer and ComfyUI"),
}
