"""The command line: one file a verb, heavy imports inside the verbs.

Errors that a user can fix (the three error families) print `error: ...` on stderr and exit with
code 2; Ctrl-C and SIGTERM exit with 130 and 143 and print how to resume; anything else is a bug and
keeps its traceback.
"""

import atexit
import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from reward_tuning import __version__
from reward_tuning.cli.calibrate import calibrate
from reward_tuning.cli.card import card
from reward_tuning.cli.compare import compare
from reward_tuning.cli.convert import convert
from reward_tuning.cli.cp import cp
from reward_tuning.cli.distil import distil
from reward_tuning.cli.doctor import doctor
from reward_tuning.cli.estimate import estimate
from reward_tuning.cli.evaluate import evaluate
from reward_tuning.cli.export import export
from reward_tuning.cli.finetune import finetune
from reward_tuning.cli.generate import generate
from reward_tuning.cli.list_options import ListOptions
from reward_tuning.cli.ls import ls
from reward_tuning.cli.mix import mix
from reward_tuning.cli.option_sections import HelpWithOthers
from reward_tuning.cli.output import error_text, warning_lines
from reward_tuning.cli.pretrain import pretrain
from reward_tuning.cli.push import push
from reward_tuning.cli.quick_exit import QuickExit
from reward_tuning.cli.render import render
from reward_tuning.cli.report import report
from reward_tuning.cli.resume import resume
from reward_tuning.cli.run import run
from reward_tuning.cli.score import score
from reward_tuning.cli.show import show
from reward_tuning.cli.stopping import Stopped, stop_signals
from reward_tuning.cli.validate import validate
from reward_tuning.cli.votes import votes
from reward_tuning.cli.watch import watch
from reward_tuning.errors import shortened

VERBS = (
    ls,
    show,
    cp,
    validate,
    calibrate,
    run,
    finetune,
    distil,
    resume,
    watch,
    report,
    generate,
    score,
    evaluate,
    compare,
    votes,
    export,
    mix,
    card,
    push,
    convert,
    render,
    pretrain,
    doctor,
    estimate,
)
WITH_LISTS = (evaluate, compare, mix)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # when stdout is redirected to a file
STOPPED_CODES = (128 + signal.SIGINT, 128 + signal.SIGTERM)
FAMILIES = {
    "reward_tuning.errors": "TuningError",
    "base_model.errors": "GeneratorError",
    "rewards.errors": "RewardError",
}

app = typer.Typer(
    name="reward-tuning",
    help="Fine-tune the EasyAnimateV5.1 video generator on differentiable rewards, into a LoRA.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"reward-tuning {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Options that come before a verb."""


for _verb in VERBS:
    _kind = ListOptions if _verb in WITH_LISTS else HelpWithOthers
    app.command(_verb.__name__, cls=_kind)(_verb)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; always exit through `SystemExit` or an unexpected exception.

    Args:
        arguments: Command-line arguments without the program name; None takes those of the process.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a file name that is not UTF-8 prints as \udcff, which JSON reads back
            stream.reconfigure(errors="backslashreplace")
    with stop_signals(), warning_lines():
        try:
            try:
                app(args=None if arguments is None else list(arguments), prog_name="reward-tuning")
            except SystemExit:
                # here, since a full disk would else fail at interpreter exit with another code
                sys.stdout.flush()
                raise
        except Stopped as stop:
            if text := stop.message():
                print(f"\n{text}", file=sys.stderr)
            sys.exit(stop.exit_code)
        except ValueError as error:
            if not isinstance(error, _families()):
                raise
            print(f"error: {error_text(error)}", file=sys.stderr)
            sys.exit(2)
        except OSError as error:
            if error.errno in DISK_FULL and error.filename is None:
                _discard_stdout()
                print(
                    f"error: cannot write to stdout: {error.strerror}; free some space or redirect "
                    "the output elsewhere",
                    file=sys.stderr,
                )
                sys.exit(2)
            if error.errno != errno.ENAMETOOLONG:
                raise
            name = shortened(str(error.filename), 420)
            print(f"error: file name too long: {name}", file=sys.stderr)
            sys.exit(2)


def _discard_stdout() -> None:
    """Redirect stdout to nowhere: the interpreter would try to flush the rest again at exit."""
    with contextlib.suppress(OSError, ValueError):  # stdout is not a file, as in tests
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def script() -> None:
    """Run the installed command: `main`, and an exit without interpreter shutdown.

    All our files are closed by then. A signal may interrupt a backward pass; its graph would then
    outlive the interpreter, and freeing it crashes, so that a stop leaves at once.
    """
    _limit_spinning()
    quick_exit = QuickExit()
    atexit.register(quick_exit)
    try:
        main()
    except SystemExit as left:
        if left.code in STOPPED_CODES:
            _close_judges()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(left.code))
        if left.code is None or isinstance(left.code, int):
            quick_exit.code = left.code or 0
        raise


def _close_judges() -> None:
    """End the programs of judges, which no finaliser does where the process leaves at once."""
    # Not imported for this: whoever has such judges has imported it, and others need no torch.
    module = sys.modules.get("rewards.core.black_box")
    if module is not None:
        module.close_all()


def _limit_spinning() -> None:
    """Make waiting torch threads spin only briefly; torch reads the setting when it is imported.

    On cores shared with other programs, a spinning thread blocks the thread that it waits for.
    Seconds per step of `tiny-demo` on two cores, idle and next to three busy loops: 0.93 and 10.5
    with libgomp's default of 300,000 spins, 0.98 and 5.8 with 20,000, 1.7 and 4.0 without spinning
    (PASSIVE).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")


def _families() -> tuple[type[Exception], ...]:
    """Return the error families of the loaded packages; an unloaded one cannot have raised."""
    return tuple(
        getattr(sys.modules[module], name)
        for module, name in FAMILIES.items()
        if module in sys.modules
    )
