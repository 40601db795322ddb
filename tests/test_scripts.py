"""The shell scripts behind the Makefile, with stand-ins for the interpreter and the command."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RECORDER = '#!/bin/sh\necho "$@" >>"{log}"\n'


def shell(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], **environment},
    )


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


class Demo:
    """`scripts/demo.sh` on a folder, with a command that writes its arguments down."""

    def __init__(self, folder: Path) -> None:
        self.first = folder / "run"
        self.log = folder / "log"
        self.command = executable(folder / "command", RECORDER.format(log=self.log))

    def started(self) -> str:
        self.log.unlink(missing_ok=True)
        done = shell(ROOT / "scripts/demo.sh", self.command, self.first)
        assert done.returncode == 0, done.stderr
        return self.log.read_text().strip()

    def holds(self, folder: Path, *files: str) -> None:
        folder.mkdir(exist_ok=True)
        for name in files:
            (folder / name).touch()


@pytest.fixture
def demo(tmp_path: Path) -> Demo:
    return Demo(tmp_path)


def test_demo_starts_a_run(demo: Demo) -> None:
    assert demo.started() == f"run tiny-demo output={demo.first}"


def test_demo_goes_on_with_an_unfinished_run(demo: Demo) -> None:
    demo.holds(demo.first, "recipe.yaml", "metrics.jsonl")
    assert demo.started() == f"resume {demo.first}"


def test_demo_leaves_a_finished_run_and_takes_the_next_folder(demo: Demo) -> None:
    demo.holds(demo.first, "recipe.yaml", "evaluation.json")
    second = Path(f"{demo.first}-2")
    assert demo.started() == f"run tiny-demo output={second}"
    demo.holds(second, "recipe.yaml")
    assert demo.started() == f"resume {second}"
    demo.holds(second, "evaluation.json")
    assert demo.started() == f"run tiny-demo output={demo.first}-3"


def test_demo_passes_the_exit_code_on(demo: Demo) -> None:
    executable(demo.command, "#!/bin/sh\nexit 130\n")
    assert shell(ROOT / "scripts/demo.sh", demo.command, demo.first).returncode == 130


FAKE_PYTHON = """#!/bin/sh
case "$*" in
"-m pip install"*)
    echo "$@" >>"{log}"
    [ ! -f "{log}.says" ] || cat "{log}.says"
    [ ! -f "{log}.slow" ] || exec sleep "$(cat "{log}.slow")"
    if [ -f "{log}.full-disk" ]; then
        echo "ERROR: No space left on device"
        exit 1
    fi
    ;;
"-m venv --clear "*)
    echo "$@" >>"{log}"
    mkdir -p "$4/bin" && touch "$4/pyvenv.cfg" && cp "$0" "$4/bin/python"
    ;;
--version) echo "Python 3.12.1" ;;
esac
"""


class Environment:
    """`scripts/environment.sh` in a copy of what it reads, with a Python that installs nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root / "checkout with a blank"
        (self.root / "scripts").mkdir(parents=True)
        for name in ("constraints.txt", "pyproject.toml", "scripts/environment.sh"):
            shutil.copy(ROOT / name, self.root / name)
        self.log = root / "log"
        self.python = executable(root / "a python", FAKE_PYTHON.format(log=self.log))

    def make(self, kind: str, folder: str = ".venv", **environment: str) -> tuple[int, str]:
        given = {"PYTHON": str(self.python), **environment}
        done = shell(self.root / "scripts/environment.sh", folder, kind, **given)
        return done.returncode, done.stdout + done.stderr

    def calls(self) -> list[str]:
        text = self.log.read_text() if self.log.exists() else ""
        self.log.unlink(missing_ok=True)
        return text.splitlines()


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path)


PINNED = "-m pip install --disable-pip-version-check -c constraints.txt"


def test_first_install(environment: Environment) -> None:
    assert environment.make("run")[0] == 0
    assert environment.calls() == [
        "-m venv --clear .venv",
        f"{PINNED} setuptools",
        f"{PINNED} --no-build-isolation -e .",
    ]


def test_install_for_tests_holds_that_for_runs(environment: Environment) -> None:
    assert environment.make("test")[0] == 0
    calls = environment.calls()
    assert f"{PINNED} --no-build-isolation -e .[test]" in calls
    assert f"{PINNED} --no-deps trackio" in calls
    assert f"{PINNED} --no-deps --no-build-isolation --use-pep517 hpsv2 clint args" in calls
    assert environment.make("run") == (0, "== .venv is up to date\n")
    assert environment.calls() == []


@pytest.mark.parametrize("changed", ["constraints.txt", "pyproject.toml"])
def test_installs_again_only_when_something_changed(environment: Environment, changed: str) -> None:
    environment.make("run")
    environment.calls()
    assert environment.make("run") == (0, "== .venv is up to date\n")
    assert environment.calls() == []
    with (environment.root / changed).open("a") as file:
        file.write("# another line\n")
    assert environment.make("run")[0] == 0
    assert environment.calls() == [
        f"{PINNED} setuptools",
        f"{PINNED} --no-build-isolation -e .",
    ]


