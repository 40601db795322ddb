"""The prompt tokenizer of ImageReward equals transformers' ``BertTokenizer``."""

from pathlib import Path

import pytest

from rewards import RewardError
from rewards.core.torchvision_import import ensure_torchvision_importable
from rewards.networks.wordpiece import (
    WordPiece,
    read_vocabulary,
    train_vocabulary,
    write_vocabulary,
)
from tests.rewards.tiny_cross import vocabulary_file

TEXTS = [
    "A RED circle, moves  left",
    "Café circles bc",
    "圆形red",
    "unknown words",
    "a [SEP] b [DEC] red [ENC]",
    "tab\tand\nline\u200b red",
    "red " * 50,
    "Ein Bär – “quoted”",
]


def test_tokens_and_mask_equal_transformers(tmp_path: Path) -> None:
    ensure_torchvision_importable()
    from transformers import BertTokenizer

    path = vocabulary_file(tmp_path)
    reference = BertTokenizer(vocab=read_vocabulary(path), do_lower_case=True)
    # As BLIP makes its tokenizer from bert-base-uncased.
    reference.add_special_tokens({"bos_token": "[DEC]"})
    reference.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
    ours = WordPiece(path, 35)
    expected = reference(
        TEXTS, padding="max_length", truncation=True, max_length=35, return_tensors="pt"
    )
    rows = ours(TEXTS)
    assert rows[:, 0].tolist() == expected.input_ids.tolist()
    assert rows[:, 1].tolist() == expected.attention_mask.tolist()
    assert ours.size == len(reference) == 120
    assert [ours.count(text) for text in TEXTS] == [len(ids) for ids in reference(TEXTS).input_ids]


def test_a_trained_vocabulary_knows_its_words_and_spells_others(tmp_path: Path) -> None:
    tokens = train_vocabulary(["a Red circle", "红色圆形", "a red star"])
    assert tokens == train_vocabulary(["红色圆形", "a red star", "a Red circle"])
    assert len(tokens) == len(set(tokens))
    write_vocabulary(tmp_path / "vocab.txt", tokens)
    words = WordPiece(tmp_path / "vocab.txt", 12)
    numbers = words(["red star", "reds", "红形"])[:, 0].tolist()
    said = [[tokens[n] for n in row if n] for row in numbers]
    assert said[0] == ["[CLS]", "red", "star", "[SEP]"]
    assert said[1] == ["[CLS]", "red", "##s", "[SEP]"]
    assert said[2] == ["[CLS]", "红", "形", "[SEP]"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("a\nb\n")
    with pytest.raises(RewardError, match=r"2 tokens and no \[PAD\].*vocab\.txt"):
        WordPiece(tmp_path / "words.txt", 35)
    (tmp_path / "bytes.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RewardError, match="not a text file"):
        WordPiece(tmp_path / "bytes.bin", 35)
