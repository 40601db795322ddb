"""Write a bill of materials of this environment: CycloneDX 1.6, from the installed metadata alone.

    python -m scripts.sbom                       # print it
    python -m scripts.sbom --output sbom.json    # write it

It lists every installed distribution with its version, licence, purl and what it needs, and this
package as the subject. Nothing is asked of the network. The same environment gives the same bytes:
there is no date, and the serial number is made from the content.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import uuid
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SUBJECT = "reward-tuning"
SPDX = re.compile(r"[A-Za-z0-9.+-]+")
"""A single identifier; longer texts of licences are named, not identified."""
LONGEST = 200  # characters of a licence's name: some packages put the whole text there
_LICENCE = "License :: "


def bill(installed: Iterable[Distribution]) -> dict[str, Any]:
    """Return the bill of materials of distributions, this package among them.

    Args:
        installed: Distributions; of several with one name the first counts, as for Python.
    """
    found: dict[str, Distribution] = {}
    for one in installed:
        if one.metadata["Name"]:  # a damaged installation has none
            found.setdefault(canonicalize_name(one.metadata["Name"]), one)
    names = sorted(found)
    content: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": f"{SUBJECT} scripts.sbom"}]},
            "component": component(found[SUBJECT], "application"),
        },
        "components": [component(found[name], "library") for name in names if name != SUBJECT],
        "dependencies": [{"ref": purl(found[n]), "dependsOn": needed(n, found)} for n in names],
    }
    text = json.dumps(content, sort_keys=True)
    return {**content, "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, text)}"}


def component(one: Distribution, kind: str) -> dict[str, Any]:
    """Return the entry of a distribution."""
    entry: dict[str, Any] = {
        "type": kind,
        "bom-ref": purl(one),
        "name": one.metadata["Name"],
        "version": one.version,
        "purl": purl(one),
    }
    if summary := one.metadata.get("Summary"):
        entry["description"] = summary
    if licences := licences_of(one):
        entry["licenses"] = licences
    return entry


def purl(one: Distribution) -> str:
    """Return the package URL of a distribution."""
    version = one.version.replace("+", "%2B")  # of a local version
    return f"pkg:pypi/{canonicalize_name(one.metadata['Name'])}@{version}"


def licences_of(one: Distribution) -> list[dict[str, Any]]:
    """Return the licences that a distribution states: an expression, classifiers, or a text."""
    metadata = one.metadata
    if expression := metadata.get("License-Expression"):
        return [{"expression": expression}]
    stated = [
        text.rpartition(" :: ")[2]
        for text in metadata.get_all("Classifier") or ()
        if text.startswith(_LICENCE) and text != f"{_LICENCE}OSI Approved"
    ]
    if not stated and (text := (metadata.get("License") or "").strip()):
        stated = [text.splitlines()[0][:LONGEST]]
    return [{"license": {"name": name}} for name in stated]


def needed(name: str, found: dict[str, Distribution]) -> list[str]:
    """Return the purls of the installed distributions that one needs, without its extras."""
    lines = [Requirement(line) for line in found[name].requires or ()]
    names = {
        canonicalize_name(line.name)
        for line in lines
        if line.marker is None or line.marker.evaluate({"extra": ""})
    }
    return sorted(purl(found[one]) for one in names if one in found)


def main(arguments: list[str]) -> None:
    """Print the bill of this environment, or write it."""
    parser = argparse.ArgumentParser(prog="python -m scripts.sbom", description=__doc__)
    parser.add_argument("--output", type=Path, help="file to write; default: print")
    output: Path | None = parser.parse_args(arguments).output
    text = json.dumps(bill(distributions()), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        sys.stdout.write(text)
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    print(f"== {output}: {len(json.loads(text)['components'])} components")


if __name__ == "__main__":
    main(sys.argv[1:])
