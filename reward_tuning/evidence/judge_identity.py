"""What a score depends on besides clip and text: the judge's files and options."""

from __future__ import annotations

import json
from typing import Any

from reward_tuning.files.hashes import file_sha256, text_sha256
from reward_tuning.inputs.text_cache import checkpoint_fingerprint
from reward_tuning.schema.judge_parts import JudgeSection
from reward_tuning.schema.judge_roles import FrameRewardSection
from rewards.core.locate import resolve_file
from rewards.qwen.files import resolve_folder

SCORES_VERSION = 1
"""Counts the changes of judges and measures that change scores; older ones are not reused."""
_ROLE = {*FrameRewardSection.model_fields} - {*JudgeSection.model_fields}
_NO_EFFECT = {"name", "chunk", "gradient_checkpointing", "sha256"}
_NO_EFFECT |= {"timeout", "retries", "batch", "parallel", "max_mb", "key_env"}  # how one is asked


def judge_identity(judge: JudgeSection) -> str:
    """Hash everything that a judge's scores of given clips depend on.

    Args:
        judge: Resolved section, of either role; what only training uses does not count, nor do its
            name and where its files lie.

    Returns:
        64 hexadecimal digits.

    Raises:
        RewardError: A file is missing.
    """
    about = counted_options(judge)
    about |= {key: file_sha256(resolve_file(name)) for key, name in judge.files.items()}
    about |= {
        key: checkpoint_fingerprint([resolve_folder(name)]) for key, name in judge.folders.items()
    }
    return text_sha256(json.dumps([SCORES_VERSION, about], sort_keys=True))


def counted_options(judge: JudgeSection) -> dict[str, Any]:
    """Return the options of a judge that change scores, its kind and the names of its files."""
    options: dict[str, Any] = judge.model_dump(mode="json")
    return {key: value for key, value in options.items() if key not in _ROLE | _NO_EFFECT}
