"""Text states: computed once, kept, never believed when damaged."""

import errno
import gc
import logging
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.files import hashes
from reward_tuning.inputs import text_cache
from reward_tuning.inputs.text_cache import TextCache, checkpoint_fingerprint

LENGTH = 5


@pytest.fixture(scope="module", autouse=True)
def _old_objects_are_not_searched() -> Iterator[None]:
    """The cache collects garbage; over all that other tests left in memory that takes a second."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def states_of(prompt: str) -> Tensor:
    """What the encoder below gives: one draw per prompt."""
    draw = torch.Generator().manual_seed(len(prompt) * 1000 + sum(map(ord, prompt)))
    return torch.randn(LENGTH, 3, generator=draw)


class Encoder:
    """Counts what it is asked for."""

    def __init__(self, asked: list[list[str]]) -> None:
        self.asked = asked

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        self.asked.append(list(prompts))
        return torch.stack([states_of(prompt) for prompt in prompts])


def refused() -> Encoder:
    raise AssertionError("the encoder was built although nothing is missing")


def cache(folder: Path, **options: Any) -> TextCache:
    return TextCache(folder / "texts", options.pop("encoder", "ab12"), max_length=LENGTH, **options)


def test_states_are_the_encoders(tmp_path: Path) -> None:
    prompts = ["a cat", "一只猫", "", "a cat"]
    asked: list[list[str]] = []
    found = cache(tmp_path).encode(prompts, lambda: Encoder(asked))
    assert asked == [["a cat", "一只猫", ""]]
    assert list(found) == ["a cat", "一只猫", ""]
    assert all(torch.equal(found[prompt], states_of(prompt)) for prompt in prompts)


def test_second_time_needs_no_encoder(tmp_path: Path) -> None:
    first = cache(tmp_path).encode(["a", "b"], lambda: Encoder([]))
    again = cache(tmp_path).encode(["b", "a"], refused)
    assert all(torch.equal(first[prompt], again[prompt]) for prompt in "ab")


def test_only_missing_prompts_are_encoded(tmp_path: Path) -> None:
    cache(tmp_path).encode(["a", "b"], lambda: Encoder([]))
    asked: list[list[str]] = []
    found = cache(tmp_path).encode(["a", "c", "b"], lambda: Encoder(asked))
    assert asked == [["c"]]
    assert set(found) == {"a", "b", "c"}


def test_encoder_is_dropped(tmp_path: Path) -> None:
    built: list[weakref.ref[Encoder]] = []

    def factory() -> Encoder:
        encoder = Encoder([])
        encoder.itself = encoder  # type: ignore[attr-defined]  # a cycle, as models have
        built.append(weakref.ref(encoder))
        return encoder

    gc.disable()
    try:
        cache(tmp_path).encode(["a"], factory)
        assert built[0]() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "other", [{"encoder": "cd34"}, {"dtype": torch.bfloat16}, {"dtype": torch.float64}]
)
def test_another_encoder_or_dtype_is_another_entry(tmp_path: Path, other: dict[str, Any]) -> None:
    cache(tmp_path).encode(["a"], lambda: Encoder([]))
    asked: list[list[str]] = []
    found = cache(tmp_path, **other).encode(["a"], lambda: Encoder(asked))
    assert asked == [["a"]]
    assert torch.equal(found["a"], states_of("a").to(other.get("dtype", torch.float32)))
    assert len(list((tmp_path / "texts").iterdir())) == 2


def test_another_length_is_another_entry(tmp_path: Path) -> None:
    one, other = (TextCache(tmp_path, "x", max_length=length).path("a") for length in (5, 6))
    assert one != other


def test_bfloat16_comes_back_bit_for_bit(tmp_path: Path) -> None:
    first = cache(tmp_path, dtype=torch.bfloat16).encode(["a"], lambda: Encoder([]))
    again = cache(tmp_path, dtype=torch.bfloat16).encode(["a"], refused)
    assert again["a"].dtype == torch.bfloat16
    assert torch.equal(first["a"], again["a"])


@pytest.mark.parametrize("damage", ["truncated", "one bit", "empty", "another prompt's"])
def test_damaged_file_is_told_and_made_anew(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    kept = cache(tmp_path)
    kept.encode(["a", "b"], lambda: Encoder([]))
    path = kept.path("a")
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        content = content[:-10]
    elif damage == "one bit":
        content[-1] ^= 1
    elif damage == "empty":
        content.clear()
    else:
        content = bytearray(kept.path("b").read_bytes())
    path.write_bytes(content)
    asked: list[list[str]] = []
    with caplog.at_level(logging.WARNING):
        found = kept.encode(["a", "b"], lambda: Encoder(asked))
    assert asked == [["a"]]
    assert torch.equal(found["a"], states_of("a"))
    assert [str(path) in message and "damaged" in message for message in caplog.messages] == [True]
    assert torch.equal(kept.encode(["a"], refused)["a"], states_of("a"))


def test_stopped_midway_keeps_what_is_done(tmp_path: Path) -> None:
    prompts = [f"p{i}" for i in range(text_cache.BATCH + 3)]

    class Stopping(Encoder):
        def __call__(self, prompts: Sequence[str]) -> Tensor:
            if self.asked:
                raise KeyboardInterrupt
            return super().__call__(prompts)

    with pytest.raises(KeyboardInterrupt):
        cache(tmp_path).encode(prompts, lambda: Stopping([]))
    asked: list[list[str]] = []
    cache(tmp_path).encode(prompts, lambda: Encoder(asked))
    assert asked == [prompts[text_cache.BATCH :]]


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = cache(tmp_path)
    kept.encode(["a"], lambda: Encoder([]))
    before = kept.path("a").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("reward_tuning.inputs.text_cache.os.fsync", full)
    with pytest.raises(TuningError, match=r"No space left on device.*free some space"):
        kept.encode(["a", "b"], lambda: Encoder([]))
    assert [path.name for path in (tmp_path / "texts").iterdir()] == [kept.path("a").name]
    assert kept.path("a").read_bytes() == before


@pytest.mark.parametrize("shape", [(1, LENGTH + 1, 3), (2, LENGTH, 3), (LENGTH, 3)])
def test_wrong_shape_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(TuningError, match="expected \\(1, 5, d\\)"):
        cache(tmp_path).encode(["a"], lambda: lambda _: torch.zeros(shape))
    assert not (tmp_path / "texts").exists()


def test_states_own_their_memory(tmp_path: Path) -> None:
    found = cache(tmp_path).encode(["a", "b"], lambda: Encoder([]))
    assert found["a"].untyped_storage().nbytes() == LENGTH * 3 * 4


def test_fingerprint_sees_names_and_content(tmp_path: Path) -> None:
    def fingerprint(name: str, content: bytes) -> str:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}" / "text_encoder"
        folder.mkdir(parents=True)
        (folder / name).write_bytes(content)
        (folder / "config.json").write_text("{}")
        return checkpoint_fingerprint([folder])

    same = [fingerprint("model.safetensors", b"abc") for _ in range(2)]
    assert same[0] == same[1]
    assert (
        len({same[0], fingerprint("other", b"abc"), fingerprint("model.safetensors", b"abd")}) == 3
    )


def test_fingerprint_of_a_large_file_reads_head_and_tail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_cache, "WHOLE", 1000)
    monkeypatch.setattr(text_cache, "SAMPLES", 4)
    monkeypatch.setattr(hashes, "SAMPLE_BYTES", 10)
    path = tmp_path / "model.safetensors"
    found = set()
    for place in (None, 0, 9, 2500, 4990, 4999):
        content = bytearray(5000)
        if place is not None:
            content[place] = 1
        path.write_bytes(content)
        found.add(checkpoint_fingerprint([tmp_path]))
    # 2500 lies between the pieces 1663-1673 and 3326-3336: not seen, by design
    assert len(found) == 5


def test_fingerprint_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="no files in"):
        checkpoint_fingerprint([tmp_path])
