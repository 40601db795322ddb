"""Gradients of FlowBP's own trainers on the toy flow of the tests, written down as a golden file.

    python -m tests.reward_tuning.official_gradients FLOWBP

FLOWBP is a checkout of RuoyuWang-2077/FlowBP at 93b220a. Their SD3.5 trainers run as they are, but
for four things: the tensors are float64 where they are bfloat16 or float32, the model is
`toy_flow.py`, the table is V5.1's of eight steps in place of a scheduler's own, and what samples
and logging need (wandb, data sets, FSDP) is a stand-in. Runs on a CPU in seconds. Nothing of their
code is copied into this repository.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.reward_tuning.toy_flow import ToyFlow, toy_loss

OUTPUT = Path(__file__).parent / "cases" / "flowbp_gradients.safetensors"

STEPS = 8
OWN = ("flowbp.trainers.common.", "flowbp.trainers.sd35.", "flowbp.schedulers.")

UNIFORM: dict[str, Any] = {"min_idx": 1, "max_idx": STEPS + 1, "jk_sampling_mode": "uniform"}
DIRICHLET: dict[str, Any] = UNIFORM | {
    "jk_sampling_mode": "dirichlet",
    "jk_dirichlet_alpha_a": 2.5,
    "jk_dirichlet_alpha_b": 6.0,
    "jk_dirichlet_alpha_c": 2.0,
    "alpha": 0.1,
    "flowbp_lagrange_connector_order": 3,
    "flowbp_lagrange_grad_support_mode": "midpoint",
    "flowbp_lagrange_grad_support_scale": 0.25,
    "flowbp_lagrange_max_active_supports": 2,
}


def active(count: int, bias: float, rescale: float) -> dict[str, Any]:
    """Arguments that Sparse and Bridge share."""
    return {
        "flowbp_sparse_num_active_steps": count,
        "flowbp_sparse_late_bias": bias,
        "flowbp_sparse_grad_rescale": rescale,
    }


# Trainer and arguments of each configuration, for eight steps where theirs are for 25.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "sparse_flux1": ("flowbp_sparse", active(3, 2.0, 1.0)),
    "sparse_sd35": ("flowbp_sparse", active(4, 1.0, 0.5)),
    "sparse_flux2": ("flowbp_sparse", active(4, 2.0, 0.0)),
    "bridge_flux1": ("flowbp_bridge", UNIFORM | active(5, 2.0, 1.0) | {"alpha": 0.1}),
    "bridge_sd35": ("flowbp_bridge", UNIFORM | active(5, 4.0, 0.0) | {"alpha": 0.5}),
    "bridge_flux2": ("flowbp_bridge", UNIFORM | active(3, 4.0, 0.5) | {"alpha": 1.0}),
    "lagrange_flux1": (
        "flowbp_lagrange",
        DIRICHLET | {"tau": 0.2, "flowbp_lagrange_grad_rescale": 0.5},
    ),
    "lagrange_sd35": ("flowbp_lagrange", DIRICHLET | {"tau": 0.2, "jk_dirichlet_max_j_rev": 4}),
    "lagrange_flux2": ("flowbp_lagrange", DIRICHLET | {"tau": 0.1, "train_step_tail_ratio": 0.7}),
    "leapalign": ("leapalign", UNIFORM | {"alpha": 0.3, "tau": 0.1}),
    "drtune": ("drtune", {"drtune_num_train_steps": 3, "drtune_early_stop_ratio": 0.4}),
    "refl": ("refl", {"refl_last_n_steps": 4}),
    "draft_lv": ("draft_lv", {"draft_lv_num_noised_samples": 2}),
}
DRAWS = 2


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Their trainers in float64; a stand-in for everything else that they import."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find_spec(
        self, name: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Answer for their package and for wandb."""
        if name.split(".", maxsplit=1)[0] in ("flowbp", "wandb"):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Any:
        """Make an empty module for a trainer, and a stand-in for anything else."""
        theirs = spec.name.startswith(OWN) or any(of.startswith(spec.name + ".") for of in OWN)
        return ModuleType(spec.name) if theirs else MagicMock(name=spec.name, __path__=[])

    def exec_module(self, module: Any) -> None:
        """Run a trainer's file with float64 in place of the smaller kinds."""
        path = self.root / (module.__name__.replace(".", "/") + ".py")
        if not isinstance(module, ModuleType) or not path.is_file():
            return
        text = path.read_text(encoding="utf-8")
        for dtype in ("torch.bfloat16", "torch.float32"):
            text = text.replace(dtype, "torch.float64")
        text = text.replace(".float()", ".double()")
        exec(compile(text, str(path), "exec"), module.__dict__)


