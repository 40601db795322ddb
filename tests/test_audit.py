"""The audit tells what it looked up and what it did not, and no network makes it fail."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from scripts import audit

ROOT = Path(__file__).parent.parent
CLEAN = {"name": "torch", "version": "2.15.0", "vulns": []}
SKIPPED = {"name": "numpy", "skip_reason": "Dependency not found on PyPI"}
WRONG = {
    "name": "pillow",
    "version": "1.0",
    "vulns": [{"id": "PYSEC-2026-1", "fix_versions": ["1.1"]}, {"id": "PYSEC-2026-2"}],
}


def report(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


def test_clean() -> None:
    found = audit.outcome(report(CLEAN))
    assert found == audit.Outcome(("audited 1 of 1 packages: 0 with vulnerabilities",))


def test_vulnerable() -> None:
    found = audit.outcome(report(CLEAN, WRONG, SKIPPED))
    assert found.vulnerable == 1
    assert found.lines == (
        "audited 2 of 3 packages: 1 with vulnerabilities",
        "NOT AUDITED: numpy",
        "VULNERABLE: pillow 1.0: PYSEC-2026-1, mended in 1.1",
        "VULNERABLE: pillow 1.0: PYSEC-2026-2, mended in no version",
    )


@pytest.mark.parametrize("text", [report(SKIPPED, SKIPPED), report(), "no JSON", "[]", "{}"])
def test_what_was_not_looked_up_is_not_called_clean(text: str) -> None:
    found = audit.outcome(text)
    assert found.vulnerable == 0
    assert found.lines[0].startswith("NOT AUDITED: ")


Answer = tuple[int, str, str]


def stub(monkeypatch: pytest.MonkeyPatch, *answers: Answer) -> list[list[str]]:
    """Let programs answer so, one after the other."""
    asked: list[list[str]] = []
    left = list(answers)

    def ran(command: Sequence[str], seconds: float) -> Answer:
        assert seconds <= 60
        asked.append(list(command))
        return left.pop(0)

    monkeypatch.setattr(audit, "ran", ran)
    monkeypatch.setattr(audit.venv, "create", lambda folder, with_pip: None)
    return asked


@pytest.mark.parametrize(
    "answers",
    [
        [(1, "", "no matching distribution")],
        [(124, "", "no answer within 45 seconds")],
        [(0, "", ""), (1, "", "ConnectionError: name not known")],
        [(0, "", ""), (124, "", "no answer within 60 seconds")],
        [(0, "", ""), (0, report(SKIPPED), "")],
    ],
)
def test_no_network_ends_well_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answers: list[Answer]
) -> None:
    stub(monkeypatch, *answers)
    assert audit.main(["--strict"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("== pip-audit: NOT AUDITED: ")
    assert "no statement about vulnerabilities is made" in told


def test_no_virtual_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(folder: Path, with_pip: bool) -> None:
        raise subprocess.CalledProcessError(1, "ensurepip")

    monkeypatch.setattr(audit.venv, "create", refuse)
    assert audit.main(["--strict"]) == 0
    assert "NOT AUDITED: no virtual environment" in capsys.readouterr().out


def test_only_strict_fails_on_vulnerabilities(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = stub(monkeypatch, *[(0, "", ""), (1, report(WRONG), "Found 1 vulnerability")] * 2)
    assert audit.main([]) == 0
    assert audit.main(["--strict"]) == 1
    assert "VULNERABLE: pillow" in capsys.readouterr().out
    install, run = asked[:2]
    assert install[-1] == "pip-audit"
    assert str(audit.PINS) in install
    assert str(audit.PINS) in run


def test_programs_are_waited_for_only_so_long() -> None:
    assert audit.ran(["sh", "-c", "echo a; echo b >&2; exit 3"], 10) == (3, "a\n", "b")
    assert audit.ran(["sleep", "30"], 0.2)[0] == 124
    assert audit.ran(["no-such-program-anywhere"], 1)[0] == 127


def test_ci_cannot_fail_through_the_audit() -> None:
    text = (ROOT / ".ci/run").read_text()
    (line,) = [line for line in text.splitlines() if "scripts/audit.py" in line]
    assert "--strict" not in line
    assert "||" in line
    assert text.index("scripts/audit.py") < text.index("exec make test-all")
