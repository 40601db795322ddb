"""Golden tensors of the published implementation, and checkpoints made of their weights."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

FOLDER = Path(__file__).parent / "golden"
TRANSFORMERS = (
    "transformer_t2v_all_mmdit",
    "transformer_inpaint_7b_style",
    "transformer_control_7b_style",
    "transformer_camera_all_mmdit",
)
WEIGHT_FILE = "diffusion_pytorch_model.safetensors"
FLOW = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "use_dynamic_shifting": True,
}


class Golden(NamedTuple):
    metadata: dict[str, str]
    tensors: dict[str, Tensor]

    @property
    def config(self) -> dict[str, Any]:
        return json.loads(self.metadata["config"])

    @property
    def weights(self) -> dict[str, Tensor]:
        """In the original checkpoint's names."""
        prefix = "weights."
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


def load_golden(name: str) -> Golden:
    with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
        return Golden(file.metadata(), {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118


def write_part(folder: Path, config: dict[str, Any], weights: dict[str, Tensor]) -> None:
    """One component's folder, replaced when it is there: config.json and one weight file."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / WEIGHT_FILE)


def write_checkpoint(folder: Path, transformer: str = "sampling_7b_style") -> Path:
    """A checkpoint in the original layout: golden transformer, golden VAE, V5.1's scheduler."""
    for part, name in (("transformer", transformer), ("vae", "vae")):
        golden = load_golden(name)
        write_part(folder / part, golden.config, golden.weights)
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(FLOW))
    return folder


def relative(value: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    return ((value - expected).norm() / expected.norm()).item()
