"""export: every format, from a file and from a run, and what it refuses."""

import shutil
from pathlib import Path

import pytest
import torch

from base_model.generator import load_generator
from reward_tuning.lora.adapter import LoraWeights
from reward_tuning.lora.export import import_adapter
from tests.base_model.conftest import checkpoint, text_folder
from tests.goldens import FOLDER
from tests.reward_tuning.command_line import Command, command
from tests.reward_tuning.recipes_for_tests import write_recipe

__all__ = ["checkpoint", "text_folder"]  # fixtures
run = pytest.fixture(command, name="run")
GOLDEN_LORA = FOLDER / "lora_original_layout.safetensors"


@pytest.fixture(scope="module")
def model(checkpoint: Path, text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole checkpoint: golden transformer and VAE, random text encoder."""
    folder = tmp_path_factory.mktemp("model") / "whole"
    shutil.copytree(checkpoint, folder)
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(text_folder / part, folder / part)
    return folder


def same(a: LoraWeights, b: LoraWeights) -> bool:
    return (a.rank, a.alpha, set(a.state)) == (b.rank, b.alpha, set(b.state)) and all(
        torch.equal(x, y)
        for path in a.state
        for x, y in zip(a.state[path], b.state[path], strict=True)
    )


@pytest.mark.parametrize(
    ("format_", "name"),
    [("peft", "lora"), ("diffusers", "lora.safetensors"), ("original", "lora.safetensors")],
)
def test_export_keeps_the_adapter(
    run: Command, model: Path, tmp_path: Path, format_: str, name: str
) -> None:
    target = tmp_path / name
    done = run(
        "export", GOLDEN_LORA, "--checkpoint", model, "--format", format_, "--output", target
    )
    assert done.code == 0, done.err
    assert done.out == f"{target}\n"
    transformer = load_generator(model, text_encoder=False).transformer
    golden = import_adapter(GOLDEN_LORA, transformer)
    assert golden.state
    assert same(import_adapter(target, transformer), golden)


def test_export_of_a_run_knows_its_generator(run: Command, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write_recipe(folder, generator__checkpoint=str(model))
    done = run("export", folder, "--output", tmp_path / "a.safetensors")
    assert done.code == 2
    assert "run without a lora folder" in done.err
    run(
        "export",
        GOLDEN_LORA,
        "--checkpoint",
        model,
        "--format",
        "peft",
        "--output",
        folder / "lora",
    )
    for source in (folder, folder / "lora"):
        target = tmp_path / f"{source.name}.safetensors"
        done = run("export", source, "--format", "original", "--output", target)
        assert done.code == 0, done.err
        transformer = load_generator(model, text_encoder=False).transformer
        assert same(import_adapter(target, transformer), import_adapter(GOLDEN_LORA, transformer))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "--checkpoint"),
        (["--checkpoint", "gone"], "No generator checkpoint"),
        (["--checkpoint", "MODEL", "--format", "kohya"], "allowed: peft, diffusers, original"),
        (["--checkpoint", "MODEL", "--dtype", "half"], "allowed: float32"),
    ],
)
def test_export_refuses(
    run: Command, model: Path, tmp_path: Path, more: list[str], message: str
) -> None:
    arguments = [str(model) if one == "MODEL" else one for one in more]
    done = run("export", GOLDEN_LORA, *arguments, "--output", tmp_path / "a.safetensors")
    assert done.code == 2
    assert message in done.err
    assert list(tmp_path.iterdir()) == []


def test_export_does_not_overwrite(run: Command, model: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.safetensors"
    target.write_text("mine")
    arguments = ["export", GOLDEN_LORA, "--checkpoint", model, "--output", target]
    done = run(*arguments)
    assert done.code == 2
    assert target.read_text() == "mine"
    assert run(*arguments, "--overwrite").code == 0
    assert target.stat().st_size > 1000


def test_export_of_a_cut_file(run: Command, model: Path, tmp_path: Path) -> None:
    source = tmp_path / "cut.safetensors"
    source.write_bytes(GOLDEN_LORA.read_bytes()[:-100])
    done = run("export", source, "--checkpoint", model, "--output", tmp_path / "a.safetensors")
    assert done.code == 2
    assert "cut.safetensors" in done.err
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "peft", "--output", "a.safetensors"], "peft writes a folder"),
        (["--format", "original", "--output", "a"], "original writes one file"),
    ],
)
def test_the_name_of_an_export_must_fit_its_format(
    run: Command, tmp_path: Path, arguments: list[str], message: str
) -> None:
    *rest, name = arguments
    done = run("export", GOLDEN_LORA, "--checkpoint", "tiny", *rest, tmp_path / name)
    assert (done.code, list(tmp_path.iterdir())) == (2, [])
    assert message in done.err
