"""Architectures, schedules and files of the embedded judges."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from base_model.files.reproducible import save_reproducibly
from base_model.training.loop import LossFn, ReportFn, Schedule, train
from reward_tuning.errors import TuningError
from reward_tuning.pretrain.judge_data import tokenizer_texts
from rewards.clip_towers.bpe import train_bpe, write_merges
from rewards.clip_towers.open_clip_models import Architecture
from rewards.clip_towers.tokenizers import build_tokenizer
from rewards.core.preprocess import Preprocess
from rewards.networks.blip import BlipArchitecture
from rewards.networks.mps import MpsArchitecture

JudgeName = Literal[
    "clip",
    "hps",
    "aesthetic",
    "clip-held-out",
    "latent-clip",
    "pickscore",
    "siglip",
    "aesthetic-v2-5",
    "image-reward",
    "mps",
    "qwen-critic",
    "video-align",
    "hpsv3",
    "vjepa2",
]
JUDGES: tuple[JudgeName, ...] = get_args(JudgeName)

MERGES_FILE = "bpe_small.txt.gz"
MERGES = 510
VOCABULARY_FILE = "vocab_small.txt"
TEXT: dict[str, Any] = {
    "context_length": 32,
    "vocab_size": 512 + MERGES + 2,  # bytes inside and at the end of words, merges, start and end
    "width": 64,
    "heads": 4,
    "layers": 2,
}
CLIP: Architecture = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 64, "layers": [1, 2, 1, 1], "width": 12, "head_width": 48},
    "text_cfg": TEXT,
}
CLIP_HELD_OUT: Architecture = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": 64, "layers": [2, 1, 1, 1], "width": 12, "head_width": 48},
    "text_cfg": {**TEXT, "width": 48, "heads": 2, "layers": 3},
}
LATENT_CLIP: Architecture = {
    "embed_dim": 64,
    "latent_cfg": {"channels": 16, "widths": [48, 64], "depths": [2, 3], "heads": 4},
    "text_cfg": {**TEXT, "width": 48, "heads": 2},
}
IMAGE_REWARD: BlipArchitecture = {
    "vision": {
        "image_size": 64,
        "patch_size": 8,
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 256,
    },
    "text": {  # plus the size of the grammar's vocabulary
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "max_position_embeddings": 35,
    },
}
MPS: MpsArchitecture = {
    "width": 64,
    "text": {
        "vocab_size": TEXT["vocab_size"],
        "max_position_embeddings": TEXT["context_length"],
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 256,
    },
    "vision": IMAGE_REWARD["vision"],
    "cross": {"layers": 1, "heads": 4, "head_width": 16},
}
PICKSCORE: Architecture = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": 64, "layers": 4, "width": 80, "head_width": 16, "patch_size": 8},
    "text_cfg": {**TEXT, "width": 48, "heads": 3},
}
SIGLIP: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": 64,
    "patch_size": 8,
}
VJEPA2: dict[str, Any] = {
    "model_type": "vjepa2",
    "crop_size": 64,
    "patch_size": 16,
    "tubelet_size": 2,
    "frames_per_clip": 10,
    "hidden_size": 72,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "pred_hidden_size": 48,
    "pred_num_hidden_layers": 3,
    "pred_num_attention_heads": 2,
    "pred_num_mask_tokens": 1,
}
CLIP_PREPROCESS = Preprocess("crop", 64)
HPS_PREPROCESS = Preprocess("letterbox", 64, clamped=False)

SCHEDULES: dict[JudgeName, Schedule] = {
    "clip": Schedule(steps=1000, learning_rate=2e-3, optimiser="muon", ema_decay=0.0),
    "hps": Schedule(steps=600, learning_rate=1e-3, optimiser="muon", ema_decay=0.0),
    "aesthetic": Schedule(steps=1500, learning_rate=1e-3, ema_decay=0.0, report_every=100),
    "clip-held-out": Schedule(steps=2000, learning_rate=2e-3, optimiser="muon", ema_decay=0.0),
    "latent-clip": Schedule(steps=2400, learning_rate=2e-3, optimiser="muon", ema_decay=0.99),
    "pickscore": Schedule(
        steps=1500, horizon=2000, learning_rate=2e-3, optimiser="muon", ema_decay=0.0
    ),
    "siglip": Schedule(
        steps=800, horizon=1600, learning_rate=2e-3, optimiser="muon", ema_decay=0.0
    ),
    "image-reward": Schedule(steps=2000, learning_rate=3e-3, optimiser="muon", ema_decay=0.0),
    "mps": Schedule(steps=2000, learning_rate=3e-3, optimiser="muon", ema_decay=0.0),
    "aesthetic-v2-5": Schedule(steps=1500, learning_rate=1e-3, ema_decay=0.0, report_every=100),
    "vjepa2": Schedule(steps=4000, learning_rate=1e-3, optimiser="muon", ema_decay=0.99),
    "qwen-critic": Schedule(steps=4500, learning_rate=2e-3, optimiser="muon", ema_decay=0.99),
    "video-align": Schedule(steps=450, learning_rate=1e-3, optimiser="muon", ema_decay=0.99),
    "hpsv3": Schedule(steps=600, learning_rate=1e-3, optimiser="muon", ema_decay=0.99),
}
"""Judges of frames have no moving average: their batch statistics belong to the last weights.
The two vision transformers stop well before the end of their cosine: there `pickscore` orders 93 %
of pairs and the head on `siglip` has a correlation of 0.91 with its target. `vjepa2` learns motion
late:
after 1400 steps it still prefers shuffled clips, after 4000 it orders 92 % of pairs correctly."""

PREFERENCES_FROM = 1000
"""First step of `clip-held-out` with preference pairs in addition to captions."""


@dataclass(frozen=True)
class JudgeRun:
    """Training run of a judge.

    Attributes:
        name: Name of the judge, of its stage and of its file.
        out_dir: Folder of `NAME.safetensors` and the tokenizer.
        training: Folder of checkpoint and log.
        seed: Seed of weights and data.
        schedule: Steps and optimiser.
        report: Callback, called every few steps.
    """

    name: JudgeName | Literal["cross-eyes", "mps-eyes"]
    out_dir: Path
    training: Path
    seed: int
    schedule: Schedule
    report: ReportFn

    @property
    def command(self) -> str:
        """Command that repeats the training."""
        return f"reward-tuning pretrain tiny --only {self.name} --seed {self.seed}"

    def train(self, module: nn.Module, loss_fn: LossFn) -> None:
        """Train a module in place, from its checkpoint if there is one."""
        train(
            self.name,
            module,
            loss_fn,
            self.schedule,
            folder=self.training,
            seed=self.seed,
            report=self.report,
        )


def small_tokenizer(out_dir: Path, architecture: Architecture) -> Any:
    """Return the judges' tokenizer in a folder (see `small_merges`)."""
    return build_tokenizer(architecture, small_merges(out_dir))


