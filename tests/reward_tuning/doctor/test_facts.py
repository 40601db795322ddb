"""A probe's facts, its errors as facts, and what never is shown."""

from collections.abc import Iterator

import pytest

from reward_tuning.doctor.facts import Fact, gathered, gigabytes

SECRET = "a-secret-of-23-letters!"


def test_facts_come_as_they_are() -> None:
    facts = [Fact("machine", "a", "1"), Fact("machine", "b", "2", "note", "do it")]
    assert gathered("machine", "a", lambda: facts) == facts


@pytest.mark.parametrize("error", [OSError("gone"), KeyError("x"), ImportError("no libcuda.so")])
def test_an_error_becomes_a_line_after_what_was_found(error: Exception) -> None:
    def probe() -> Iterator[Fact]:
        yield Fact("disk", "first", "found")
        raise error

    first, last = gathered("disk", "disks", probe, failure="problem")
    assert first.value == "found"
    assert (last.group, last.name, last.mark) == ("disk", "disks", "problem")
    assert type(error).__name__ in last.value
    assert str(error) in last.value
    assert last.todo


def test_an_order_to_stop_is_no_error_of_a_probe() -> None:
    def probe() -> Iterator[Fact]:
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        gathered("disk", "disks", probe)


def test_secrets_and_control_characters_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", SECRET)

    def probe() -> Iterator[Fact]:
        yield Fact("hub", "a", f"at https://ann:pass@host/ with {SECRET}", "ok", f"use {SECRET}")
        yield Fact("hub", "b", "one\ntwo\x1b[31m")
        raise OSError(f"refused: {SECRET}")

    a, b, error = gathered("hub", "hub", probe)
    assert (a.value, a.todo) == ("at https://***@host/ with ***", "use ***")
    assert b.value == "one two?[31m"
    assert SECRET not in error.value


def test_a_long_error_is_shortened() -> None:
    (fact,) = gathered("hub", "hub", lambda: [][len("x" * 5000)])  # type: ignore[index]
    assert fact.value.startswith("cannot be found out: IndexError")

    def probe() -> Iterator[Fact]:
        raise OSError("x" * 5000)
        yield

    assert len(gathered("hub", "hub", probe)[0].value) <= 400


@pytest.mark.parametrize(
    ("count", "text"),
    [(231_508, "0.2 MB"), (25.3e9, "25.3 GB"), (1_972_490_005, "1.97 GB"), (3.25e12, "3250 GB")],
)
def test_bytes_in_words(count: float, text: str) -> None:
    assert gigabytes(count) == text
