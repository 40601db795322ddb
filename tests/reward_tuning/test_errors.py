"""Messages are kept short: the middle of a long text, the end of a long list."""

from reward_tuning.errors import first_lines, short_repr, shortened


def test_the_end_of_a_long_message_is_kept() -> None:
    text = "a" * 500 + " the next step"
    found = shortened(text, 100)
    assert len(found) <= 100
    assert found.startswith("aaa")
    assert found.endswith(" the next step")
    head, _, rest = found.partition("... (")
    count, _, tail = rest.partition(" characters left out) ...")
    assert int(count) == len(text) - len(head) - len(tail)
    assert shortened(text, len(text)) == text


def test_the_lines_left_out_are_counted() -> None:
    assert first_lines(["a", "b", "c"], 3) == ["a", "b", "c"]
    assert first_lines(["a", "b", "c"], 1) == ["a", "and 2 more"]
    assert first_lines([], 3) == []


def test_values_from_files_take_one_short_line() -> None:
    assert short_repr("a\nb") == "'a\\nb'"
    assert short_repr("\ud83d") == "'\\ud83d'"
    found = short_repr("x" * 5000 + "end")
    assert len(found) <= 90
    assert found.endswith("end'")
    assert short_repr(10**5000) == "a int too long to show"
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert short_repr(deep) == "a list too long to show"
