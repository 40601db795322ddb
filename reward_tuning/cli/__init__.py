"""The command line: one file a verb, heavy imports inside the verbs.

Mistakes a person can mend (the three error families) end in `error: ...` on stderr and exit code
2; Ctrl-C and SIGTERM in 130 and 143 with a line on how to go on; anything else is a defect of ours
and keeps its traceback.
"""

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
from reward_tuning.cli.convert import convert
from reward_tuning.cli.cp import cp
from reward_tuning.cli.export import export
from reward_tuning.cli.finetune import finetune
from reward_tuning.cli.generate import generate
from reward_tuning.cli.ls import ls
from reward_tuning.cli.output import error_text, warning_lines
from reward_tuning.cli.pretrain import pretrain
from reward_tuning.cli.render import render
from reward_tuning.cli.resume import resume
from reward_tuning.cli.run import run
from reward_tuning.cli.score import score
from reward_tuning.cli.show import show
from reward_tuning.cli.stopping import Stopped, stop_signals
from reward_tuning.cli.validate import validate
from reward_tuning.errors import shortened

VERBS = (
    ls,
    show,
    cp,
    validate,
    calibrate,
    run,
    finetune,
    resume,
    generate,
    score,
    export,
    convert,
    render,
    pretrain,
)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of a file that stdout goes to
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


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"reward-tuning {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Say the version.", callback=_tell_version, is_eager=True),
    ] = False,
) -> None:
    """What stands before a verb."""


for _verb in VERBS:
    app.command(_verb.__name__)(_verb)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; always leaves through `SystemExit` or an unexpected exception.

    Args:
        arguments: Of the command, without its name; None takes those of the process.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # names that are not UTF-8 are shown as \udcff; JSON reads that back
            stream.reconfigure(errors="backslashreplace")
    with stop_signals(), warning_lines():
        try:
            try:
                app(args=None if arguments is None else list(arguments), prog_name="reward-tuning")
            except SystemExit:
                sys.stdout.flush()  # else it fails at the interpreter's end, with another code
                raise
        except Stopped as stop:
            print(f"\n{stop.told()}", file=sys.stderr)
            sys.exit(stop.exit_code)
        except ValueError as error:
            if not isinstance(error, _families()):
                raise
            print(f"error: {error_text(error)}", file=sys.stderr)
            sys.exit(2)
        except OSError as error:
            if error.errno in FULL and error.filename is None:
                _let_go_of_stdout()
                print(
                    f"error: what is printed cannot be written: {error.strerror}; free some space, "
                    "or send it elsewhere",
                    file=sys.stderr,
                )
                sys.exit(2)
            if error.errno != errno.ENAMETOOLONG:
                raise
            name = shortened(str(error.filename), 420)
            print(f"error: no file has so long a name: {name}", file=sys.stderr)
            sys.exit(2)


def _let_go_of_stdout() -> None:
    """Drop what could not be printed; the interpreter tries again when it ends."""
    with contextlib.suppress(OSError, ValueError):  # not a file, as in tests
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def script() -> None:
    """The installed command: `main`, and after a stop an exit without the interpreter's shutdown.

    A signal may leave the middle of a backward pass. Its graph then outlives the interpreter, and
    tearing it down crashes; everything of ours is closed by then.
    """
    _limit_spinning()
    try:
        main()
    except SystemExit as left:
        if left.code in STOPPED_CODES:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(left.code))
        raise


def _limit_spinning() -> None:
    """Let torch's threads spin only shortly while they wait; read as torch is imported.

    On cores that other programs use as well, a spinning thread keeps the one that it waits for from
    running. Seconds a step of `tiny-demo` on two cores, idle and beside three busy loops: libgomp's
    default of 300,000 spins 0.93 and 10.5, 20,000 spins 0.98 and 5.8, no spinning (PASSIVE) 1.7
    and 4.0.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")


def _families() -> tuple[type[Exception], ...]:
    """Return the error families of the packages that are loaded; the others cannot have raised."""
    return tuple(
        getattr(sys.modules[module], name)
        for module, name in FAMILIES.items()
        if module in sys.modules
    )
