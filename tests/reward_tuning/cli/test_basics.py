"""The command itself: version, help, imports at start, exit codes, threads."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from reward_tuning import __version__, cli
from tests.reward_tuning.command_line import Command, command

run = pytest.fixture(command, name="run")
VERBS = ["ls", "show", "cp", "validate", "calibrate", "run", "finetune", "distil", "resume"]
VERBS += ["watch"]
VERBS += ["report", "generate", "score", "evaluate", "compare", "votes", "export", "mix"]
VERBS += ["card", "push", "convert", "render", "pretrain", "doctor", "estimate"]


def test_version(run: Command) -> None:
    done = run("--version")
    declared = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert (done.code, done.out) == (0, f"reward-tuning {__version__}\n")
    assert f'\nversion = "{__version__}"\n' in declared


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["ls"],
        ["ls", "--json"],
        ["show", "tiny-drtune-hps"],
        *([verb, "--help"] for verb in VERBS),
    ],
    ids=" ".join,
)
def test_starts_without_torch(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from reward_tuning.cli import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "except SystemExit as left:\n"
        "    assert not left.code, left.code\n"
        "heavy = {'torch', 'numpy', 'transformers', 'diffusers', 'imageio', 'rewards'}\n"
        "print('imported:', *sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "imported:"


def test_verbs() -> None:
    assert [verb.__name__ for verb in cli.VERBS] == VERBS


@pytest.mark.parametrize("verb", cli.VERBS, ids=lambda verb: verb.__name__)
def test_help_does_not_explain_the_code(verb: Callable[..., None]) -> None:
    assert not re.search(r"parameters:|Args:|Raises:|Returns:", verb.__doc__ or "no help")


def test_help_names_every_verb(run: Command) -> None:
    done = run("--help")
    assert done.code == 0
    for verb in VERBS:
        assert f" {verb} " in done.out


def test_unknown_verb_and_option(run: Command) -> None:
    assert run("trian").code == 2
    assert run("ls", "--jsn").code == 2


def test_unexpected_exceptions_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str, besides: str = "") -> Path:
        raise ValueError("a defect")

    monkeypatch.setattr(sys.modules["reward_tuning.cli.show"], "find_recipe", broken)
    with pytest.raises(ValueError, match="a defect"):
        cli.main(["show", "x"])


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("reward_tuning.errors", "TuningError"),
        ("base_model.errors", "GeneratorError"),
        ("rewards.errors", "RewardError"),
    ],
)
def test_the_three_families_end_in_one_line(
    run: Command, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    import importlib

    family = getattr(importlib.import_module(module), name)

    def refuse(_: str, besides: str = "") -> Path:
        raise family("what is wrong, and the next step")

    monkeypatch.setattr(sys.modules["reward_tuning.cli.show"], "find_recipe", refuse)
    assert run("show", "x") == (2, "", "error: what is wrong, and the next step\n")


def test_module_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "reward_tuning.cli", "show", "gone"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: no recipe 'gone'")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that is always full")
@pytest.mark.parametrize("words", [["ls"], ["ls", "--json"]])
def test_a_full_disk_behind_stdout_is_reported(words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "reward_tuning.cli", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot write to stdout: No space left")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "spins"),
    [
        ({}, "5000"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"),
        ({"GOMP_SPINCOUNT": "9"}, "9"),
    ],
)
def test_threads_spin_shortly_unless_the_environment_decides(
    given: dict[str, str], spins: str
) -> None:
    code = (
        "import os, sys\n"
        "import reward_tuning.cli as cli\n"
        "main = cli.main\n"
        "def reporting():\n"
        "    try:\n"
        "        main()\n"
        "    finally:\n"
        "        print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)\n"
        "cli.main = reporting\n"
        "sys.argv = ['reward-tuning', '--version']\n"
        "cli.script()\n"
    )
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=kept | given
    )
    assert done.stdout.splitlines()[-1] == f"{spins} False"
