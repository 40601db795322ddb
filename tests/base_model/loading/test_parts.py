"""A checkpoint with parts of another, as a folder of links that loads."""

import shutil
from pathlib import Path

import pytest
import torch

from base_model.errors import GeneratorError
from base_model.files.shipped import resolve_checkpoint, resolve_part
from base_model.generator import load_generator
from base_model.loading.checkpoint import load_vae
from base_model.loading.parts import with_parts


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("REWARD_TUNING_CACHE", str(tmp_path / "cache"))
    folder = resolve_checkpoint("tiny")
    assert isinstance(folder, Path)
    return folder


def changed_vae(tiny: Path, folder: Path) -> Path:
    """A VAE that differs from tiny's in one weight, with the same config."""
    vae = load_vae(tiny)
    with torch.no_grad():
        vae.post_quant_conv.weight.add_(1.0)
    vae.save_pretrained(folder / "vae")
    return folder / "vae"


def test_a_folder_replaces_its_part_alone(tiny: Path, tmp_path: Path) -> None:
    vae = changed_vae(tiny, tmp_path)
    found = with_parts(tiny, {"vae": resolve_part("vae", str(vae))})
    assert all(path.is_symlink() for path in found.iterdir())
    assert (found / "vae").resolve() == vae.resolve()
    assert (found / "transformer").resolve() == (tiny / "transformer").resolve()
    whole, base = load_generator(found), load_generator(tiny)
    weight = base.vae.post_quant_conv.weight
    assert torch.equal(whole.vae.post_quant_conv.weight, weight + 1.0)
    assert torch.equal(whole.transformer.proj.weight, base.transformer.proj.weight)
    assert with_parts(tiny, {"vae": vae}) == found  # the same places, the same folder


def test_a_file_keeps_the_config_that_it_replaces(tiny: Path, tmp_path: Path) -> None:
    vae = changed_vae(tiny, tmp_path)
    file = tmp_path / "mine.safetensors"
    shutil.move(next(vae.glob("*.safetensors")), file)
    found = with_parts(tiny, {"vae": resolve_part("vae", str(file))})
    assert (found / "vae" / "config.json").resolve() == (tiny / "vae" / "config.json").resolve()
    weight = load_vae(tiny).post_quant_conv.weight
    assert torch.equal(load_vae(found).post_quant_conv.weight, weight + 1.0)


def test_a_place_without_the_part_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(GeneratorError, match=r"holds no vae: neither vae/ nor a config\.json"):
        with_parts(tiny, {"vae": tmp_path})
    (tmp_path / "half").mkdir()
    with pytest.raises(GeneratorError, match=r"lacks transformer, text_encoder.*does not replace"):
        with_parts(tmp_path / "half", {"vae": tiny / "vae"})
