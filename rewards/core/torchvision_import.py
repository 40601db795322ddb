"""Make a CUDA build of torchvision importable with a CPU-only torch.

Every Linux wheel of torchvision on the package index is built for CUDA. With a CPU-only torch its
native library does not load, so `torchvision::nms` is never declared, and the first import of
torchvision (by open_clip, timm or transformers' vision models) ends in "operator torchvision::nms
does not exist". Declaring the operators before that import avoids it; calling them still raises
torchvision's own clear error.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch

_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[torch.library.Library] = []  # a declaration ends with its last reference


def needs_declaration(torchvision_version: str, *, cuda: str | None, hip: str | None) -> bool:
    """Return whether this torchvision build cannot load its operators with this torch build.

    Args:
        torchvision_version: Content of torchvision's `version.py`.
        cuda: `torch.version.cuda`.
        hip: `torch.version.hip`.
    """
    return not cuda and not hip and "+cu" in torchvision_version


def ensure_torchvision_importable() -> None:
    """Declare torchvision's operators if its own library cannot; call before importing it."""
    if _declared or "torchvision" in sys.modules:
        return
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return
    version_file = Path(next(iter(spec.submodule_search_locations)), "version.py")
    if not version_file.is_file():
        return
    hip = getattr(torch.version, "hip", None)
    if not needs_declaration(version_file.read_text(), cuda=torch.version.cuda, hip=hip):
        return
    declare_operators()


def declare_operators() -> None:
    """Declare the schemas of torchvision's operators, once."""
    library = torch.library.Library("torchvision", "DEF")
    for operator in _OPERATORS:
        library.define(operator + _SCHEMA)
    _declared.append(library)
