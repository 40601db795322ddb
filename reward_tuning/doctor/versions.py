"""Installed versions against the ranges that this package declares (pyproject.toml)."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from typing import TYPE_CHECKING

from reward_tuning import __version__
from reward_tuning.doctor.facts import Fact

if TYPE_CHECKING:
    from packaging.requirements import Requirement

GROUP = "versions"
DISTRIBUTION = "reward-tuning"
SHOWN = (
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "open-clip-torch",
    "imageio",
    "imageio-ffmpeg",
)
"""Packages that have a line of their own; the others are named only where they are wrong."""

Installed = Callable[[str], str | None]


def installed_version(name: str) -> str | None:
    """Return the version of an installed distribution; None if there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def version_facts(
    lines: Sequence[str] | None = None,
    python_range: str | None = None,
    installed: Installed = installed_version,
) -> Iterator[Fact]:
    """Yield this package, Python, and the packages that this one needs.

    Args:
        lines: Requirements; None takes those that this package declares.
        python_range: Versions of Python; None takes those that this package declares.
        installed: Finds a version.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    yield Fact(GROUP, "reward-tuning", __version__)
    if lines is None or python_range is None:
        try:
            lines = requires(DISTRIBUTION) or []
            python_range = metadata(DISTRIBUTION)["Requires-Python"] or ""
        except PackageNotFoundError:
            todo = "install it, so that its ranges are known: pip install -c constraints.txt -e ."
            value = "run from its source without being installed; no version can be checked"
            yield Fact(GROUP, "ranges", value, "note", todo)
            lines, python_range = [], ""
    yield _python(python_range)
    wrong, others = [], 0
    for requirement in map(Requirement, lines):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        fact = _package(requirement, installed(requirement.name))
        if canonicalize_name(requirement.name) in SHOWN:
            yield fact
        elif fact.mark == "ok":
            others += 1
        else:
            wrong.append(fact)
    yield from wrong
    if others:
        yield Fact(GROUP, "other packages", f"{others} more, each within its range")
    found = installed("hpsv2")
    yield Fact(GROUP, "hpsv2", found or "not installed; only this project's own tests read it")


def _python(allowed: str) -> Fact:
    from packaging.specifiers import SpecifierSet

    here = platform.python_version()
    implementation = platform.python_implementation()
    value = here if implementation == "CPython" else f"{here} ({implementation})"
    if not allowed or SpecifierSet(allowed).contains(here, prereleases=True):
        return Fact(GROUP, "python", value)
    todo = f"make an environment with another Python: make PYTHON=/path/to/python{allowed[2:]}"
    return Fact(GROUP, "python", f"{value}; needs {allowed}", "problem", todo)


def _package(requirement: Requirement, found: str | None) -> Fact:
    allowed = str(requirement.specifier)
    todo = f"pip install '{requirement.name}{allowed}'"
    if found is None:
        value = f"not installed; needs {allowed or 'any version'}"
        return Fact(GROUP, requirement.name, value, "problem", todo)
    # a local version such as 2.15.0+cpu, and a development version, count as what they precede
    if requirement.specifier.contains(found, prereleases=True):
        return Fact(GROUP, requirement.name, found)
    value = f"{found}, out of the range {allowed}"
    return Fact(GROUP, requirement.name, value, "problem", todo)