def test_failed_install_is_not_taken_for_done(environment: Environment) -> None:
    environment.make("run")
    with (environment.root / "constraints.txt").open("a") as file:
        file.write("# another line\n")
    mark = Path(f"{environment.log}.full-disk")
    mark.touch()
    assert environment.make("run")[0] != 0
    mark.unlink()
    environment.calls()
    assert environment.make("run")[0] == 0
    assert f"{PINNED} --no-build-isolation -e ." in environment.calls()


PIP_SAYS = """\
Collecting torch==2.9.1
  Downloading torch-2.9.1-cp312-cp312-manylinux_2_28_x86_64.whl.metadata (30 kB)
Requirement already satisfied: pip in ./.venv
Downloading torch-2.9.1-cp312-cp312-manylinux_2_28_x86_64.whl (899.8 MB)
  Downloading triton-3.5.1-cp312-cp312-manylinux_2_28_x86_64.whl (1.2 GB)
Downloading numpy-2.3.5-cp312-cp312-manylinux_2_28_x86_64.whl (16.6 MB)
Using cached scipy-1.16.3-cp312-cp312-manylinux_2_28_x86_64.whl (35.7 MB)
Installing collected packages: numpy, triton, torch
Successfully installed numpy-2.3.5 torch-2.9.1 triton-3.5.1
"""


def test_the_install_names_what_is_large_and_nothing_else(environment: Environment) -> None:
    Path(f"{environment.log}.says").write_text(PIP_SAYS)
    code, told = environment.make("run")
    assert code == 0
    lines = [line for line in told.splitlines() if line.startswith("   ")]
    assert lines[:4] == [
        "   fetching torch-2.9.1-cp312-cp312-manylinux_2_28_x86_64.whl (899.8 MB)",
        "   fetching triton-3.5.1-cp312-cp312-manylinux_2_28_x86_64.whl (1.2 GB)",
        "   from the cache: scipy-1.16.3-cp312-cp312-manylinux_2_28_x86_64.whl (35.7 MB)",
        "   installing 3 packages",
    ]
    assert lines[4:] == lines[:4]  # the second of the two calls of pip
    assert (environment.root / ".venv" / "install.log").read_text() == PIP_SAYS


def test_the_install_gives_signs_of_life(environment: Environment) -> None:
    Path(f"{environment.log}.slow").write_text("1.5")
    code, told = environment.make("run", INSTALL_TELLS_EVERY="1")
    assert code == 0
    assert re.search(r"^   \.\.\. [12] seconds, \d+ MB in \.venv$", told, re.MULTILINE)


def test_a_failed_install_shows_why(environment: Environment) -> None:
    Path(f"{environment.log}.full-disk").touch()
    code, told = environment.make("run")
    assert code == 1
    assert "ERROR: No space left on device" in told
    assert "the install ended with exit code 1; the whole log is .venv/install.log" in told


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX has them")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopping_the_install_stops_pip(
    environment: Environment, number: signal.Signals, code: int
) -> None:
    Path(f"{environment.log}.slow").write_text("30")
    # A shell's background jobs ignore SIGINT, their children inherit that, and sh cannot trap it.
    heeding = f"import os, signal, sys; signal.signal({int(number)}, signal.SIG_DFL); "
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", heeding + "os.execvp(sys.argv[1], sys.argv[1:])"),
            *("sh", str(environment.root / "scripts/environment.sh"), ".venv", "run"),
        ],
        env={"PATH": os.environ["PATH"], "PYTHON": str(environment.python)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(200):
            if environment.log.exists() and "pip install" in environment.log.read_text():
                break
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(number)
        assert process.wait(timeout=10) == code
    finally:
        process.kill()


def test_missing_interpreter(environment: Environment) -> None:
    code, told = environment.make("run", PYTHON="/nowhere/python3")
    assert code != 0
    assert "no Python 3.10 or newer; looked for: /nowhere/python3" in told
    assert "make PYTHON=" in told


def test_old_interpreter(environment: Environment, tmp_path: Path) -> None:
    old = executable(tmp_path / "old", "#!/bin/sh\nexit 1\n")
    code, told = environment.make("run", PYTHON=str(old))
    assert code != 0
    assert "no Python 3.10 or newer" in told


def test_interpreter_without_venv(environment: Environment, tmp_path: Path) -> None:
    text = '#!/bin/sh\ncase "$*" in *ensurepip*) exit 1 ;; esac\n'
    code, told = environment.make("run", PYTHON=str(executable(tmp_path / "bare", text)))
    assert code != 0
    assert "cannot make virtual environments" in told
    assert "python3-venv" in told


def test_a_folder_that_is_no_environment_is_left_alone(environment: Environment) -> None:
    mine = environment.root / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("all of it")
    code, told = environment.make("run", folder="mine")
    assert code != 0
    assert "mine is not empty and not a virtual environment" in told
    assert (mine / "thesis.txt").read_text() == "all of it"
    assert environment.calls() == []
