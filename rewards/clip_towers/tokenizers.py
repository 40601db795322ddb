"""Tokenizers of CLIP towers: open_clip's, transformers' for CLIP, and those that a model brings.

open_clip mends text first (ftfy, HTML entities, full-width letters to plain ones), transformers
takes it as it is. So curly quotes, `&amp;` and full-width text give other tokens, and a judge
needs the one that it was trained with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from rewards.core.torchvision_import import ensure_torchvision_importable
from rewards.errors import RewardError


class Tokenizer(Protocol):
    """From texts to a tower's numbers.

    Attributes:
        context_length: Tokens of a text that the tower reads, marks of start and end included.
    """

    context_length: int

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """B texts -> `(b, context_length)` token numbers, cut and padded."""
        ...

    def encode(self, text: str) -> list[int]:
        """The tokens of one text, whole and without marks."""
        ...


class TransformersTokenizer:
    """A tokenizer of transformers, cutting and padding at the tower's context length.

    Attributes:
        context_length: See `Tokenizer`.
    """

    def __init__(
        self,
        tokenizer: Any,
        context_length: int,
        clean: Callable[[str], str] = str,
        *,
        strip_separator: bool = False,
    ) -> None:
        self._tokenizer, self._clean = tokenizer, clean
        self.context_length = context_length
        self._strip_separator = strip_separator  # CLIPA's towers have never seen it

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """B texts -> `(b, context_length)` token numbers."""
        rows = self._tokenizer(
            [self._clean(text) for text in texts],
            padding="max_length",
            truncation=True,
            max_length=self.context_length,
            return_tensors="pt",
        )
        numbers: Tensor = rows.input_ids
        if self._strip_separator:
            numbers = numbers.masked_fill(numbers == self._tokenizer.sep_token_id, 0)
        return numbers

    def encode(self, text: str) -> list[int]:
        """The tokens of one text, whole and without marks."""
        return list(self._tokenizer.encode(self._clean(text), add_special_tokens=False))


TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def import_open_clip() -> Any:
    """Import open_clip (seconds, so never at the top of a file)."""
    ensure_torchvision_importable()
    import open_clip

    return open_clip


def build_tokenizer(
    architecture: Mapping[str, Any], merges: Path | None, beside: Path | None = None
) -> Any:
    """The tokenizer of an open_clip architecture.

    Args:
        architecture: Says the context length, the vocabulary's size, and whether the model has a
            tokenizer of its own.
        merges: A merges file (`rewards.clip_towers.bpe`); `None` for OpenAI's vocabulary.
        beside: Folder of the judge's file, where a model's own tokenizer may lie.

    Raises:
        RewardError: A file is missing, or the vocabulary has another size.
    """
    text = architecture["text_cfg"]
    name = text.get("hf_tokenizer_name")
    if name and merges is None:
        return _model_tokenizer(name, text, beside)
    _check_merges(merges)
    tokenizer = _open_clip_tokenizer(merges, text.get("context_length", 77))
    _check_size(tokenizer.vocab_size, text, merges)
    return tokenizer


def build_transformers_tokenizer(architecture: Mapping[str, Any], merges: Path | None) -> Tokenizer:
    """Transformers' `CLIPTokenizer`, built from open_clip's merges without any download.

    Texts are cut at the context length and padded with the end token, as PickScore's are.

    Args:
        architecture: open_clip's; says the context length and the vocabulary's size.
        merges: As for `build_tokenizer`.

    Raises:
        RewardError: The merges file is missing, or its vocabulary has another size.
    """
    text = architecture["text_cfg"]
    _check_merges(merges)
    length = text.get("context_length", 77)
    tokenizer = _transformers_tokenizer(merges)
    _check_size(len(tokenizer), text, merges)
    return TransformersTokenizer(tokenizer, length)


def _check_merges(merges: Path | None) -> None:
    if merges is not None and not merges.is_file():
        raise RewardError(
            f"the tokenizer file {merges} is missing; it belongs beside the judge's file"
        )


def _check_size(size: int, text: Mapping[str, Any], merges: Path | None) -> None:
    if size != text.get("vocab_size", 49408):
        raise RewardError(
            f"the tokenizer {merges.name if merges else 'of OpenAI'} has {size} "
            f"tokens, the architecture {text.get('vocab_size')}: they do not belong together"
        )


@cache
def _open_clip_tokenizer(merges: Path | None, context: int) -> Any:
    import_open_clip()
    from open_clip.tokenizer import SimpleTokenizer

    if merges is None:
        return SimpleTokenizer(context_length=context)
    return SimpleTokenizer(bpe_path=str(merges), context_length=context)


@cache
def _transformers_tokenizer(merges: Path | None) -> Any:
    from transformers import CLIPTokenizer

    plain = _open_clip_tokenizer(merges, 77)
    # The same tokens at the same numbers; only the two special ones, the last, are spelt otherwise.
    words = [*list(plain.encoder)[:-2], "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=list(plain.bpe_ranks))


def _model_tokenizer(name: str, text: Mapping[str, Any], beside: Path | None) -> Tokenizer:
    """The tokenizer that a model such as SigLIP brings: beside its file, or in the hub's cache."""
    import_open_clip()
    from huggingface_hub import try_to_load_from_cache
    from open_clip.tokenizer import get_clean_fn
    from transformers import AutoTokenizer

    found = try_to_load_from_cache(name, "tokenizer.json")
    if beside is not None and (beside / "tokenizer.json").is_file():
        folder = beside
    elif isinstance(found, str):
        folder = Path(found).parent
    else:
        raise RewardError(
            f"this model has a tokenizer of its own, {name}, and it is not on this machine. Fetch "
            f"it with: hf download {name} {' '.join(TOKENIZER_FILES)}  - or put its "
            f"tokenizer.json beside the judge's file{f' ({beside})' if beside else ''}"
        )
    if mode := text.get("tokenizer_mode"):
        raise RewardError(
            f"this model wants its texts cut in the way {mode!r}, which judges do not have; choose "
            "a model without tokenizer_mode"
        )
    options = dict(text.get("tokenizer_kwargs", {}))
    clean = get_clean_fn(options.pop("clean", "whitespace"))  # as open_clip's HFTokenizer
    strip = options.pop("strip_sep_token", False)
    tokenizer = AutoTokenizer.from_pretrained(str(folder), **options)
    length = text.get("context_length", 77)
    return TransformersTokenizer(tokenizer, length, clean, strip_separator=strip)
