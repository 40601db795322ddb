"""Programs and libraries that one thing needs each: compiling, quantising, clips, the report."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from reward_tuning.doctor.facts import Fact, Mark
from reward_tuning.doctor.versions import Installed, installed_version

GROUP = "programs"
SECONDS = 10.0  # for a program to tell its version
BROWSERS = {
    "Chromium": ("chromium", "chromium-browser"),
    "Chrome": ("google-chrome", "google-chrome-stable", "chrome"),
    "Edge": ("microsoft-edge", "msedge"),
    "Firefox": ("firefox", "firefox-esr"),
}
APPLICATIONS = ("Google Chrome", "Chromium", "Firefox", "Safari", "Microsoft Edge")
"""Browsers of macOS, which are not on the PATH."""

Which = Callable[[str], str | None]


def compiler_fact(
    environment: Mapping[str, str] = os.environ,
    which: Which = shutil.which,
    *,
    missing: Mark = "note",
) -> Iterator[Fact]:
    """Yield the C++ compiler that torch.compile needs on a CPU.

    Args:
        environment: CXX names another one.
        which: Finds a program.
        missing: Mark where there is none.
    """
    named = environment.get("CXX", "")
    names = (named,) if named else ("g++", "clang++")
    found = next((place for name in names if (place := which(name))), None)
    if found is not None:
        yield Fact(GROUP, "C++ compiler", found)
        return
    value = (
        f"none: CXX is {named}, which is no program" if named else "none: neither g++ nor clang++"
    )
    todo = "for train.compile on a CPU: apt-get install g++, or set CXX; else train.compile=false"
    yield Fact(GROUP, "C++ compiler", value, missing, todo)


def triton_fact(
    cuda: bool, installed: Installed = installed_version, *, missing: Mark = "note"
) -> Iterator[Fact]:
    """Yield Triton, which torch.compile needs on a GPU.

    Args:
        cuda: Whether there is a GPU.
        installed: Finds a version.
        missing: Mark where there is a GPU and no Triton.
    """
    found = installed("triton")
    if found is not None or not cuda:
        yield Fact(GROUP, "triton", found or "not installed; only torch.compile on a GPU needs it")
        return
    todo = "for train.compile on a GPU: pip install triton; else train.compile=false"
    yield Fact(GROUP, "triton", "not installed", missing, todo)


def bitsandbytes_fact(
    installed: Installed = installed_version, *, missing: Mark = "note"
) -> Iterator[Fact]:
    """Yield bitsandbytes, which two kinds of quantised weights and one optimiser need."""
    found = installed("bitsandbytes")
    if found is not None:
        yield Fact(GROUP, "bitsandbytes", found)
        return
    todo = "for generator.quantise=int8 and nf4 and for train.optimiser=adamw-8bit: "
    todo += "pip install 'bitsandbytes>=0.46'; fp8 needs nothing more"
    yield Fact(GROUP, "bitsandbytes", "not installed", missing, todo)


def ffmpeg_fact() -> Iterator[Fact]:
    """Yield the ffmpeg program, which reads and writes every clip."""
    from reward_tuning.files.ffmpeg import executable

    todo = "pip install --force-reinstall imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE to an ffmpeg"
    try:
        program = executable()
        done = subprocess.run(
            [program, "-version"], capture_output=True, check=True, timeout=SECONDS
        )
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        yield Fact(GROUP, "ffmpeg", f"cannot be started: {error}", "problem", todo)
        return
    found = re.match(r"ffmpeg version (\S+)", done.stdout.decode(errors="replace"))
    yield Fact(GROUP, "ffmpeg", f"{found[1] if found else 'of unknown version'} at {program}")


def browser_fact(which: Which = shutil.which, root: Path = Path("/")) -> Iterator[Fact]:
    """Yield the browsers that can show the report and the live page."""
    found = []
    for name, programs in BROWSERS.items():
        places = [place for program in programs if (place := which(program))]
        found += [f"{name} ({place})" for place in places[:1]]
    found += [name for name in APPLICATIONS if (root / "Applications" / f"{name}.app").is_dir()]
    if found:
        yield Fact(GROUP, "browser", ", ".join(found))
        return
    todo = "open report.html on another machine: it is one file; for the live page, ssh -L PORT:"
    yield Fact(GROUP, "browser", "none found", "note", todo + "127.0.0.1:PORT (docs/watch.md)")
