"""Measure judges: seconds and memory a frame, and how often they agree with the oracle.

    python -m benchmarks.judges [JUDGE ...] [--pairs 60] [--frames 5] [--size 64] [--json]
    python -m benchmarks.judges --full-size [JUDGE ...]

Prints a row a judge of the package. Seconds are of the process's own processor time on a CPU (so
that others may use the machine), of the wall on a GPU, for one forward and one backward pass;
memory is what is kept for the backward pass (on a GPU the allocator's peak), beside the weights.

Agreement: per attribute, clips of held-out combinations are rendered twice, once as the prompt says
and once with another word for this attribute, all else alike; counted are the pairs that the judge
orders right, of those that the oracle reads as they were meant. Half is chance. A judge that reads
no text has nothing to order by, and one of single frames sees no motion.

With --full-size the towers of the published files are measured with random weights: cost alone.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from base_model.generator import load_generator
from base_model.tiny.captions import draw_caption
from base_model.tiny.oracle import judge as oracle
from base_model.tiny.render import render
from base_model.tiny.scenes import ATTRIBUTES, draw_scenes
from benchmarks.machine import machine
from rewards import load_latent_reward, load_reward
from rewards.clip_towers.open_clip_models import build_model, open_clip_config
from rewards.clip_towers.tokenizers import build_tokenizer
from rewards.clip_towers.tower import ClipTower
from rewards.kinds.clip import clip_preprocess
from rewards.kinds.hps import hps_preprocess

ScoreFn = Callable[[Tensor, Sequence[str]], Tensor]
PROMPT = "a large blue square moves right on a dark background"

SHIPPED: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "hps": ("hps", "tiny/hps.safetensors", {}),
    "clip": ("clip", "tiny/clip.safetensors", {}),
    "clip-held-out": ("clip", "tiny/clip-held-out.safetensors", {}),
    "aesthetic": ("aesthetic", "tiny/aesthetic.safetensors", {}),
    "pickscore": ("pickscore", "tiny/pickscore.safetensors", {}),
    "aesthetic-v2-5": ("aesthetic_v2_5", "tiny/aesthetic-v2-5.safetensors", {}),
    "image-reward": ("image_reward", "tiny/image-reward.safetensors", {}),
    "mps": ("mps", "tiny/mps.safetensors", {}),
    "qwen-critic": ("qwen_critic", "tiny/qwen-critic", {}),
    "video-align": ("video_align", "tiny/video-align", {}),
    "hpsv3": ("hpsv3", "tiny/hpsv3.safetensors", {}),
    "motion-energy": ("motion_energy", None, {}),
    "motion-flow": ("motion_flow", None, {}),
    "flicker": ("flicker", None, {}),
    "consistency": ("consistency", "tiny/clip.safetensors", {}),
    "vjepa2": ("vjepa2", "tiny/vjepa2.safetensors", {}),
}
"""Name in the table -> kind, checkpoint (None for a kind without a file) and the kind's options."""

LATENT = "latent-clip"  # sees latents: its costs are those of the embedded VAE's encoder, too

FULL_SIZE = {
    "hps": "ViT-H-14",
    "clip": "ViT-H-14",
    "pickscore": "ViT-H-14",
    "aesthetic": "ViT-L-14-quickgelu",
}
"""Kind -> open_clip's architecture of its published file."""


@dataclass(frozen=True)
class Cost:
    """What one judge costs.

    Attributes:
        seconds: A frame, forward and backward.
        megabytes: A frame, kept between the two.
        weights: Megabytes of its networks.
    """

    seconds: float
    megabytes: float
    weights: float


def shipped_judge(name: str, device: torch.device) -> tuple[ScoreFn, list[nn.Module]]:
    """A judge of the package by its name in the table, and its networks."""
    if name == LATENT:
        latent = load_latent_reward(f"tiny/{LATENT}.safetensors", device=device)
        generator = load_generator("tiny", device=str(device), text_encoder=False)
        encode = generator.encode
        return lambda x, prompts: latent(encode(x), 0.0, prompts), latent.modules
    kind, checkpoint, options = SHIPPED[name]
    judge = load_reward(kind, checkpoint, device=device, **options)
    return judge, judge.modules


def full_size_judge(kind: str, device: torch.device) -> tuple[ScoreFn, list[nn.Module]]:
    """The image tower of a published file with random weights, as a judge of frames."""
    architecture = open_clip_config(FULL_SIZE[kind])
    model = build_model(architecture, device)
    size = architecture["vision_cfg"]["image_size"]
    preprocess = hps_preprocess(size) if kind == "hps" else clip_preprocess(size)
    tower = ClipTower(model, architecture, preprocess, build_tokenizer(architecture, None))

    def score(frames: Tensor, prompts: Sequence[str]) -> Tensor:
        del prompts
        return tower.image_features(frames.flatten(0, 1))[:, 0]

    return score, [model.visual]