def small_merges(out_dir: Path) -> Path:
    """Return the merges file in a folder; train it on the grammar if it is missing."""
    path = out_dir / MERGES_FILE
    if not path.is_file():
        temporary = path.with_name(path.name + ".part")
        write_merges(temporary, train_bpe(tokenizer_texts(), MERGES))
        temporary.replace(path)
    return path


def save_judge(run: JudgeRun, state: dict[str, Tensor], metadata: dict[str, str]) -> Path:
    """Write a judge's file in fp16 atomically.

    Args:
        run: Training run, for the names of the file and the command.
        state: Tensors by the published names.
        metadata: Metadata for the loader.

    Returns:
        Path of the file.
    """
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    path = run.out_dir / f"{run.name}.safetensors"
    save_reproducibly(path, half, {"format": "pt", **metadata, "command": run.command})
    return path


def clip_metadata(kind: str, architecture: Architecture, preprocess: Preprocess) -> dict[str, str]:
    """Return the metadata of a CLIP's file."""
    return {
        "kind": kind,
        "architecture": json.dumps(architecture),
        "preprocess": preprocess.to_json(),
        "tokenizer": MERGES_FILE,
    }


def trained_clip(out_dir: Path) -> dict[str, Tensor]:
    """Read the folder's `clip.safetensors` in fp32; see `trained_judge`."""
    return trained_judge(out_dir, "clip")


def trained_judge(out_dir: Path, name: JudgeName) -> dict[str, Tensor]:
    """Read the tensors of a judge in the folder, in fp32.

    Raises:
        TuningError: The file is missing.
    """
    path = out_dir / f"{name}.safetensors"
    if not path.is_file():
        raise TuningError(
            f"{path} is missing; this judge starts from it. Train it first: reward-tuning "
            f"pretrain tiny --only {name}"
        )
    return {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}


def seed_weights(run: JudgeRun) -> None:
    """Seed the random initial weights by the judge's name and seed."""
    from reward_tuning.pretrain.judge_data import named_rng

    torch.manual_seed(named_rng(run.name, run.seed, "weights")[0].getrandbits(63))
