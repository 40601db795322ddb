"""The simulations of intervals: they run, and find what they must."""

import pytest

from benchmarks import intervals


def test_every_case_runs_and_covers() -> None:
    for case in intervals.cases():
        inside, higher, lower = intervals.measured(case, 64, trials=40, resamples=200)
        assert inside >= 0.8, case.name
        assert 0.0 <= higher + lower <= 1.0


def test_false_verdicts_are_rarer_when_corrected() -> None:
    deciding, others, uncorrected = intervals.false_verdicts(32, 100, 200, 0.4)
    assert deciding <= 0.12
    assert others <= 0.12
    assert uncorrected >= 0.14


@pytest.mark.parametrize("case", intervals.VOTERS)
def test_votes(case: tuple[int, float, float, float]) -> None:
    score, rate = intervals.voted(32, 100, *case)
    assert score >= 0.88
    assert rate >= 0.88


def test_prints_tables(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "PROMPTS", (8, 16))
    monkeypatch.setattr(intervals, "cases", lambda: [])
    intervals.main(["--trials", "4", "--resamples", "50"])
    out = capsys.readouterr().out
    assert out.startswith("| differences | true mean | n = 8 | n = 16 |\n|---|---|---|---|")
    assert "| voters | mean log odds | ties | spread | n = 16 |\n|---|---|---|---|---|" in out
    assert out.rstrip().splitlines()[-1].startswith("| 5 | 0 | 30% | 1.5 |")
