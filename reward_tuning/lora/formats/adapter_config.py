"""What a peft config says of an adapter's strength, and which of its fields cannot be kept."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reward_tuning.errors import TuningError
from reward_tuning.lora.formats.shown import shown

# Without effect on what the two factors mean, whatever they say.
_HARMLESS = frozenset(
    (
        *("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern"),  # read below
        *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
        *("inference_mode", "runtime_config"),  # of a running process
        # which modules have an adapter: the tensors say it
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
        "lora_dropout",  # in training alone
        # of a start, which init_lora_weights names
        *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),
        # of use_qalora and megatron_config, which are refused
        *("qalora_group_size", "megatron_core"),
    )
)
# Starts that leave the base as it is: the factors' product is 0, or is trained from there on.
_STARTS = (True, False, None, "gaussian", "eva", "orthogonal", "mica", "true", "True")
_MOVING_STARTS = re.compile(r"pissa(?:_niter_\d+)?|olora|corda|loftq|lora_ga", re.IGNORECASE)
_OFF: tuple[Any, ...] = (None, False, {}, [], "")
LONGEST_PATTERN = 200  # letters of a key of rank_pattern: it is a regular expression
MOST_REPEATS = 4  # in it: of n letters, k repeats may try n^k ways


@dataclass(frozen=True)
class Strength:
    """Rank and alpha by module, as a config gives them.

    Attributes:
        rank: Of the modules that no pattern names; None where only the tensors tell.
        alpha: Likewise; None = alpha is the rank.
        ranks: `rank_pattern`: a module's name, its end or a regular expression of it -> rank.
        alphas: `alpha_pattern`.
        rslora: The strength is alpha / sqrt(rank) in place of alpha / rank.
    """

    rank: int | None = None
    alpha: float | None = None
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    rslora: bool = False

    def of(self, name: str, rank: int) -> tuple[int, float]:
        """Rank that a module should have, and its alpha (the strength is alpha / rank).

        Args:
            name: Of the module in the file.
            rank: That its tensors have.
        """
        wanted = _matched(self.ranks, name, rank if self.rank is None else self.rank)
        alpha = _matched(self.alphas, name, float(wanted) if self.alpha is None else self.alpha)
        return int(wanted), alpha * math.sqrt(wanted) if self.rslora else float(alpha)


def read_config(text: str, where: str, *, prefix: str = "") -> Strength:
    """Read an `adapter_config.json`, or the same in a safetensors header.

    Args:
        text: JSON.
        where: Its place, for errors.
        prefix: Before each field's name, dropped where it is.

    Raises:
        TuningError: No JSON object, no plain LoRA, or a field that is not known to be without
            effect; it is named with its value.
    """
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        what = "nested too deep" if isinstance(error, RecursionError) else shown(str(error))
        raise TuningError(
            f"{where} cannot be read as JSON ({what}); export the adapter again"
        ) from error
    if not isinstance(config, dict):
        raise TuningError(f"{where}: holds a {type(config).__name__}, not a JSON object")
    config = {key.removeprefix(prefix): value for key, value in config.items()}
    kind = config.pop("peft_type", None) or "LORA"
    if str(kind).rpartition(".")[2].upper() != "LORA":
        raise TuningError(
            f"{where}: the adapter is of peft type {shown(kind)}; only LORA is supported"
        )
    _refuse_fields(config, where)
    if "r" not in config or "lora_alpha" not in config:
        raise TuningError(
            f"{where}: r is {shown(config.get('r'))} and lora_alpha "
            f"{shown(config.get('lora_alpha'))}; both must be numbers"
        )
    return Strength(
        checked_rank(config["r"], f"{where}: r"),
        checked_alpha(config["lora_alpha"], f"{where}: lora_alpha"),
        {k: checked_rank(v, f"{where}: rank_pattern") for k, v in _patterns(config, "rank", where)},
        {
            k: checked_alpha(v, f"{where}: alpha_pattern")
            for k, v in _patterns(config, "alpha", where)
        },
        rslora=config.get("use_rslora") or False,
    )


def checked_alpha(value: object, what: str) -> float:
    """A number above 0 that can be a strength.

    Args:
        value: Of a config or a file.
        what: Its place and name, for errors.

    Raises:
        TuningError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TuningError(f"{what} is {shown(value)}; it must be a number above 0")
    try:
        alpha = float(value)
    except OverflowError:
        alpha = math.inf
    if alpha == 0:
        raise TuningError(
            f"{what} is 0: such an adapter has no effect (some trainers write 0 and mean the rank)"
            "; set the alpha that the LoRA was trained with"
        )
    if not 1e-30 < alpha < 1e30:  # float32 holds it, times any rank
        raise TuningError(f"{what} is {shown(value)}; it must be a finite number above 0")
    return alpha


