"""Ask pip-audit for known vulnerabilities of what constraints.txt pins.

    python scripts/audit.py             # tell them; exit code 0 whatever was found
    python scripts/audit.py --strict    # exit code 1 if there are any

It runs on any Python, without this project's environment: pip-audit goes into a temporary one.
Where the package index or the service of advisories cannot be reached, it says that nothing was
audited and ends with 0: a network is no property of the code. What was not looked up is never
called clean: an index without advisories answers "not found" for every package, which pip-audit
itself reports as no vulnerability.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PINS = ROOT / "constraints.txt"
INSTALL_SECONDS, AUDIT_SECONDS, REQUEST_SECONDS = 45, 60, 5


@dataclass(frozen=True)
class Outcome:
    """What an audit found.

    Attributes:
        lines: Lines to print.
        vulnerable: Packages with known vulnerabilities.
    """

    lines: tuple[str, ...]
    vulnerable: int = 0


def not_audited(reason: str) -> Outcome:
    """Return the outcome of an audit that did not take place."""
    return Outcome((f"NOT AUDITED: {reason}", "no statement about vulnerabilities is made"))


def outcome(text: str) -> Outcome:
    """Read pip-audit's JSON."""
    try:
        found: list[dict[str, Any]] = json.loads(text)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return not_audited("pip-audit gave no result")
    audited = [one for one in found if "vulns" in one]
    skipped = [one["name"] for one in found if "vulns" not in one]
    if not audited:
        return not_audited(f"the service of advisories knows none of {len(found)} packages")
    wrong = [one for one in audited if one["vulns"]]
    lines = [f"audited {len(audited)} of {len(found)} packages: {len(wrong)} with vulnerabilities"]
    if skipped:
        lines.append(f"NOT AUDITED: {', '.join(skipped)}")
    for one in wrong:
        for known in one["vulns"]:
            fixed = ", ".join(known.get("fix_versions") or ()) or "no version"
            lines.append(
                f"VULNERABLE: {one['name']} {one['version']}: {known['id']}, mended in {fixed}"
            )
    return Outcome(tuple(lines), len(wrong))


def ran(command: Sequence[str], seconds: float) -> tuple[int, str, str]:
    """Run a program; return its exit code, stdout and last line of stderr, 124 after a timeout."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 124, "", f"no answer within {seconds:g} seconds"
    except OSError as error:
        return 127, "", str(error)
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return done.returncode, done.stdout, lines[-1][:300]


def audit(folder: Path) -> Outcome:
    """Install pip-audit into a folder, and run it on the pins."""
    try:
        venv.create(folder, with_pip=True)
    except (OSError, subprocess.SubprocessError) as error:
        return not_audited(f"no virtual environment could be made ({error})")
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries=1"]
    pip += [f"--timeout={REQUEST_SECONDS}", "--only-binary=:all:", "-c", str(PINS), "pip-audit"]
    code, _, told = ran(pip, INSTALL_SECONDS)
    if code:
        return not_audited(f"pip-audit could not be installed ({told})")
    command = [python, "-m", "pip_audit", "-r", str(PINS), "--no-deps", "--disable-pip"]
    command += ["--format=json", "--progress-spinner=off", f"--timeout={REQUEST_SECONDS}"]
    # its own code is 1 for vulnerabilities and for errors alike, so the result decides
    code, text, told = ran(command, AUDIT_SECONDS)
    return (
        outcome(text) if text.strip() else not_audited(f"pip-audit ended without a result ({told})")
    )


def main(arguments: Sequence[str]) -> int:
    """Audit, print, and return the exit code."""
    with tempfile.TemporaryDirectory(prefix="pip-audit-") as folder:
        found = audit(Path(folder))
    for line in found.lines:
        print(f"== pip-audit: {line}")
    return int(found.vulnerable > 0 and "--strict" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
