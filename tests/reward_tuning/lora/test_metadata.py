"""What managers read in the header of each file, and that its bytes depend on the content alone."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors.torch import load_file

from reward_tuning.lora.adapter import LoraWeights
from reward_tuning.lora.export import FORMATS, export_adapter, export_every_format, import_adapter
from reward_tuning.lora.formats.adapter_files import find_adapter, header_of
from reward_tuning.lora.metadata import (
    adapter_bytes,
    carried,
    evaluation_metadata,
    training_metadata,
)
from reward_tuning.schema.sections import LoraSection
from tests.reward_tuning.lora.test_export import NAMES, same, tuned
from tests.reward_tuning.tiny_run import tiny_recipe, write_world
from tests.reward_tuning.tiny_transformer import tiny_transformer

MUST = ("sai_model_spec", "architecture", "implementation", "title")
PRINT = {"generator": "sha256:" + "ab" * 32}


@pytest.fixture(scope="module")
def about(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    world = write_world(tmp_path_factory.mktemp("world"))
    return training_metadata(tiny_recipe(world, world / "run"), PRINT)


def file_of(path: Path) -> Path:
    return find_adapter(path).weights


def kohya_hashes(file: Path) -> tuple[str, str]:
    """As `precalculate_safetensors_hashes` of kohya's scripts computes them, with the library."""
    with safetensors.safe_open(file, "pt") as opened:
        metadata = {k: v for k, v in opened.metadata().items() if k.startswith("ss_")}
    buffer = io.BytesIO(safetensors.torch.save(load_file(file), metadata))
    buffer.seek(0x100000)
    legacy = hashlib.sha256(buffer.read(0x10000)).hexdigest()[0:8]
    buffer.seek(0)
    (length,) = struct.unpack("<Q", buffer.read(8))
    buffer.seek(length + 8)
    return hashlib.sha256(buffer.read()).hexdigest(), legacy


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_has_the_entries(tmp_path: Path, format: str, about: dict[str, str]) -> None:
    _, weights = tuned()
    path = export_adapter(weights, tmp_path / NAMES[format], format, about=about)
    found = header_of(find_adapter(path))
    assert all(found[f"modelspec.{key}"] for key in MUST)
    assert found["modelspec.sai_model_spec"] == "1.0.0"
    assert found["modelspec.architecture"] == "easyanimate-v5.1/lora"
    names = "https://github.com/aigc-apps/EasyAnimate" if format == "original" else "diffusers"
    assert found["modelspec.implementation"] == names
    assert found["modelspec.title"] == "generator tuned on clip"
    assert found["modelspec.resolution"] == "32x32"
    assert found["ss_network_dim"] == "4"
    assert found["ss_network_alpha"] == ("4" if format == "diffusers" else "2")  # folded there
    digest, legacy = kohya_hashes(file_of(path))
    assert found["modelspec.hash_sha256"] == f"0x{digest}"
    assert (found["sshs_model_hash"], found["sshs_legacy_hash"]) == (digest, legacy)
    assert json.loads(found["reward_tuning.judges"]) == {
        "trained_on": ["clip"],
        "never_trained_on": ["clip_held_out"],
    }
    assert json.loads(found["reward_tuning.base"])["fingerprint"] == PRINT["generator"]
    assert all(isinstance(value, str) for value in found.values())
    assert same(import_adapter(path, tiny_transformer()), weights)


def test_the_legacy_hash_of_a_file_above_a_megabyte(tmp_path: Path) -> None:
    """Below 1 MiB it is the hash of nothing; above, it depends on the `ss_` entries."""
    tensors = {"x.lora_A.weight": torch.arange(400_000.0).view(4, -1)}
    weights = LoraWeights(4, 2.0, {})
    found = set()
    for comment in ("a", "longer ü"):
        about = {"ss_training_comment": comment, "modelspec.title": "not part of the hash"}
        content = adapter_bytes(
            tensors, weights, alpha=2.0, implementation="x", about=about, more={}
        )
        path = tmp_path / "x.safetensors"
        path.write_bytes(content)
        header = header_of(find_adapter(path))
        assert (header["sshs_model_hash"], header["sshs_legacy_hash"]) == kohya_hashes(path)
        found.add(header["sshs_legacy_hash"])
    assert len(found) == 2
    assert hashlib.sha256(b"").hexdigest()[:8] not in found


def test_the_same_recipe_gives_the_same_bytes_wherever_it_runs(tmp_path: Path) -> None:
    found = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        world = write_world(tmp_path / name)
        recipe = tiny_recipe(world, world / f"run-{name}")
        entries = training_metadata(recipe, PRINT)
        assert str(tmp_path) not in json.dumps(entries)
        assert json.loads(entries["reward_tuning.recipe"])["prompts"]["train"] == "train.txt"
        _, weights = tuned("attention")
        section = LoraSection(rank=4, alpha=2.0, targets="attention")
        state = {
            f"{path}.lora_{half}.weight": factor
            for path, factors in weights.state.items()
            for half, factor in zip("AB", factors, strict=True)
        }
        export_every_format(section, tmp_path / name / "lora", state, entries)
        folder = tmp_path / name / "lora"
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert found[0] == found[1]
    assert len(found[0]) == 4


def test_entries_survive_other_formats_and_what_is_stale_does_not(
    tmp_path: Path, about: dict[str, str]
) -> None:
    _, weights = tuned()
    theirs = {
        **about,
        "modelspec.license": "Apache-2.0",
        "modelspec.trigger_phrase": "sks",
        "ss_tag_frequency": "{}",
    }
    path = export_adapter(weights, tmp_path / "a.safetensors", "original", about=theirs)
    entries = carried({**header_of(find_adapter(path)), "other": "x", "modelspec.hash_md5": "0x1"})
    assert "other" not in entries
    assert not [name for name in entries if name.startswith(("sshs_", "modelspec.hash_"))]
    again = export_adapter(
        LoraWeights(4, 3.0, weights.state), tmp_path / "lora", "peft", about=entries
    )
    found = header_of(find_adapter(again))
    assert theirs.items() <= found.items()
    assert found["ss_network_alpha"] == "3"
    assert found["modelspec.implementation"] == "diffusers"
    assert found["sshs_model_hash"] == kohya_hashes(file_of(again))[0]


def test_an_evaluation_is_summarised() -> None:
    evaluation = {
        "prompts": 4,
        "base": {"clip": 0.5},
        "tuned": {"clip": 0.75},
        "difference": {"clip": {"mean": 0.25, "low": 0.1, "high": 0.4}},
        "questions": [{"prompt": "long"}] * 100,
        "sides": [{}],
        "primary": None,
    }
    (text,) = evaluation_metadata(evaluation).values()
    assert json.loads(text) == {
        key: evaluation[key] for key in ("prompts", "base", "tuned", "difference")
    }
    assert evaluation_metadata({}) == {}
