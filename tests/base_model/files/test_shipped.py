from pathlib import Path

import pytest

from base_model.errors import GeneratorError
from base_model.files import shipped
from base_model.files.shipped import resolve_checkpoint, shipped_checkpoints


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "weights"
    (folder / "small" / "transformer").mkdir(parents=True)
    (folder / "notes").mkdir()
    monkeypatch.setattr(shipped, "WEIGHTS", folder)
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_shipped_name_comes_first(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    assert shipped_checkpoints() == ["small"]
    assert resolve_checkpoint("small", tmp_path) == weights / "small"
    assert resolve_checkpoint(Path("small"), tmp_path) == tmp_path / "small"


@pytest.mark.usefixtures("weights")
def test_then_a_folder_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipes" / "org" / "name").mkdir(parents=True)
    assert resolve_checkpoint("org/name", tmp_path / "recipes") == tmp_path / "recipes/org/name"
    upwards = resolve_checkpoint("../recipes/org", tmp_path / "recipes")
    assert Path(upwards).samefile(tmp_path / "recipes/org")
    assert resolve_checkpoint(str(tmp_path / "recipes")) == tmp_path / "recipes"
    assert resolve_checkpoint("recipes") == Path("recipes")


@pytest.mark.usefixtures("weights")
def test_then_a_hub_id() -> None:
    assert resolve_checkpoint("org/name-1.5_b") == "org/name-1.5_b"


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("name", ["smal", "./org/name", "/org/name", "a/b/c", "org/", Path("a/b")])
def test_anything_else_is_told(name: str | Path) -> None:
    with pytest.raises(
        GeneratorError, match=r"does not exist\. Allowed are a shipped name \(small\)"
    ):
        resolve_checkpoint(name)


@pytest.mark.usefixtures("weights")
def test_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(GeneratorError, match="is a file, not a folder"):
        resolve_checkpoint("model.safetensors", tmp_path)