def run(trainer: str, arguments: dict[str, Any], seed: int) -> tuple[dict[str, Tensor], Any, float]:
    """One trajectory of a trainer and its gradient; what it drew."""
    module = importlib.import_module(f"flowbp.trainers.sd35.{trainer}")
    scheduler_module = importlib.import_module("flowbp.schedulers.fm_euler_discrete_with_pred_x0")
    flow = ToyFlow(STEPS)
    timesteps = flow.sigmas[:-1] * 1000.0

    def velocity(args: Any, transformer: Any, x: Tensor, step_t: Tensor, *states: Any) -> Tensor:
        return flow(x, int((timesteps == step_t).nonzero()))

    scheduler = scheduler_module.FlowMatchEulerDiscreteWithPredX0Scheduler()
    scheduler.sigmas, scheduler.timesteps = flow.sigmas, timesteps
    for name in ("leapalign", "flowbp_lagrange", "flowbp_bridge", "flowbp_sparse", trainer):
        one = importlib.import_module(f"flowbp.trainers.sd35.{name}")
        one._model_forward_sd35 = velocity  # type: ignore[attr-defined]
        one._prepare_timesteps = lambda *a: timesteps  # type: ignore[attr-defined]
        one._sample_initial_latents = lambda *a: (flow.noise(), 0, 0)  # type: ignore[attr-defined]
    args = SimpleNamespace(**arguments)
    torch.manual_seed(seed)
    name = "" if trainer == "leapalign" else f"{trainer}_"
    sample = getattr(module, f"sample_{name}trajectory_sd35")
    generator = torch.Generator().manual_seed(seed)
    found = sample(args, "cpu", None, scheduler, torch.zeros(2), None, None, None, generator)
    x, weights = found[-3], found[-2]
    if weights is None:
        weights = torch.ones(len(x), dtype=x.dtype)
    loss = torch.stack([w * toy_loss(clip) for w, clip in zip(weights, x, strict=True)]).mean()
    names, own = zip(*flow.named_parameters(), strict=True)
    grads = dict(zip(names, torch.autograd.grad(loss, own), strict=True))
    return grads, args._last_connector_payload, float(loss.detach())


def drawn(payload: dict[str, Any]) -> dict[str, Any]:
    """The steps that a trajectory drew."""
    names = (
        "k_idx",
        "j_idx",
        "active_indices",
        "selected_indices",
        "selected_idx",
        "train_indices",
        "early_stop_idx",
    )
    return {
        name: value.tolist() if isinstance(value, Tensor) else value
        for name, value in payload.items()
        if name in names
    }


def main() -> None:
    """Write the golden file."""
    sys.meta_path.insert(0, Finder(Path(sys.argv[1])))
    tensors, notes = {}, {}
    for case, (trainer, arguments) in CASES.items():
        for seed in range(DRAWS):
            grads, payload, loss = run(trainer, arguments, seed)
            tensors |= {f"{case}.{seed}.{name}": grad for name, grad in grads.items()}
            notes[f"{case}.{seed}"] = json.dumps(drawn(payload) | {"loss": loss})
    save_file(tensors, OUTPUT, metadata=notes)
    print(f"{len(notes)} gradients of {len(CASES)} configurations: {OUTPUT}")


if __name__ == "__main__":
    main()
