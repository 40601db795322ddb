"""BERT's uncased tokenizer from a vocabulary file, as ImageReward uses it.

It cleans and lower-cases text, strips accents, makes each Chinese character a word, and splits
words into the longest known pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from rewards.errors import RewardError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""Special tokens of every vocabulary of BERT."""

ADDED = ("[DEC]", "[ENC]")
"""Tokens that BLIP adds after the last one; ImageReward never uses them in a prompt."""


class WordPiece:
    """Converts texts to token numbers and mask, padded and cut to one length.

    Attributes:
        length: Length of every row, [CLS] and [SEP] included.
        size: Number of tokens of the vocabulary, the two added ones included.

    Args:
        path: Vocabulary file with one token per line, in the order of their numbers.
        length: Length of every row.

    Raises:
        RewardError: The file is not a vocabulary of BERT.
    """

    def __init__(self, path: Path, length: int) -> None:
        from tokenizers.implementations import BertWordPieceTokenizer

        vocabulary = read_vocabulary(path)
        self.length = length
        self.size = len(vocabulary) + len(ADDED)
        # What BertTokenizer does for an uncased model; accents go with the capitals.
        self._tokenizer = BertWordPieceTokenizer(vocabulary, lowercase=True)
        self._tokenizer.add_special_tokens(list(ADDED))
        self._tokenizer.enable_padding(length=length, pad_id=vocabulary["[PAD]"])
        self._tokenizer.enable_truncation(length)
        self._whole = BertWordPieceTokenizer(vocabulary, lowercase=True)
        self._whole.add_special_tokens(list(ADDED))

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return `(b, 2, length)` int64 for b texts: token numbers, and 1 except for padding."""
        rows = self._tokenizer.encode_batch(list(texts))
        return torch.tensor([[row.ids, row.attention_mask] for row in rows])

    def count(self, text: str) -> int:
        """Return the number of tokens of an uncut text, [CLS] and [SEP] included."""
        return len(self._whole.encode(text).ids)


def read_vocabulary(path: Path) -> dict[str, int]:
    """Read the token numbers of a `vocab.txt`.

    Raises:
        RewardError: It is not a text file, or lacks BERT's special tokens.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise RewardError(f"{path} is not a text file: {error}. Give BERT's vocab.txt") from error
    vocabulary = {token: number for number, token in enumerate(lines)}
    if missing := [token for token in SPECIAL if token not in vocabulary]:
        raise RewardError(
            f"{path} has {len(vocabulary)} tokens and no {', '.join(missing)}: it is not a "
            "vocabulary of BERT. Give the vocab.txt of bert-base-uncased"
        )
    return vocabulary


def train_vocabulary(texts: Iterable[str]) -> list[str]:
    """Build a vocabulary of whole words, with single letters for unknown ones.

    Args:
        texts: Texts whose words it contains.

    Returns:
        Tokens in the order of their numbers; equal texts give equal lists.
    """
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    clean, split = BertNormalizer(lowercase=True), BertPreTokenizer()
    words = {
        word for text in texts for word, _ in split.pre_tokenize_str(clean.normalize_str(text))
    }
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    digits = [str(digit) for digit in range(10)]
    pieces = [f"##{sign}" for sign in (*letters, *digits)]
    known = [*SPECIAL, *letters, *digits, *pieces]
    return [*known, *sorted(words - set(known))]


def write_vocabulary(path: Path, tokens: Iterable[str]) -> None:
    """Write a `vocab.txt`."""
    path.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
