"""A transformer without weights has the names and sizes of the one with weights."""

from pathlib import Path

import pytest
from safetensors import safe_open

from base_model.errors import GeneratorError
from base_model.files.shipped import WEIGHTS
from reward_tuning.lora.module_shapes import transformer_shapes


@pytest.mark.parametrize("name", ["tiny", "tiny-control"])
def test_shapes_are_those_of_the_shipped_weights(name: str) -> None:
    model = transformer_shapes(name)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    found = {key: tuple(parameter.shape) for key, parameter in model.named_parameters()}
    base = WEIGHTS / "tiny" / "transformer" / "diffusion_pytorch_model.safetensors"
    with safe_open(base, "pt") as file:
        stored = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    assert found.keys() == stored.keys()
    differing = {key for key, shape in stored.items() if found[key] != shape}
    assert differing == (set() if name == "tiny" else {"proj.weight"})  # its input channels


def test_a_checkpoint_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(GeneratorError):
        transformer_shapes(tmp_path / "gone")
