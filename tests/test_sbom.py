"""The bill of materials against the environment itself and the structure of CycloneDX."""

from __future__ import annotations

import json
import re
import uuid
from importlib.metadata import PathDistribution, distributions, version
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from scripts.sbom import bill, licences_of, main


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return bill(distributions())


def test_it_has_the_structure_of_cyclonedx(made: dict[str, Any]) -> None:
    assert (made["bomFormat"], made["specVersion"], made["version"]) == ("CycloneDX", "1.6", 1)
    serial = made["serialNumber"]
    assert serial == f"urn:uuid:{uuid.UUID(serial.removeprefix('urn:uuid:'))}"
    assert made["metadata"]["component"]["name"] == "reward-tuning"
    assert made["metadata"]["component"]["type"] == "application"
    subject, components = made["metadata"]["component"], made["components"]
    allowed = {"type", "bom-ref", "name", "version", "purl", "description", "licenses"}
    for one in [subject, *components]:
        assert {"type", "bom-ref", "name", "version", "purl"} <= set(one) <= allowed
        assert re.fullmatch(r"pkg:pypi/[a-z0-9-]+@[A-Za-z0-9.%!-]+", one["purl"]), one
        for licence in one.get("licenses", []):
            assert set(licence) in ({"expression"}, {"license"})
            text = licence.get("expression") or licence["license"]["name"]
            assert 0 < len(text) <= 200
            assert "\n" not in text
    references = [one["bom-ref"] for one in [subject, *components]]
    assert len(references) == len(set(references))
    assert {one["ref"] for one in made["dependencies"]} == set(references)
    for one in made["dependencies"]:
        assert set(one["dependsOn"]) <= set(references)
    assert json.loads(json.dumps(made)) == made


def test_it_lists_what_is_installed(made: dict[str, Any]) -> None:
    there = {canonicalize_name(one.metadata["Name"]) for one in distributions()}
    listed = {canonicalize_name(one["name"]): one for one in made["components"]}
    assert set(listed) == there - {"reward-tuning"}
    for name in ("torch", "transformers", "safetensors"):
        assert listed[name]["version"] == version(name)
        assert listed[name]["licenses"]
    needs = {one["ref"]: one["dependsOn"] for one in made["dependencies"]}
    own = needs[made["metadata"]["component"]["bom-ref"]]
    assert listed["torch"]["purl"] in own
    assert listed["pytest"]["purl"] not in own  # of an extra


def distribution(folder: Path, *lines: str) -> PathDistribution:
    place = folder / "a-1.0+cpu.dist-info"
    place.mkdir()
    head = ["Metadata-Version: 2.4", "Name: A.b_C", "Version: 1.0+cpu"]
    (place / "METADATA").write_text("\n".join([*head, *lines]) + "\n\n")
    return PathDistribution(place)


@pytest.mark.parametrize(
    ("lines", "licences"),
    [
        (["License-Expression: MIT OR Apache-2.0"], [{"expression": "MIT OR Apache-2.0"}]),
        (
            ["License: whatever", "Classifier: License :: OSI Approved :: MIT License"],
            [{"license": {"name": "MIT License"}}],
        ),
        (["License: BSD"], [{"license": {"name": "BSD"}}]),
        (["License: " + "A long text " * 50], [{"license": {"name": ("A long text " * 50)[:200]}}]),
        ([], []),
    ],
)
def test_licences(tmp_path: Path, lines: list[str], licences: list[Any]) -> None:
    assert licences_of(distribution(tmp_path, *lines)) == licences


def test_a_local_version_in_a_purl(tmp_path: Path) -> None:
    own = next(one for one in distributions() if one.metadata["Name"] == "reward-tuning")
    (only,) = bill([own, distribution(tmp_path)])["components"]
    assert (only["purl"], only["version"]) == ("pkg:pypi/a-b-c@1.0%2Bcpu", "1.0+cpu")


def test_the_same_environment_gives_the_same_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--output", str(tmp_path / "build/sbom.json")])
    said = capsys.readouterr().out
    main([])
    text = capsys.readouterr().out
    assert (tmp_path / "build/sbom.json").read_text(encoding="utf-8") == text
    assert f"{len(json.loads(text)['components'])} components" in said
    assert str(Path.home()) not in text
