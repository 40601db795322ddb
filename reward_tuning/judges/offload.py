"""Judges and VAE on the CPU while they rest: which modules, and in which phase they work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn

from base_model.memory.offload import Offload
from reward_tuning.errors import TuningError
from reward_tuning.judges.judge import Judge
from reward_tuning.judges.shared_encoder import SharedEncoder
from rewards import LatentClip
from rewards.core.base import FrozenReward

PhaseFn = Callable[[str], AbstractContextManager[None]]


def onloaded_during(offload: Offload, wanted: str, phase: PhaseFn) -> PhaseFn:
    """The same phases, with the weights on the device in the one of that name.

    Moving them counts to that phase, its seconds and its memory.
    """

    @contextmanager
    def entered(name: str) -> Iterator[None]:
        with phase(name):
            if name != wanted:
                yield
                return
            with offload.at_work():
                yield

    return entered


def judge_modules(judges: Sequence[Judge]) -> list[nn.Module]:
    """The networks of judges.

    Raises:
        TuningError: A judge of another class does not say what it holds.
    """
    modules: list[nn.Module] = []
    for judge in judges:
        if not isinstance(judge.reward, FrozenReward | LatentClip):
            raise TuningError(
                f"generator.memory: {judge.label} is of a class that does not tell its modules "
                f"({type(judge.reward).__name__}), so it cannot be offloaded; set "
                "generator.memory=resident"
            )
        modules += judge.reward.modules
    return modules


def split_offload(
    resting: Sequence[nn.Module], shared: SharedEncoder | None, device: torch.device
) -> tuple[Offload, Offload]:
    """How judges rest where one may be the generator's text encoder, which works for prompts too.

    Args:
        resting: Modules of the judges that rest.
        shared: The encoder, on the device; it need not be among them.
        device: Where they work.

    Returns:
        Of the encoder alone (of nothing where it does not rest), and of all of them.
    """
    model = None if shared is None else shared.encoder.text_encoder
    encoder = Offload([module for module in resting if module is model], device)
    others = Offload([module for module in resting if module is not model], device)
    return encoder, others.joined(encoder)
