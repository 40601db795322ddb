"""The plan of a component's weights, and the files that are written from it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from base_model.convert.weights import planned, write_weights
from base_model.errors import GeneratorError
from base_model.files.weight_files import find_weights

STATE = {
    "old.a": torch.arange(1200.0).view(300, 4),
    "old.b": torch.ones(4, dtype=torch.bfloat16),
    "old.steps": torch.tensor([7]),
}
NAMES = {f"new.{name}": f"old.{name}" for name in ("a", "b", "steps")}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    save_file(STATE, tmp_path / "source" / "m.safetensors", {"format": "pt", "by": "a test"})
    return tmp_path / "source"


def test_a_plan_without_a_dtype_keeps_every_tensor(source: Path, tmp_path: Path) -> None:
    plan = planned("vae", find_weights(source), NAMES, None, None)
    assert plan.nbytes == 1200 * 4 + 4 * 2 + 8
    written: list[tuple[str, int]] = []
    write_weights(plan, tmp_path / "vae", lambda file, count: written.append((file, count)))
    (path,) = (tmp_path / "vae").iterdir()
    assert path.name == "diffusion_pytorch_model.safetensors"
    found = load_file(path)
    assert all(torch.equal(found[new], STATE[old]) for new, old in NAMES.items())
    assert {name: t.dtype for name, t in found.items()} == {
        n: STATE[o].dtype for n, o in NAMES.items()
    }
    assert {file for file, _ in written} == {"vae/diffusion_pytorch_model.safetensors"}
    assert sum(count for _, count in written) == plan.nbytes
    assert find_weights(tmp_path / "vae").metadata["by"] == "a test"


def test_a_dtype_changes_floating_tensors_alone(source: Path, tmp_path: Path) -> None:
    plan = planned("vae", find_weights(source), NAMES, torch.float16, None)
    write_weights(plan, tmp_path / "vae", lambda file, count: None)
    found = load_file(tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    assert found["new.a"].dtype == found["new.b"].dtype == torch.float16
    assert found["new.steps"].dtype == torch.int64


def test_shards_have_an_index(source: Path, tmp_path: Path) -> None:
    plan = planned("transformer", find_weights(source), NAMES, None, "1KB")
    assert len(plan.shards) == 2
    write_weights(plan, tmp_path / "transformer", lambda file, count: None)
    found = find_weights(tmp_path / "transformer")  # reads the index
    assert set(found.files) == set(NAMES)
    assert len(set(found.files.values())) == 2


def test_a_size_that_is_none_is_refused(source: Path) -> None:
    with pytest.raises(GeneratorError, match=r"shard size '-1GB' is invalid: it is below 0"):
        planned("vae", find_weights(source), NAMES, None, "-1GB")
