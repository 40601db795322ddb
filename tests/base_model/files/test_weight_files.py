"""Safetensors files of a component: found, read, and compared with a model."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from base_model.errors import GeneratorError
from base_model.files.weight_files import (
    check_fit,
    find_weights,
    json_object,
    load_strictly,
    read_json,
    shorten,
)

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


def linear() -> torch.nn.Module:
    with torch.device("meta"):
        return torch.nn.ModuleDict({"a": torch.nn.Linear(3, 2)})


def identity(names: list[str]) -> dict[str, str]:
    return {name: name for name in names}


def test_one_file_and_shards_give_the_same_tensors(tmp_path: Path) -> None:
    one, many = tmp_path / "one", tmp_path / "many"
    one.mkdir(), many.mkdir()
    save_file(STATE, one / "m.safetensors", {"format": "pt"})
    files = {"a.weight": "m-1.safetensors", "a.bias": "m-2.safetensors"}
    for name, file in files.items():
        save_file({name: STATE[name]}, many / file)
    (many / "m.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    for folder in (one, many):
        found = find_weights(folder)
        assert found.shapes == {"a.weight": (2, 3), "a.bias": (2,)}
        assert set(found.dtypes.values()) == {"F32"}
        read = dict(found.read(torch.float64, "cpu"))
        assert all(torch.equal(read[name], tensor.double()) for name, tensor in STATE.items())
        with found.opened() as opened:
            assert torch.equal(opened("a.bias"), STATE["a.bias"])
    assert find_weights(one).metadata == {"format": "pt"}
    assert find_weights(many).files["a.bias"] == many / "m-2.safetensors"


def test_weights_are_loaded_onto_a_model_without_memory(tmp_path: Path) -> None:
    save_file({f"x.{name}": tensor for name, tensor in STATE.items()}, tmp_path / "m.safetensors")
    model, weights = linear(), find_weights(tmp_path)
    rename = {name: name.removeprefix("x.") for name in weights.files}
    load_strictly(model, weights, rename=rename, dtype=torch.bfloat16, device="cpu")
    state = model.state_dict()
    assert torch.equal(state["a.weight"], STATE["a.weight"].bfloat16())


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a.weight": STATE["a.weight"]}, "1 missing: a.bias"),
        (STATE | {"b": torch.ones(1)}, "1 unexpected: b"),
        (
            STATE | {"a.bias": torch.ones(3)},
            r"1 of another shape: a\.bias \(3,\) instead",
        ),
        (
            STATE | {"a.bias": torch.ones(2, dtype=torch.int8)},
            r"they are quantised: a\.bias I8",
        ),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, state: dict[str, torch.Tensor], message: str
) -> None:
    save_file(state, tmp_path / "m.safetensors")
    weights = find_weights(tmp_path)
    with pytest.raises(GeneratorError, match=message):
        check_fit(linear(), weights, rename=identity(list(weights.files)))


def test_files_that_cannot_be_chosen_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GeneratorError, match=r"holds no \*\.safetensors file"):
        find_weights(tmp_path)
    (tmp_path / "m.bin").write_bytes(b"")
    with pytest.raises(GeneratorError, match=r"only pickled weights \(m\.bin\)"):
        find_weights(tmp_path)
    for name in ("a", "b"):
        save_file(STATE, tmp_path / f"{name}.safetensors")
    with pytest.raises(GeneratorError, match="2 safetensors files and 0 index files"):
        find_weights(tmp_path)


def test_json_and_lists_in_messages(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"a": 1}')
    assert read_json(tmp_path / "c.json") == {"a": 1}
    with pytest.raises(GeneratorError, match=r"d\.json is missing"):
        read_json(tmp_path / "d.json")
    with pytest.raises(GeneratorError, match=r"must hold a JSON object, got a list"):
        json_object(tmp_path / "c.json", "[]")
    assert shorten([str(i) for i in range(8)]) == "0, 1, 2, 3, 4, 5 and 2 more"
