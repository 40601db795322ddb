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

CODE_OPTIONS = frozenset(
    {"trust_remote_code", "code_revision", "local_files_only", "force_download", "token", "proxies"}
)
"""Options of transformers that a model's configuration may not decide."""


class Tokenizer(Protocol):
    """Converts texts to a tower's token numbers.

    Attributes:
        context_length: Tokens of a text that the tower reads, marks of start and end included.
    """

    context_length: int

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return token numbers of b texts, `(b, context_length)`, cut and padded."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the tokens of one text, uncut and without special tokens."""
        ...


class TransformersTokenizer:
    """A tokenizer of transformers that cuts and pads at the tower's context length.

    Attributes:
        context_length: Tokens of every row.
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
        self._strip_separator = strip_separator  # CLIPA's towers were trained without it

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return token numbers of b texts, `(b, context_length)`."""
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
        """Return the tokens of one text, uncut and without special tokens."""
        return list(self._tokenizer.encode(self._clean(text), add_special_tokens=False))


TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def import_open_clip() -> Any:
    """Import open_clip; this takes seconds, so no module does it at its top."""
    ensure_torchvision_importable()
    import open_clip

    return open_clip


def build_tokenizer(
    architecture: Mapping[str, Any], merges: Path | None, folder: Path | None = None
) -> Any:
    """Build the tokenizer of an open_clip architecture.

    Args:
        architecture: Contains the context length, the vocabulary's size, and whether the model has
            a tokenizer of its own.
        merges: Merges file (`rewards.clip_towers.bpe`); `None` for OpenAI's vocabulary.
        folder: Folder of the judge's file, which may contain the model's own tokenizer.

    Raises:
        RewardError: A file is missing, or the vocabulary has another size.
    """
    text = architecture["text_cfg"]
    name = text.get("hf_tokenizer_name")
    if name and merges is None:
        return _model_tokenizer(name, text, folder)
    _check_merges(merges)
    tokenizer = _open_clip_tokenizer(merges, text.get("context_length", 77))
    _check_size(tokenizer.vocab_size, text, merges)
    return tokenizer


def build_transformers_tokenizer(architecture: Mapping[str, Any], merges: Path | None) -> Tokenizer:
    """Build transformers' `CLIPTokenizer` from open_clip's merges, without any download.

    Texts are cut at the context length and padded with the end token, as PickScore's are.

    Args:
        architecture: Architecture of open_clip, with the context length and the vocabulary's size.
        merges: Merges file; `None` for OpenAI's vocabulary.

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
            f"the tokenizer file {merges} is missing; put it next to the judge's file"
        )


def _check_size(size: int, text: Mapping[str, Any], merges: Path | None) -> None:
    if size != text.get("vocab_size", 49408):
        raise RewardError(
            f"the tokenizer {merges.name if merges else 'of OpenAI'} has {size} "
            f"tokens, the architecture has {text.get('vocab_size')}: they do not match"
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
    # Same tokens with the same numbers; only the two special ones, the last, are spelt differently.
    words = [*list(plain.encoder)[:-2], "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=list(plain.bpe_ranks))


def _model_tokenizer(name: str, text: Mapping[str, Any], folder: Path | None) -> Tokenizer:
    """Load a model's own tokenizer, such as SigLIP's: from its folder, or from the hub's cache."""
    import_open_clip()
    from huggingface_hub import try_to_load_from_cache
    from open_clip.tokenizer import get_clean_fn
    from transformers import AutoTokenizer

    found = try_to_load_from_cache(name, "tokenizer.json")
    if folder is not None and (folder / "tokenizer.json").is_file():
        source = folder
    elif isinstance(found, str):
        source = Path(found).parent
    else:
        raise RewardError(
            f"this model has its own tokenizer, {name}, which is not on this machine. Fetch "
            f"it with: hf download {name} {' '.join(TOKENIZER_FILES)}  - or put its "
            f"tokenizer.json next to the judge's file{f' ({folder})' if folder else ''}"
        )
    if mode := text.get("tokenizer_mode"):
        raise RewardError(
            f"this model needs tokenizer_mode {mode!r}, which judges do not support; choose a "
            "model without tokenizer_mode"
        )
    options = dict(text.get("tokenizer_kwargs", {}))
    if foreign := sorted(CODE_OPTIONS & options.keys()):
        raise RewardError(
            f"tokenizer_kwargs of this model sets {', '.join(foreign)}, which would run code from "
            "its files or fetch others; judges do neither. Remove it from the configuration, or "
            "choose another model"
        )
    clean = get_clean_fn(options.pop("clean", "whitespace"))  # as open_clip's HFTokenizer
    strip = options.pop("strip_sep_token", False)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(source), local_files_only=True, trust_remote_code=False, **options
        )
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise RewardError(
            f"the tokenizer in {source} cannot be loaded ({reason}). Code in its folder is never "
            "run; fetch it again, or choose a model whose tokenizer transformers knows"
        ) from error
    length = text.get("context_length", 77)
    return TransformersTokenizer(tokenizer, length, clean, strip_separator=strip)