def cost(score: ScoreFn, modules: Sequence[nn.Module], frames: Tensor, repeats: int) -> Cost:
    """Measure one clip, forward and backward.

    Args:
        score: The judge.
        modules: Its networks.
        frames: `(1, f, 3, H, W)` in [0, 1], on the judge's device.
        repeats: Measured so often, after one pass that is not; the median counts.
    """
    cuda = frames.device.type == "cuda"
    seconds, held = [], 0
    for number in range(repeats + 1):
        x = frames.clone().requires_grad_()
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        began = time.perf_counter() if cuda else time.process_time()
        if number == 0:
            saved = SavedBytes(modules)
            with saved:
                scores = score(x, [PROMPT])
            held = saved.total
        else:
            scores = score(x, [PROMPT])
        scores.sum().backward()
        if cuda:
            torch.cuda.synchronize()
            held = torch.cuda.max_memory_allocated() - before
        ended = time.perf_counter() if cuda else time.process_time()
        if number:
            seconds.append(ended - began)
    count = frames.shape[1]
    weights = sum(p.numel() * p.element_size() for m in modules for p in m.parameters())
    return Cost(statistics.median(seconds) / count, held / count / 1e6, weights / 1e6)


class SavedBytes(torch.autograd.graph.saved_tensors_hooks):
    """Bytes that a forward pass keeps for the backward pass, each storage once, weights not.

    Args:
        modules: Whose parameters and buffers do not count.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        tensors = [t for m in modules for t in (*m.parameters(), *m.buffers())]
        known = {t.untyped_storage().data_ptr() for t in tensors}
        self.total = 0
        alive: list[Tensor] = []  # so that no address is given to two tensors

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                known.add(storage.data_ptr())
                alive.append(tensor)
                self.total += storage.nbytes()
            return tensor

        super().__init__(pack, lambda tensor: tensor)


@torch.no_grad()
def agreement(score: ScoreFn, pairs: int, seed: int = 0) -> dict[str, float]:
    """Share of pairs that a judge orders as the oracle does, per attribute.

    Args:
        score: The judge.
        pairs: Of each attribute, before the oracle has looked at them.
        seed: Of scenes, staging and phrasing.

    Returns:
        Attribute -> share in [0, 1]; a pair of equal scores counts half.
    """
    found = {}
    for attribute, words in ATTRIBUTES.items():
        rng = random.Random(f"judges {attribute} {seed}")
        scenes = draw_scenes(pairs, rng, "held_out")
        wrong = [
            replace(
                scene,
                **{attribute: rng.choice([w for w in words if w != getattr(scene, attribute)])},
            )
            for scene in scenes
        ]
        prompts = [draw_caption(scene, rng, "en") for scene in scenes]
        staging = [f"{attribute} {seed} {i}" for i in range(pairs)]
        shown = [
            torch.cat(
                [
                    render([one], random.Random(name))
                    for one, name in zip(some, staging, strict=True)
                ]
            )
            for some in (scenes, wrong)
        ]
        read = [oracle(clips, prompts).right[attribute] for clips in shown]
        kept = (read[0] == 1) & (read[1] == 0)
        texts = [prompt for prompt, keep in zip(prompts, kept.tolist(), strict=True) if keep]
        better, worse = (score(clips[kept], texts).cpu() for clips in shown)
        ordered = (better > worse).double() + 0.5 * (better == worse).double()
        found[attribute] = float(ordered.mean())
    return found


def measure(
    names: Sequence[str], *, full_size: bool, pairs: int, frames: int, size: int, repeats: int
) -> list[dict[str, Any]]:
    """A row a judge: its cost, and its agreement unless it is of full size."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        build = full_size_judge if full_size else shipped_judge
        score, modules = build(name, device)
        draw = torch.Generator().manual_seed(0)
        clip = torch.rand((1, frames, 3, size, size), generator=draw).to(device)
        row: dict[str, Any] = {"judge": name, **asdict(cost(score, modules, clip, repeats))}
        if not full_size:
            row["agreement"] = agreement(score, pairs)
        rows.append(row)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as text."""
    head = ["judge", "s/frame", "MB/frame", "weights MB", *ATTRIBUTES]
    lines = []
    for row in rows:
        numbers = [f"{row['seconds']:.4f}", f"{row['megabytes']:.2f}", f"{row['weights']:.1f}"]
        shares = row.get("agreement", {})
        lines.append([row["judge"], *numbers, *(f"{value:.2f}" for value in shares.values())])
    widths = [
        max(len(line[i]) for line in [head, *lines] if i < len(line)) for i in range(len(head))
    ]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)).rstrip()
        for line in [head, *lines]
    )


def main() -> None:
    known = [*SHIPPED, LATENT]
    parser = argparse.ArgumentParser(description="Measure judges.")
    parser.add_argument("judges", nargs="*", help=f"of {', '.join(known)}; all if none is given")
    parser.add_argument("--full-size", action="store_true", help=f"of {', '.join(FULL_SIZE)}")
    parser.add_argument("--pairs", type=int, default=60, help="of each attribute")
    parser.add_argument("--frames", type=int, default=5, help="of the timed clip, 4k + 1")
    parser.add_argument("--size", type=int, default=64, help="its pixels on a side")
    parser.add_argument("--repeats", type=int, default=3, help="timed passes")
    parser.add_argument("--json", action="store_true", help="machine-readable result")
    arguments = parser.parse_args()
    allowed = list(FULL_SIZE) if arguments.full_size else known
    names = arguments.judges or allowed
    if unknown := [name for name in names if name not in allowed]:
        parser.error(f"no judge {', '.join(unknown)}; allowed: {', '.join(allowed)}")
    rows = measure(
        names,
        full_size=arguments.full_size,
        pairs=arguments.pairs,
        frames=arguments.frames,
        size=arguments.size,
        repeats=arguments.repeats,
    )
    if arguments.json:
        print(json.dumps({"machine": machine(), "judges": rows}, indent=2))
    else:
        print(table(rows))


if __name__ == "__main__":
    main()
