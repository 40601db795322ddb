import gzip
from pathlib import Path

import pytest

from rewards.clip_towers.bpe import HEADER, train_bpe, write_merges
from rewards.clip_towers.tokenizers import import_open_clip

TEXTS = ["a red circle moves left", "a red star", "红色的圆形", "红色的星星", "A RED star!"]


def naive(texts: list[str], merges: int) -> list[str]:
    """Byte-pair encoding as in the paper: recount everything after each merge."""
    import_open_clip()
    import regex
    from open_clip.tokenizer import SimpleTokenizer

    t = SimpleTokenizer()
    words = []
    for text in texts:
        for token in regex.findall(t.pat, t.clean_fn(text)):
            letters = [t.byte_encoder[b] for b in token.encode()]
            words.append([*letters[:-1], letters[-1] + "</w>"])
    lines = []
    for _ in range(merges):
        counts: dict[tuple[str, str], int] = {}
        for word in words:
            for i in range(len(word) - 1):
                pair = (word[i], word[i + 1])
                counts[pair] = counts.get(pair, 0) + 1
        best = min(counts, key=lambda p: (-counts[p], p), default=None)
        if best is None or counts[best] < 2:
            break
        lines.append(" ".join(best))
        for word in words:
            i = 0
            while i < len(word) - 1:
                if (word[i], word[i + 1]) == best:
                    word[i : i + 2] = ["".join(best)]
                i += 1
    return lines


@pytest.mark.parametrize("merges", [1, 7, 40, 500])
def test_merges_equal_the_plain_algorithm(merges: int) -> None:
    texts = [*TEXTS, "aaaa aaa aaaaa", "abab ababab"]
    assert train_bpe(texts, merges) == naive(texts, merges)


def test_a_short_file_works_in_both_languages(tmp_path: Path) -> None:
    import_open_clip()
    from open_clip.tokenizer import SimpleTokenizer

    lines = train_bpe(TEXTS, 30)
    path = tmp_path / "bpe.gz"
    write_merges(path, lines)
    assert gzip.decompress(path.read_bytes()).decode().split("\n") == [HEADER, *lines]
    tokenizer = SimpleTokenizer(bpe_path=str(path), context_length=16)
    assert tokenizer.vocab_size == 512 + len(lines) + 2
    for text in ["a red circle", "红色的圆形", "an unseen word, 没见过的词"]:
        ids = tokenizer.encode(text)
        assert max(ids) < 512 + len(lines)
        assert tokenizer.decode(ids).replace(" ", "") == text.replace(" ", "").lower()
    assert len(tokenizer.encode("a red star")) == 3  # merged to whole words
    assert len(tokenizer.encode("红色的")) < len("红色的".encode())
    row = tokenizer(["a red star"])[0]
    assert row[0] == tokenizer.sot_token_id == tokenizer.vocab_size - 2
    # The end is the largest id: open_clip finds it by argmax.
    assert row.argmax() == 4
    assert row[4] == tokenizer.eot_token_id


def test_the_same_lines_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_merges(tmp_path / name, train_bpe(TEXTS, 30))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
