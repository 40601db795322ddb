"""What prompts ask of an embedded generator that it has never seen, said before anything is drawn.

It was trained on captions of moving shapes alone, a few dozen words, and draws some shape for any
other prompt.
"""

from __future__ import annotations

from collections.abc import Iterable

from base_model.files.shipped import WEIGHTS, shipped_checkpoints

BASE = "tiny"  # whose tokenizer all embedded checkpoints share
LONGEST_SHOWN, MOST_WORDS = 60, 8


def world_notes(checkpoint: str, texts: Iterable[str]) -> list[str]:
    """Tell which prompts an embedded generator cannot follow.

    Args:
        checkpoint: As a resolved recipe names it; of one that is not shipped nothing is told.
        texts: What it is asked for; empty ones do not count.

    Returns:
        At most two lines: words outside of its world, and prompts that are cut.
    """
    asked = [text for text in dict.fromkeys(texts) if text]
    if checkpoint not in shipped_checkpoints() or not asked:
        return []
    return [*_outside(checkpoint, asked), *_cut(checkpoint, asked)]


def _outside(checkpoint: str, asked: list[str]) -> list[str]:
    from base_model.tiny.scenes import ATTRIBUTES
    from base_model.tiny.vocabulary import unknown_words

    outside = {text: words for text in asked if (words := unknown_words(text))}
    if not outside:
        return []
    text, words = next(iter(outside.items()))
    world = "; ".join(" ".join(values) for values in ATTRIBUTES.values())
    return [
        f"note: {checkpoint} knows only moving shapes; {len(outside)} of {len(asked)} prompts "
        f"contain other words, which it cannot draw: {_short(text)} has "
        f"{', '.join(words[:MOST_WORDS])}. Its world: {world}. Example: a small red star moves "
        "left on a dark background"
    ]


def _cut(checkpoint: str, asked: list[str]) -> list[str]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS / BASE / "tokenizer", local_files_only=True)
    most = tokenizer.model_max_length
    lengths = {}
    for text in asked:
        turn = [{"role": "user", "content": [{"type": "text", "text": text}]}]
        talk = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        # verbose=False: the tokenizer's own warning says indexing errors are to come; none are
        lengths[text] = len(tokenizer(talk, verbose=False)["input_ids"])
    long = {text: length for text, length in lengths.items() if length > most}
    if not long:
        return []
    text = max(long, key=lambda one: long[one])
    return [
        f"warning: {checkpoint} reads {most} tokens, its template included, and {len(long)} of "
        f"{len(asked)} prompts are longer: their ends have no effect. The longest, of "
        f"{long[text]}: {_short(text)}"
    ]


def _short(text: str) -> str:
    return repr(text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + "...")
