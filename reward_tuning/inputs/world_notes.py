"""Notes on prompts that an embedded generator cannot follow, given before anything is drawn.

It was trained only on captions of moving shapes, a few dozen words, and draws an arbitrary shape
for any other prompt.
"""

from __future__ import annotations

from collections.abc import Iterable

from base_model.files.shipped import WEIGHTS, shipped_checkpoints

BASE = "tiny"  # all embedded checkpoints share its tokenizer
MAX_SHOWN, MAX_WORDS = 60, 8  # characters of a prompt and unknown words in a note


def world_notes(checkpoint: str, texts: Iterable[str]) -> list[str]:
    """Return notes on prompts that an embedded generator cannot follow.

    Args:
        checkpoint: Checkpoint as a resolved recipe names it; no notes for one that is not shipped.
        texts: Prompts; empty ones do not count.

    Returns:
        At most two notes: on words outside its world, and on prompts that are truncated.
    """
    prompts = [text for text in dict.fromkeys(texts) if text]
    if checkpoint not in shipped_checkpoints() or not prompts:
        return []
    return [*_outside(checkpoint, prompts), *_truncated(checkpoint, prompts)]


def _outside(checkpoint: str, prompts: list[str]) -> list[str]:
    from base_model.tiny.scenes import ATTRIBUTES
    from base_model.tiny.vocabulary import unknown_words

    outside = {text: words for text in prompts if (words := unknown_words(text))}
    if not outside:
        return []
    text, words = next(iter(outside.items()))
    world = "; ".join(" ".join(values) for values in ATTRIBUTES.values())
    return [
        f"note: {checkpoint} knows only moving shapes; {len(outside)} of {len(prompts)} prompts "
        f"contain other words, which it cannot draw: {_short(text)} has "
        f"{', '.join(words[:MAX_WORDS])}. Its world: {world}. Example: a small red star moves "
        "left on a dark background"
    ]


def _truncated(checkpoint: str, prompts: list[str]) -> list[str]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        WEIGHTS / BASE / "tokenizer", local_files_only=True, trust_remote_code=False
    )
    limit = tokenizer.model_max_length
    lengths = {}
    for text in prompts:
        turn = [{"role": "user", "content": [{"type": "text", "text": text}]}]
        conversation = tokenizer.apply_chat_template(
            turn, tokenize=False, add_generation_prompt=True
        )
        # verbose=False: the tokenizer warns of indexing errors, which do not occur here.
        lengths[text] = len(tokenizer(conversation, verbose=False)["input_ids"])
    long = {text: length for text, length in lengths.items() if length > limit}
    if not long:
        return []
    text = max(long, key=lambda one: long[one])
    return [
        f"warning: {checkpoint} reads {limit} tokens, its template included, and {len(long)} of "
        f"{len(prompts)} prompts are longer: their ends have no effect. The longest, of "
        f"{long[text]}: {_short(text)}"
    ]


def _short(text: str) -> str:
    return repr(text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "...")
