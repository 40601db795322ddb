"""How judges of motion and stability go with the oracle's speed, and with clips that cannot be.

    python -m benchmarks.motion_judges [--clips 100] [--vjepa2 FILE]

Prints a table: Pearson's and Spearman's correlation with the speed that the embedded world's oracle
reads (0 to 4 pixels a frame), and the share of pairs in which a rendered clip scores above the
same clip shuffled, with its shape moved elsewhere half-way, or turned back half-way.
"""

from __future__ import annotations

import argparse

from reward_tuning.pretrain.clip_accuracy import VIOLATIONS, ordering_accuracy, speed_agreement
from rewards import VideoReward, load_reward
from rewards.core.base import FrozenReward

KINDS = ("motion_energy", "motion_flow", "flicker", "sharpness")


def judges(vjepa2: str) -> list[FrozenReward]:
    found = [load_reward(kind) for kind in KINDS]
    found.append(load_reward("consistency", "tiny/clip.safetensors"))
    found.append(load_reward("vjepa2", vjepa2))
    found.append(load_reward("vjepa2", vjepa2, contexts=(0.8,), name="vjepa2 of 0.8"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--vjepa2",
        default="tiny/vjepa2.safetensors",
        help="a V-JEPA 2 of `reward-tuning pretrain tiny --only vjepa2`",
    )
    asked = parser.parse_args()
    columns = ("correlation", "rank correlation", "pairs", *VIOLATIONS)
    print("judge".ljust(16), *(name.rjust(16) for name in columns))
    for judge in judges(asked.vjepa2):
        assert isinstance(judge, VideoReward)
        numbers = speed_agreement(judge, asked.clips, asked.seed)
        numbers |= ordering_accuracy(judge, asked.clips, asked.seed)
        print(
            judge.name.ljust(16),
            *(f"{numbers[name]:.2f}".rjust(16) for name in columns),
            flush=True,
        )


if __name__ == "__main__":
    main()
