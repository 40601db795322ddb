"""Train the small byte-level vocabulary of the embedded judges.

The result is a merges file that open_clip's `SimpleTokenizer` reads: words are runs of letters,
single digits or runs of other characters, lower-cased; bytes are written as printable characters;
the last one of a word carries `</w>`. A Chinese clause is one such word, so merges cross
characters.
"""

from __future__ import annotations

import gzip
import itertools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

HEADER = "#version: 0.2 - embedded judges"

Pair = tuple[str, str]
Word = tuple[str, ...]


def train_bpe(texts: Iterable[str], merges: int) -> list[str]:
    """Learn merges by frequency; ties go to the smaller pair, so the result is reproducible.

    Args:
        texts: Captions in any language.
        merges: Largest number of merges; there are fewer once no pair occurs twice.

    Returns:
        Lines `"a b"`, most frequent first, without the header.
    """
    words = _words(texts)
    counts: Counter[Pair] = Counter()
    users: dict[Pair, set[Word]] = {}
    spelling = {word: word for word in words}  # each word with the merges so far
    for word, count in words.items():
        _add(counts, users, word, word, count)
    lines: list[str] = []
    while len(lines) < merges and counts:
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        if counts[best] < 2:
            break
        lines.append(" ".join(best))
        for word in sorted(users.pop(best)):
            _add(counts, users, word, spelling[word], -words[word])
            spelling[word] = _merge(spelling[word], best)
            _add(counts, users, word, spelling[word], words[word])
        del counts[best]
    return lines


def write_merges(path: Path, lines: Iterable[str]) -> None:
    """Write a gzipped merges file; the same lines give the same bytes."""
    # SimpleTokenizer drops the first line and reads an empty last line as a merge: hence a header
    # and no newline at the end.
    text = "\n".join([HEADER, *lines])
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def _words(texts: Iterable[str]) -> Counter[Word]:
    from rewards.clip_towers.tokenizers import import_open_clip

    import_open_clip()
    import regex  # type: ignore[import-untyped]
    from open_clip.tokenizer import SimpleTokenizer

    reference = SimpleTokenizer()  # its cleaning, its pattern, its spelling of bytes
    words: Counter[Word] = Counter()
    for text in texts:
        for token in regex.findall(reference.pat, reference.clean_fn(text)):
            letters = [reference.byte_encoder[byte] for byte in token.encode()]
            words[(*letters[:-1], letters[-1] + "</w>")] += 1
    return words


def _add(
    counts: Counter[Pair], users: dict[Pair, set[Word]], word: Word, spelled: Word, count: int
) -> None:
    for pair in itertools.pairwise(spelled):
        counts[pair] += count
        users.setdefault(pair, set()).add(word)


def _merge(spelled: Word, pair: Pair) -> Word:
    merged: list[str] = []
    i = 0
    while i < len(spelled):
        if spelled[i : i + 2] == pair:
            merged.append(spelled[i] + spelled[i + 1])
            i += 2
        else:
            merged.append(spelled[i])
            i += 1
    return tuple(merged)
