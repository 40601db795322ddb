"""export: every format, from a file and from a run, and what it refuses."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from base_model.generator import load_generator
from reward_tuning.lora.adapter import LoraWeights
from reward_tuning.lora.export import import_adapter
from reward_tuning.lora.formats.adapter_files import find_adapter, header_of
from reward_tuning.lora.module_shapes import transformer_shapes
from reward_tuning.lora.rank import scaled_by, truncated
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
        assert f" --lora {target} --steps " in done.err  # sampled as the run was evaluated
        transformer = load_generator(model, text_encoder=False).transformer
        assert same(import_adapter(target, transformer), import_adapter(GOLDEN_LORA, transformer))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "--checkpoint"),
        (["--checkpoint", "gone"], "No generator checkpoint"),
        (["--checkpoint", "MODEL", "--format", "kohya"], "allowed: peft, diffusers, original"),
        (["--checkpoint", "MODEL", "--dtype", "half"], "allowed: float32"),
        (["--checkpoint", "MODEL", "--rank", "5"], "the rank is 5; allowed: 1 to 4"),
        (["--checkpoint", "MODEL", "--strength", "0"], "other than 0"),
        (["--checkpoint", "MODEL", "--strength", "nan"], "other than 0"),
        (["--checkpoint", "MODEL", "--layout", "original"], "--layout original is for --merge"),
        (["--checkpoint", "MODEL", "--max-shard-size", "1GB"], "is for --merge, which is not"),
        (["--checkpoint", "tiny"], "the LoRA is for a model of another size"),
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


# --- smaller, weaker, and where it comes from


def header(path: Path) -> dict[str, str]:
    return header_of(find_adapter(path))


def test_a_smaller_rank_and_a_strength(run: Command, model: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.safetensors"
    options = ["--checkpoint", model, "--rank", "2", "--strength", "0.5", "--format", "original"]
    done = run("export", GOLDEN_LORA, *options, "--output", small)
    assert done.code == 0, done.err
    assert "rank 4 to 2: relative error of the LoRA's change 0." in done.err
    shapes = transformer_shapes(model)
    expected = truncated(scaled_by(import_adapter(GOLDEN_LORA, shapes), 0.5), 2)
    assert same(import_adapter(small, shapes), expected.weights)
    told = header(small)
    assert json.loads(told["reward_tuning.truncation"])["error"] == round(expected.total, 9)
    assert (told["reward_tuning.strength"], told["ss_network_dim"]) == ("0.5", "2")
    again = tmp_path / "again"
    options = ["--checkpoint", model, "--strength", "0.5", "--format", "peft"]
    assert run("export", small, *options, "--output", again).code == 0
    assert header(again)["reward_tuning.strength"] == "0.25"
    assert "reward_tuning.truncation" in header(again)
    quarter = LoraWeights(2, expected.weights.alpha / 2, expected.weights.state)
    assert same(import_adapter(again, shapes), quarter)


def test_the_header_has_the_run_and_its_evaluation(
    run: Command, model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    write_recipe(folder, generator__checkpoint=str(model))
    arguments = ["export", GOLDEN_LORA, "--checkpoint", model, "--format", "peft"]
    run(*arguments, "--output", folder / "lora")
    evaluation = {"prompts": 3, "base": {"clip": 1.0}, "tuned": {"clip": 2.0}}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    target = tmp_path / "a.safetensors"
    assert run("export", folder, "--output", target).code == 0
    told = header(target)
    assert json.loads(told["reward_tuning.evaluation"]) == evaluation
    assert told["ss_sd_model_name"] == model.name
    assert "output" not in json.loads(told["reward_tuning.recipe"])
    assert str(tmp_path) not in json.dumps(told)

    step = folder / "checkpoints" / "step-000020" / "adapter.safetensors"
    step.parent.mkdir(parents=True)
    shutil.copy(GOLDEN_LORA, step)
    assert run("export", step, "--output", tmp_path / "b.safetensors").code == 0
    told = header(tmp_path / "b.safetensors")
    assert told["ss_steps"] == "20"
    assert "reward_tuning.evaluation" not in told  # that of the last step

    foreign = folder / "downloaded.safetensors"
    shutil.copy(GOLDEN_LORA, foreign)
    assert run("export", foreign, "--output", tmp_path / "c.safetensors").code == 0
    told = header(tmp_path / "c.safetensors")
    assert not [name for name in told if name.startswith("reward_tuning.")]

    (folder / "evaluation.json").write_text("{")
    done = run("export", folder, "--output", tmp_path / "d.safetensors")
    assert done.code == 2
    assert "evaluation.json is damaged" in done.err


def test_a_run_of_another_version_is_exported_with_a_warning(
    run: Command, model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    write_recipe(folder)
    arguments = ["export", GOLDEN_LORA, "--checkpoint", model, "--format", "peft"]
    run(*arguments, "--output", folder / "lora")
    (folder / "recipe.yaml").write_text("seed: 1\nfuture_key: 2\n")
    target = tmp_path / "a.safetensors"
    done = run("export", folder, "--output", target)
    assert done.code == 2  # its generator is in the recipe
    assert "future_key" in done.err
    done = run("export", folder, "--checkpoint", model, "--output", target)
    assert done.code == 0, done.err
    assert "warning: the metadata do not describe the run: " in done.err
    assert "reward_tuning.recipe" not in header(target)


# --- merged


def test_merge(run: Command, model: Path, tmp_path: Path) -> None:
    target = tmp_path / "merged"
    arguments = ["export", GOLDEN_LORA, "--checkpoint", model, "--merge"]
    more = ["--strength", "0.7", "--layout", "diffusers", "--max-shard-size", "100KB"]
    done = run(*arguments, *more, "--output", target)
    assert done.code == 0, done.err
    assert done.out.startswith(f"{target}: diffusers layout, ")
    assert "strength 0.7" in done.out
    assert "layers changed; rounding to the dtype" in done.err
    assert len(list((target / "transformer").glob("*.safetensors"))) > 1
    merged = load_generator(target).transformer  # with its text encoder
    generator = load_generator(model, text_encoder=False)
    weights = import_adapter(GOLDEN_LORA, generator.transformer)
    (path, (down, up)) = next(iter(weights.state.items()))
    before = generator.transformer.get_parameter(f"{path}.weight").double()
    expected = before + 0.7 * weights.strength * up.double() @ down.double()
    got = merged.get_parameter(f"{path}.weight").double()
    assert float((got - expected).norm() / expected.norm()) < 1e-7
    assert run(*arguments, "--output", target).code == 2  # it exists


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--rank", "2"], "--rank is not for --merge"),
        (["--format", "peft"], "--format is not for --merge"),
        (["--overwrite"], "--overwrite is not for --merge"),
        (["--layout", "comfy"], "--layout: got 'comfy'; allowed: original, diffusers"),
        (["--strength", "0"], "other than 0"),
        (["--max-shard-size", "many"], "'many' is invalid"),
        (["--checkpoint", "tiny"], "the LoRA is for a model of another size"),
        (["--checkpoint", "no-one/nothing-EasyAnimate"], "no-one/nothing-EasyAnimate"),
    ],
)
def test_merge_refuses(
    run: Command,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
    message: str,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    arguments = ["export", GOLDEN_LORA, "--merge"]
    if "--checkpoint" not in more:
        arguments += ["--checkpoint", model]
    done = run(*arguments, *more, "--output", tmp_path / "merged")
    assert done.code == 2
    assert message in done.err
    assert list(tmp_path.iterdir()) == []


def test_merge_writes_no_file(run: Command, model: Path, tmp_path: Path) -> None:
    arguments = ["export", GOLDEN_LORA, "--checkpoint", model, "--merge"]
    done = run(*arguments, "--output", tmp_path / "a.safetensors")
    assert (done.code, list(tmp_path.iterdir())) == (2, [])
    assert "--merge writes a folder; give a name without .safetensors" in done.err


def test_a_stopped_merge_leaves_nothing(
    run: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return False

    monkeypatch.setattr("base_model.convert.conversion._linked", stop)
    arguments = ["export", GOLDEN_LORA, "--checkpoint", model, "--merge"]
    done = run(*arguments, "--output", tmp_path / "merged")
    assert done.code == 130
    assert "stopped by Ctrl-C; nothing was written" in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_all_weights_has_no_lora(run: Command, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write_recipe(folder)
    (folder / "generator").mkdir()
    done = run("export", folder, "--output", tmp_path / "a.safetensors")
    assert done.code == 2
    assert f"its checkpoint is {folder / 'generator'}" in done.err
