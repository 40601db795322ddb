"""Delta checkpoints: the same weights but for the rounding, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from base_model.errors import GeneratorError
from base_model.files import shipped
from base_model.files.shipped import resolve_checkpoint
from base_model.generator import Condition, load_generator
from base_model.loading import delta
from base_model.loading.checkpoint import local_folder
from base_model.loading.delta import assembled, base_of, is_delta, write_delta
from base_model.training.input_channels import with_input_channels

BASE = shipped.WEIGHTS / "tiny"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REWARD_TUNING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def trained() -> torch.nn.Module:
    """The shipped transformer, wider, every weight moved by about a hundredth of its row."""
    model = with_input_channels(load_generator("tiny", text_encoder=False).transformer, 38)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.01 * p.std().nan_to_num(1.0) * torch.randn(p.shape, generator=draw))
    return model


@pytest.fixture
def folder(tmp_path: Path, trained: torch.nn.Module) -> Path:
    trained.save_config(tmp_path / "own" / "transformer")  # type: ignore[operator]
    write_delta(tmp_path / "own", trained.state_dict(), BASE, name="tiny", about={})
    return tmp_path / "own"


def test_it_is_half_as_large_and_says_its_base(folder: Path) -> None:
    path = folder / "transformer" / "delta.safetensors"
    whole = BASE / "transformer" / "diffusion_pytorch_model.safetensors"
    assert path.stat().st_size < 0.55 * whole.stat().st_size
    assert is_delta(folder)
    assert not is_delta(BASE)
    assert base_of(folder) == "tiny"


def test_the_weights_come_back(folder: Path, trained: torch.nn.Module) -> None:
    """A level is 1/127 of a row's largest difference; bf16 keeps 8 bits of the sum."""
    found = load_file(
        assembled(folder, BASE) / "transformer" / "diffusion_pytorch_model.safetensors"
    )
    old = load_file(BASE / "transformer" / "diffusion_pytorch_model.safetensors")
    state = trained.state_dict()
    assert found.keys() == state.keys()
    for name, new in state.items():
        got = found[name].float()
        assert found[name].dtype == torch.bfloat16
        if old[name].shape != new.shape:
            assert torch.equal(got, new.to(torch.bfloat16).float()), name
            continue
        step = (new - old[name].float()).abs().max() / 127
        rounding = 2.0**-8 * new.abs()
        assert ((got - new).abs() <= 0.51 * step + rounding + 1e-6).all(), name
    assert sum(old[name].shape != new.shape for name, new in state.items()) == 1


def test_it_loads_as_a_checkpoint_and_predicts_the_same(
    folder: Path, trained: torch.nn.Module
) -> None:
    model = load_generator(folder)
    assert model.kind.name == "camera"
    assert model.prompt_encoder is not None
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(1, 16, 3, 8, 8, generator=draw)
    condition = Condition(
        torch.randn(1, 36, 128, generator=draw),
        control_latents=torch.randn(1, 22, 3, 8, 8, generator=draw),
    )
    sigma = torch.tensor([0.7])
    with torch.no_grad():
        got = model.velocity(x, sigma, condition)
        model.transformer.load_state_dict(trained.state_dict())
        wanted = model.velocity(x, sigma, condition)
    assert ((got - wanted).norm() / wanted.norm()).item() < 0.02


def test_it_is_made_once(folder: Path, cache: Path) -> None:
    first = local_folder(folder)
    made = (first / "transformer" / "diffusion_pytorch_model.safetensors").stat().st_mtime_ns
    assert local_folder(folder) == first
    assert (
        first / "transformer" / "diffusion_pytorch_model.safetensors"
    ).stat().st_mtime_ns == made
    assert [path.name for path in (cache / "checkpoints").iterdir()] == [first.name]
    assert sorted(path.name for path in first.iterdir()) == sorted(
        ["model_index.json", "transformer", "vae", "text_encoder", "tokenizer", "scheduler"]
    )


def test_another_delta_gets_another_folder(folder: Path) -> None:
    first = local_folder(folder)
    path = folder / "transformer" / "delta.safetensors"
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    name = next(key for key in tensors if key.startswith("add."))
    tensors[name] = tensors[name] + 1
    save_file(tensors, path, metadata)
    assert local_folder(folder) != first


def test_another_part_of_the_base_gets_another_folder(folder: Path, tmp_path: Path) -> None:
    """A cache that outlives an installation must not keep the base's old parts."""
    shutil.copytree(BASE, tmp_path / "newer")
    config = tmp_path / "newer" / "scheduler" / "scheduler_config.json"
    first = assembled(folder, tmp_path / "newer")
    config.write_text(config.read_text().replace("1000", "999"))
    second = assembled(folder, tmp_path / "newer")
    assert first != second
    assert (second / "scheduler" / config.name).read_bytes() == config.read_bytes()


def test_another_base_is_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "transformer"
    other.mkdir(parents=True)
    state = load_file(BASE / "transformer" / "diffusion_pytorch_model.safetensors")
    save_file({k: v + 1 for k, v in state.items()}, other / "diffusion_pytorch_model.safetensors")
    with pytest.raises(GeneratorError, match="was made from other weights"):
        assembled(folder, other.parent)


def test_a_damaged_delta_is_named(folder: Path) -> None:
    path = folder / "transformer" / "delta.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(GeneratorError, match=r"delta\.safetensors cannot be read"):
        local_folder(folder)


def test_a_cache_that_cannot_be_written_is_named(folder: Path, cache: Path) -> None:
    cache.write_text("a file where a folder must be")
    with pytest.raises(GeneratorError, match="REWARD_TUNING_CACHE"):
        local_folder(folder)


def test_nothing_half_made_is_left(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(delta.shutil, "copytree", full)
    with pytest.raises(GeneratorError, match="No space left on device"):
        local_folder(folder)
    assert not list((cache / "checkpoints").iterdir())


def test_resolving_a_shipped_delta_gives_its_own_folder() -> None:
    """Its config tells the kind without anything being put together."""
    for name in shipped.shipped_checkpoints():
        found = resolve_checkpoint(name)
        assert isinstance(found, Path)
        assert json.loads((found / "transformer" / "config.json").read_text())["in_channels"]
