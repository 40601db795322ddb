"""Remove the prefixes that wrappers add to the names of a network's tensors.

DistributedDataParallel, `torch.compile`, FSDP and activation checkpointing each add a component of
their own to the names when a wrapped module is saved; a trainer with several networks prepends the
name of the network. None of these changes the weights.
"""

import re
from collections.abc import Iterable, Mapping

from base_model.errors import GeneratorError
from base_model.files.weight_files import WeightFiles, shorten

WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Components that wrappers add; no module of a generator has one of these names."""

_LEADING = re.compile(rf"(?:(?:{'|'.join(WRAPPERS)})\.)+")


def unwrapped(name: str) -> str:
    """Return the name of a tensor without the wrappers' components, at any level."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def plain_names(weights: WeightFiles, anchor: str) -> dict[str, str]:
    """Return the plain names of a network's tensors by their names in the files.

    Args:
        weights: Files of the network.
        anchor: Name of a tensor that every network of this kind has. Whatever precedes it in the
            files is a prefix, which is removed if all names have it.

    Returns:
        Plain name, in the layout of the files, by name in the files.

    Raises:
        GeneratorError: Only some tensors have the prefix, there are several prefixes, or a tensor
            appears with and without a wrapper's component.
    """
    names = {name: unwrapped(name) for name in weights.files}
    _refuse_twice(weights, names)
    if anchor in names.values():
        return names
    prefixes = {plain[: -len(anchor)] for plain in names.values() if plain.endswith(f".{anchor}")}
    if not prefixes:
        return names
    counts = {
        prefix: sum(plain.startswith(prefix) for plain in names.values())
        for prefix in sorted(prefixes)
    }
    (prefix, count), *more = counts.items()
    if more or count < len(names):
        found = ", ".join(f"{prefix!r} ({count})" for prefix, count in counts.items())
        others = [
            plain for plain in names.values() if not any(plain.startswith(p) for p in prefixes)
        ]
        rest = f" and {len(others)} without: {shorten(sorted(others))}" if others else ""
        raise GeneratorError(
            f"{weights.folder}: {len(names)} tensors do not share one prefix: {found}{rest}. "
            "The files must hold one network's tensors, with its prefix on all of them or on none."
        )
    return {name: plain.removeprefix(prefix) for name, plain in names.items()}


def leading_wrappers(names: Iterable[str]) -> str:
    """Return the wrappers' components that begin all names, such as `module.`, or an empty text."""
    found = {match[0] if (match := _LEADING.match(name)) else "" for name in names}
    return found.pop() if len(found) == 1 else ""


def _refuse_twice(weights: WeightFiles, names: Mapping[str, str]) -> None:
    first: dict[str, str] = {}
    twice = [
        f"{first[plain]} and {name}"
        for name, plain in sorted(names.items())
        if first.setdefault(plain, name) != name
    ]
    if twice:
        raise GeneratorError(
            f"{weights.folder}: {len(twice)} tensors appear twice, with and without the "
            f"prefix that a wrapper adds ({', '.join(WRAPPERS)}): {shorten(twice)}. "
            "Keep one of each."
        )
