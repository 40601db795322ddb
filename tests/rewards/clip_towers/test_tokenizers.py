"""Tokenizers of CLIP towers."""

from pathlib import Path

import pytest

from rewards import RewardError
from rewards.clip_towers.tokenizers import build_tokenizer
from tests.rewards.tiny_clip import ARCHITECTURE


def test_a_tokenizer_of_another_size_is_refused() -> None:
    small = {**ARCHITECTURE, "text_cfg": {**ARCHITECTURE["text_cfg"], "vocab_size": 600}}
    with pytest.raises(RewardError, match="49408 tokens, the architecture has 600"):
        build_tokenizer(small, None)
    with pytest.raises(RewardError, match="is missing"):
        build_tokenizer(small, Path("nowhere/bpe.gz"))
