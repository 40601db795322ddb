"""A user's own judge: one class in a Python file.

The class is a `rewards.core.base.FrameReward` or `VideoReward`, or anything whose instances are
called with `(frames, prompts)` and return one score per clip. Its result is checked on every call.
The file's code runs when it is loaded: use only files that you trust. Global settings of torch that
it changes (default dtype, gradient mode, seeds) are restored.
"""

from __future__ import annotations

import importlib.util
import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rewards.core.base import FrozenReward, VideoReward
from rewards.core.global_state import random_state_restored, settings_restored
from rewards.errors import RewardError

ScoreClips = Callable[[Tensor, Sequence[str]], Tensor]


class CallableReward(VideoReward):
    """Any callable `(frames, prompts) -> (b,)` as a judge of whole clips."""

    def __init__(self, score: ScoreClips, who: str) -> None:
        self.score = score
        self.who = who
        self.differentiable = _differentiable(score)
        self.reads_text = bool(getattr(score, "reads_text", True))

    @property
    def modules(self) -> list[nn.Module]:
        """The callable itself, or the networks among its attributes."""
        held = [self.score, *getattr(self.score, "__dict__", {}).values()]
        networks = [one for one in held if isinstance(one, nn.Module)]
        return networks[:1] if networks and networks[0] is self.score else networks

    def score_clips(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return the callable's result, checked: `(b,)`."""
        scores = _called(lambda: self.score(frames, prompts), frames, self.who)
        check_scores(scores, frames, (len(frames),), self.who, trained=self.differentiable)
        return scores


def load_python(
    checkpoint: str | Path,
    *,
    device: torch.device,
    folder: Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> FrozenReward:
    """Load a judge from a Python file.

    Args:
        checkpoint: Path of the file, which must define one class (names that begin with an
            underscore, imported names and base classes of that one do not count).
        device: Device that its networks and its frames are moved to.
        folder: Folder that relative paths start from.
        options: Keyword arguments of the class.

    Returns:
        The judge, its networks frozen and in evaluation mode.

    Raises:
        RewardError: The file is missing or fails, defines no class or several, the class does not
            take these options, or its instances are not callable.
    """
    path = (folder or Path()) / Path(checkpoint).expanduser()
    if not path.is_file():
        raise RewardError(
            f"no such file: {path}; a judge of kind python is a Python file on this machine"
        )
    with (
        settings_restored(),
        random_state_restored(),
    ):  # a seed set in the file must not affect the run
        judge = _instance(path, _only_class(path, _run(path)), dict(options or {}))
    judge.device = device
    for module in judge.modules:
        module.to(device).eval().requires_grad_(False)
    return judge


def check_scores(
    scores: Any, frames: Tensor, shape: tuple[int, ...], who: str, *, trained: bool = True
) -> None:
    """Check the scores that a judge has returned.

    Args:
        scores: Result of the judge: must be fp32 (or fp64) of this shape, finite and, if the judge
            is trained on and `frames` has a gradient, computed from them.
        frames: Frames that it was called with.
        shape: `(b,)`, or `(b, f)` for scores of frames.
        who: Name of the judge, for the message.
        trained: Whether the judge may be trained on.

    Raises:
        RewardError: They are invalid; the message says what to return instead.
    """
    if not isinstance(scores, Tensor):
        raise RewardError(f"{who} returned a {type(scores).__name__}; return a tensor {shape}")
    if tuple(scores.shape) != shape:
        raise RewardError(
            f"{who} returned the shape {tuple(scores.shape)} for frames "
            f"{tuple(frames.shape)}; return one score per clip, {shape}"
        )
    if scores.dtype not in (torch.float32, torch.float64):
        raise RewardError(f"{who} returned {scores.dtype}; return float32 (call .float())")
    if not bool(scores.detach().isfinite().all()):
        raise RewardError(
            f"{who} returned {scores.detach().tolist()}; scores must be finite. Look for a "
            "division by 0, a logarithm or a root of 0"
        )
    needs_gradient = trained and torch.is_grad_enabled() and frames.requires_grad
    if needs_gradient and not scores.requires_grad:
        raise RewardError(
            f"{who} returned scores without a gradient to its frames, so it cannot be trained on. "
            "Remove no_grad, .detach(), .item() and NumPy; or set differentiable = False in its "
            "class, and have its gradient estimated (gradient: group or paired), or list it under "
            "evaluation.held_out_rewards"
        )


def _differentiable(judge: Any) -> bool:
    """Whether a user's judge, or its class, has a gradient; `evaluation_only` is the old name."""
    return bool(getattr(judge, "differentiable", True)) and not getattr(
        judge, "evaluation_only", False
    )


def _called(score: Callable[[], Any], frames: Tensor, who: str) -> Any:
    """Call a judge, and report its exceptions with their line.

    Raises:
        RewardError: It raised an exception, or changed the frames, which other judges see too.
    """
    before = frames._version
    try:
        with settings_restored():
            scores = score()
    except (RewardError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever the user's code does wrong
        raise RewardError(f"{who} failed: {_fault(error)}") from error
    if frames._version != before:
        raise RewardError(
            f"{who} changed its frames in place, but other judges see the same ones; use "
            "frames.clone(), or avoid operations that end in _"
        )
    return scores


def _fault(error: BaseException) -> str:
    """Return the type, text and line of an exception."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    line = error.lineno if isinstance(error, SyntaxError) else last.lineno
    return f"{type(error).__name__}: {error} (line {line} of {Path(last.filename).name})"


def _run(path: Path) -> dict[str, Any]:
    """Run a file and return the names that it defines."""
    spec = importlib.util.spec_from_file_location(f"reward_of_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise RewardError(f"{path} is not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's code does wrong
        lines = [one.lineno for one in traceback.extract_tb(error.__traceback__)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1]
        raise RewardError(f"{path} fails: {type(error).__name__}: {error} (line {line})") from error
    return {
        name: value
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__
    }


def _only_class(path: Path, names: Mapping[str, Any]) -> type[Any]:
    classes = [one for name, one in names.items() if isinstance(one, type) and name[0] != "_"]
    # a base class of another one is part of that one
    leaves = [one for one in classes if not any(one in other.__mro__[1:] for other in classes)]
    if len(leaves) != 1:
        found = ", ".join(one.__name__ for one in leaves) or "none"
        raise RewardError(
            f"{path} must define one class, the judge; found: {found}. Begin the names of the "
            "others with an underscore, or move them to another file"
        )
    return leaves[0]


def _instance(path: Path, own: type[Any], options: dict[str, Any]) -> FrozenReward:
    who = f"{own.__name__} of {path.name}"
    checked = _checked(own, who) if issubclass(own, FrozenReward) else own
    try:
        inspect.signature(checked).bind(**options)
        made = checked(**options)
    except TypeError as error:
        takes = ", ".join(map(str, inspect.signature(checked).parameters.values())) or "nothing"
        raise RewardError(
            f"{who} cannot be constructed with the options {options}: {error}. It takes: {takes}"
        ) from error
    except RewardError:
        raise
    except Exception as error:
        raise RewardError(f"{who} cannot be constructed: {_fault(error)}") from error
    if isinstance(made, FrozenReward):
        return made
    if not callable(made):
        raise RewardError(
            f"{who} is not callable; define __call__(self, frames, prompts) -> (b,), or derive it "
            "from rewards.FrameReward or rewards.VideoReward"
        )
    return CallableReward(made, who)


def _checked(own: type[Any], who: str) -> type[Any]:
    """Return a subclass of a judge that checks its results for clips and for frames."""

    def checked(name: str, dimensions: int) -> Callable[..., Tensor]:
        def call(self: Any, frames: Tensor, prompts: Sequence[str]) -> Tensor:
            scores: Tensor = _called(lambda: getattr(own, name)(self, frames, prompts), frames, who)
            shape = tuple(frames.shape[:dimensions])
            check_scores(scores, frames, shape, who, trained=self.differentiable)
            return scores

        return call

    methods: dict[str, Any] = {
        "__call__": checked("__call__", 1),
        "differentiable": _differentiable(own),
    }
    if hasattr(own, "per_frame"):
        methods["per_frame"] = checked("per_frame", 2)
    return type(own.__name__, (own,), methods)
