"""BERT's uncased tokenizer from a vocabulary file, as ImageReward uses it.

Clean, lower-case, strip accents, one word per Chinese character, longest known pieces of each word.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from rewards.errors import RewardError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""Every vocabulary of BERT has them."""

ADDED = ("[DEC]", "[ENC]")
"""BLIP adds them after the last word; ImageReward never puts them into a prompt itself."""


class WordPiece:
    """Texts to token numbers and mask, padded and cut to one length.

    Attributes:
        length: Of every row, [CLS] and [SEP] included.
        size: Tokens of the vocabulary, the two added ones included.

    Args:
        path: A vocabulary file, one token a line, its number is its line.
        length: Of every row.

    Raises:
        RewardError: The file is no vocabulary of BERT.
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
        """B texts -> `(b, 2, length)` int64: token numbers, and 1 where they are not padding."""
        rows = self._tokenizer.encode_batch(list(texts))
        return torch.tensor([[row.ids, row.attention_mask] for row in rows])

    def count(self, text: str) -> int:
        """Tokens that a text would have uncut, [CLS] and [SEP] included."""
        return len(self._whole.encode(text).ids)


def read_vocabulary(path: Path) -> dict[str, int]:
    """Token -> number of a `vocab.txt`.

    Raises:
        RewardError: It is no text, or BERT's special tokens are not in it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise RewardError(f"{path} is no text file: {error}. Give BERT's vocab.txt") from error
    vocabulary = {token: number for number, token in enumerate(lines)}
    if missing := [token for token in SPECIAL if token not in vocabulary]:
        raise RewardError(
            f"{path} has {len(vocabulary)} tokens and no {', '.join(missing)}: it is no vocabulary "
            "of BERT. Give the vocab.txt of bert-base-uncased"
        )
    return vocabulary


def train_vocabulary(texts: Iterable[str]) -> list[str]:
    """A vocabulary of whole words, with single letters for what it does not know.

    Args:
        texts: Whose words it should know.

    Returns:
        Tokens in the order of their numbers; the same texts give the same list.
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
