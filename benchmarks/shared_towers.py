"""Measure what two judges on one tower cost when they share it, and when each has its own.

    python -m benchmarks.shared_towers [--architecture ViT-B-32] [--frames 4] [--repeats 3]

Prints a row each for two judges apart and together: bytes of weights, passes of the image tower,
seconds of the process's own processor time for one forward and one backward pass, and how far the
pixel gradients are apart. The tower has random weights.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from rewards import load_reward
from rewards.clip_towers.open_clip_models import build_model, open_clip_config
from rewards.core.base import FrozenReward
from rewards.core.shared_towers import TowerPool, frames_shared, unique_bytes

RELATIVE = {"positive": "a clean picture: {prompt}", "negative": "a torn picture: {prompt}"}
PROMPT = ["a large blue square moves right on a dark background"]


def measured(judges: list[FrozenReward], frames: Tensor, repeats: int) -> tuple[float, int, Tensor]:
    """Least seconds of a forward and a backward pass, passes of the towers, pixel gradient."""
    passes: list[int] = []
    towers = {id(judge.tower.model): judge.tower.model for judge in judges}  # type: ignore[attr-defined]
    hooks = [
        m.visual.register_forward_pre_hook(lambda *_: passes.append(1)) for m in towers.values()
    ]
    seconds = []
    for _ in range(repeats):
        passes.clear()
        x = frames.clone().requires_grad_()
        start = time.process_time()
        with frames_shared(x):
            total = torch.stack([judge(x, PROMPT).sum() for judge in judges]).sum()
        (gradient,) = torch.autograd.grad(total, x)
        seconds.append(time.process_time() - start)
    for hook in hooks:
        hook.remove()
    return min(seconds), len(passes), gradient


def main() -> None:
    """Run both and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="ViT-B-32")
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    frames = torch.rand(1, arguments.frames, 3, 224, 224)
    gradients = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.safetensors"
        model = build_model(open_clip_config(arguments.architecture), torch.device("cpu"))
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)
        for name, pool in (("apart", None), ("together", TowerPool())):
            judges = [
                load_reward(
                    "clip", path, architecture=arguments.architecture, relative=relative, pool=pool
                )
                for relative in (None, RELATIVE)
            ]
            for judge in judges:
                judge(frames, PROMPT)  # texts are encoded once, before the clock runs
            seconds, passes, gradient = measured(judges, frames, arguments.repeats)
            gradients.append(gradient)
            held = unique_bytes([module for judge in judges for module in judge.modules])
            print(f"{name:>8}: {held / 2**20:7.1f} MiB, {passes} passes, {seconds:.2f} s")
    apart = float((gradients[0] - gradients[1]).norm() / gradients[0].norm())
    print(f"gradients differ by {apart:.1e} of their length")


if __name__ == "__main__":
    main()
