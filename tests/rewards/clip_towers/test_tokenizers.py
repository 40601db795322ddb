"""Tokenizers of CLIP towers."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models

from rewards import RewardError
from rewards.clip_towers.tokenizers import build_tokenizer
from tests.rewards.tiny_clip import ARCHITECTURE


def test_a_tokenizer_of_another_size_is_refused() -> None:
    small = {**ARCHITECTURE, "text_cfg": {**ARCHITECTURE["text_cfg"], "vocab_size": 600}}
    with pytest.raises(RewardError, match="49408 tokens, the architecture has 600"):
        build_tokenizer(small, None)
    with pytest.raises(RewardError, match="is missing"):
        build_tokenizer(small, Path("nowhere/bpe.gz"))


def hostile_tokenizer(folder: Path) -> Path:
    """A working tokenizer whose configuration names code; returns the file that the code writes."""
    vocabulary = {"<unk>": 0, "a": 1, "</s>": 2}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    mark = folder / "ran"
    code = f"open({str(mark)!r}, 'w')\nfrom transformers import PreTrainedTokenizerFast as Evil\n"
    (folder / "evil.py").write_text(code)
    return mark


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"trust_remote_code": True}, "tokenizer_kwargs of this model sets trust_remote_code"),
        ({"token": "x", "local_files_only": False}, "sets local_files_only, token, which would"),
        ({}, "Code in its folder is never run"),
    ],
)
def test_code_beside_a_tokenizer_is_not_run(
    tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    mark = hostile_tokenizer(tmp_path)
    text = {"hf_tokenizer_name": "nobody/nothing", "tokenizer_kwargs": options}
    with pytest.raises(RewardError, match=said):
        build_tokenizer({"text_cfg": text}, None, tmp_path)
    assert not mark.exists()
