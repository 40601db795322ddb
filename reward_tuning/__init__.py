"""The tool: methods, the gradient engine, trainer, evaluation, exports, command line.

`import reward_tuning as rt` offers the names of `__all__` (docs/python.md). Each is imported when
it is first used, so that importing the package loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from base_model.errors import GeneratorError
    from base_model.generator import load_generator
    from reward_tuning.api import evaluate, generate, resume, run
    from reward_tuning.errors import TuningError
    from reward_tuning.files.clips import read_clip, write_clip
    from reward_tuning.lora.pipelines import load_lora
    from rewards.errors import RewardError
    from rewards.loading import load_reward

__version__ = "0.1.0"
__all__ = [
    "GeneratorError",
    "RewardError",
    "TuningError",
    "evaluate",
    "generate",
    "load_generator",
    "load_lora",
    "load_reward",
    "read_clip",
    "resume",
    "run",
    "write_clip",
]
_HOMES = {
    "GeneratorError": "base_model.errors",
    "RewardError": "rewards.errors",
    "TuningError": "reward_tuning.errors",
    "evaluate": "reward_tuning.api",
    "generate": "reward_tuning.api",
    "load_generator": "base_model.generator",
    "load_lora": "reward_tuning.lora.pipelines",
    "load_reward": "rewards.loading",
    "read_clip": "reward_tuning.files.clips",
    "resume": "reward_tuning.api",
    "run": "reward_tuning.api",
    "write_clip": "reward_tuning.files.clips",
}


def __getattr__(name: str) -> Any:
    """Import a name of `__all__` from where it is defined.

    Raises:
        AttributeError: The package has no such name.
    """
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """List the names, those not yet imported included."""
    return sorted({*globals(), *__all__})