def checked_rank(value: object, what: str) -> int:
    """A whole number, 1 or more, that can be a rank.

    Args:
        value: Of a config.
        what: Its place and name, for errors.

    Raises:
        TuningError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31:
        raise TuningError(f"{what} is {shown(value)}; it must be a whole number, 1 or more")
    return value


def _refuse_fields(config: Mapping[str, Any], where: str) -> None:
    start = config.get("init_lora_weights")
    if isinstance(start, str) and _MOVING_STARTS.fullmatch(start):
        raise TuningError(
            f"{where}: init_lora_weights is {start!r}, a start that changes the base's weights, so "
            "on the published base this adapter adds what it should replace; convert it in peft: "
            "save_pretrained(..., path_initial_model_for_weight_conversion=FOLDER_OF_ITS_START)"
        )
    if not any(start is one or (one == start and isinstance(one, str)) for one in _STARTS):
        raise TuningError(
            f"{where}: init_lora_weights is {shown(start)}, which is not known here; "
            f"allowed are {', '.join(str(one).lower() for one in _STARTS[:6])} and mica"
        )
    if config.get("use_rslora") not in (None, True, False):
        raise TuningError(
            f"{where}: use_rslora is {shown(config['use_rslora'])}; allowed are true and false"
        )
    if config.get("bias") not in (None, "none", False):
        raise TuningError(
            f"{where}: bias is {shown(config['bias'])}: trained biases, which a plain LoRA lacks; "
            "train with bias='none'"
        )
    for name, value in config.items():
        known = name in _HARMLESS or name in ("init_lora_weights", "bias")
        if not known and not any(value == off and type(value) is type(off) for off in _OFF):
            raise TuningError(
                f"{where}: {shown(name)} is {shown(value)}, which may change what a plain "
                "LoRA does; merge the adapter, or train it without"
            )


def _patterns(config: Mapping[str, Any], name: str, where: str) -> list[tuple[str, Any]]:
    """`rank_pattern` or `alpha_pattern`, its regular expressions tried."""
    found = config.get(f"{name}_pattern")
    if found is None:
        return []
    if not isinstance(found, dict):
        raise TuningError(
            f"{where}: {name}_pattern is {shown(found)}; it must be an object of module names"
        )
    for key in found:
        if len(key) > LONGEST_PATTERN or _is_slow(key):
            raise TuningError(
                f"{where}: {name}_pattern: {shown(key)} is not a module name: at most "
                f"{LONGEST_PATTERN} characters, {MOST_REPEATS} repeats and as many groups, no "
                "group repeated"
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # of brackets that mean something else one day
                re.compile(_expression(key))
        except (re.error, RecursionError, OverflowError, Warning) as error:
            raise TuningError(
                f"{where}: {name}_pattern: {shown(key)} is not a regular expression"
            ) from error
    return list(found.items())


# (a+)+, (a|a)* and .*.*.*.*.* take ages on a name that does not match.
_REPEATED_GROUP = re.compile(r"\)[*+{]")
_REPEAT = re.compile(r"(?<![(\\])[*+?{]")


def _is_slow(key: str) -> bool:
    """Whether a regular expression may try more ways than can be waited for."""
    repeats = len(_REPEAT.findall(key))
    return bool(_REPEATED_GROUP.search(key)) or max(repeats, key.count("(")) > MOST_REPEATS


def _expression(key: str) -> str:
    return rf"(.*\.)?({key})$"  # peft's own rule


def _matched(patterns: Mapping[str, Any], name: str, otherwise: Any) -> Any:
    for key, value in patterns.items():
        if re.match(_expression(key), name):
            return value
    return otherwise
