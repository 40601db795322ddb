"""Read an adapter's strength from a peft config, and refuse fields that change its meaning."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reward_tuning.errors import TuningError, short_repr

# Fields without effect on the meaning of the two factors, whatever their values.
_HARMLESS = frozenset(
    (
        *("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern"),  # read below
        *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
        *("inference_mode", "runtime_config"),  # about a running process
        # modules with an adapter: the tensors show them
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
        "lora_dropout",  # only in training
        # details of a start that init_lora_weights names
        *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),
        # details of use_qalora and megatron_config, which are refused
        *("qalora_group_size", "megatron_core"),
    )
)
# Starts that leave the base unchanged: the product of the factors is 0, or a part of the training.
_STARTS = (True, False, None, "gaussian", "eva", "orthogonal", "mica", "true", "True")
_MOVING_STARTS = re.compile(r"pissa(?:_niter_\d+)?|olora|corda|loftq|lora_ga", re.IGNORECASE)
_OFF: tuple[Any, ...] = (None, False, {}, [], "")
MAX_PATTERN = 200  # characters of a regular expression in rank_pattern or alpha_pattern
MAX_REPEATS = 4  # in it: k repeats may try n^k ways to match n characters


@dataclass(frozen=True)
class Strength:
    """Rank and alpha of each module in a config.

    Attributes:
        rank: Rank of modules that no pattern matches; None for that of their tensors.
        alpha: Alpha of modules that no pattern matches; None for their rank.
        ranks: `rank_pattern`: name of a module, its end or a regular expression, to rank.
        alphas: `alpha_pattern`, likewise.
        rslora: The strength is alpha / sqrt(rank) instead of alpha / rank.
    """

    rank: int | None = None
    alpha: float | None = None
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    rslora: bool = False

    def of(self, name: str, rank: int) -> tuple[int, float]:
        """Return the rank and the alpha of a module; its strength is alpha / rank.

        Args:
            name: Name of the module in the file.
            rank: Rank of its tensors.
        """
        matched = _matched(self.ranks, name, rank if self.rank is None else self.rank)
        alpha = _matched(self.alphas, name, float(matched) if self.alpha is None else self.alpha)
        return int(matched), alpha * math.sqrt(matched) if self.rslora else float(alpha)


def read_config(text: str, where: str, *, prefix: str = "") -> Strength:
    """Read an `adapter_config.json`, or the same in a safetensors header.

    Args:
        text: JSON text.
        where: Location of the text, for messages.
        prefix: Prefix of each field's name, removed if present.

    Raises:
        TuningError: Not a JSON object, not a plain LoRA, or a field that may have an effect, which
            the message names with its value.
    """
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        what = "nested too deep" if isinstance(error, RecursionError) else short_repr(str(error))
        raise TuningError(
            f"{where} cannot be read as JSON ({what}); export the adapter again"
        ) from error
    if not isinstance(config, dict):
        raise TuningError(f"{where}: contains a {type(config).__name__}; expected a JSON object")
    config = {key.removeprefix(prefix): value for key, value in config.items()}
    kind = config.pop("peft_type", None) or "LORA"
    if str(kind).rpartition(".")[2].upper() != "LORA":
        raise TuningError(
            f"{where}: the adapter is of peft type {short_repr(kind)}; only LORA is supported"
        )
    _refuse_fields(config, where)
    if "r" not in config or "lora_alpha" not in config:
        raise TuningError(
            f"{where}: r is {short_repr(config.get('r'))} and lora_alpha "
            f"{short_repr(config.get('lora_alpha'))}; both must be numbers"
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
    """Return an alpha as a float.

    Args:
        value: Value in a config or a file.
        what: Its location and name, for messages.

    Raises:
        TuningError: It is not a finite number above 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TuningError(f"{what} is {short_repr(value)}; it must be a number above 0")
    try:
        alpha = float(value)
    except OverflowError:
        alpha = math.inf
    if alpha == 0:
        raise TuningError(
            f"{what} is 0: such an adapter has no effect (some trainers write 0 and mean the rank)"
            "; set the alpha that the LoRA was trained with"
        )
    if not 1e-30 < alpha < 1e30:  # so that float32 holds it times any rank
        raise TuningError(f"{what} is {short_repr(value)}; it must be a finite number above 0")
    return alpha


def checked_rank(value: object, what: str) -> int:
    """Return a rank.

    Args:
        value: Value in a config.
        what: Its location and name, for messages.

    Raises:
        TuningError: It is not an integer of 1 or more.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31:
        raise TuningError(f"{what} is {short_repr(value)}; it must be a whole number, 1 or more")
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
            f"{where}: init_lora_weights is {short_repr(start)}, which is unknown here; "
            f"allowed: {', '.join(str(one).lower() for one in _STARTS[:6])} and mica"
        )
    if config.get("use_rslora") not in (None, True, False):
        raise TuningError(
            f"{where}: use_rslora is {short_repr(config['use_rslora'])}; allowed: true, false"
        )
    if config.get("bias") not in (None, "none", False):
        raise TuningError(
            f"{where}: bias is {short_repr(config['bias'])}: trained biases, which a plain LoRA "
            "does not have; train with bias='none'"
        )
    for name, value in config.items():
        known = name in _HARMLESS or name in ("init_lora_weights", "bias")
        if not known and not any(value == off and type(value) is type(off) for off in _OFF):
            raise TuningError(
                f"{where}: {short_repr(name)} is {short_repr(value)}, which may change what a "
                "plain LoRA does; merge the adapter, or train it without this field"
            )


def _patterns(config: Mapping[str, Any], name: str, where: str) -> list[tuple[str, Any]]:
    """Return `rank_pattern` or `alpha_pattern`, with its regular expressions checked."""
    found = config.get(f"{name}_pattern")
    if found is None:
        return []
    if not isinstance(found, dict):
        raise TuningError(
            f"{where}: {name}_pattern is {short_repr(found)}; expected an object of module names"
        )
    for key in found:
        if len(key) > MAX_PATTERN or _is_slow(key):
            raise TuningError(
                f"{where}: {name}_pattern: {short_repr(key)} is not a module name: at most "
                f"{MAX_PATTERN} characters, {MAX_REPEATS} repeats and as many groups, no "
                "group repeated"
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # such as of brackets whose meaning may change
                re.compile(_expression(key))
        except (re.error, RecursionError, OverflowError, Warning) as error:
            raise TuningError(
                f"{where}: {name}_pattern: {short_repr(key)} is not a regular expression"
            ) from error
    return list(found.items())


# (a+)+, (a|a)* and .*.*.*.*.* take hours on a name that does not match.
_REPEATED_GROUP = re.compile(r"\)[*+{]")
_REPEAT = re.compile(r"(?<![(\\])[*+?{]")


def _is_slow(key: str) -> bool:
    """Return whether a regular expression may take practically forever."""
    repeats = len(_REPEAT.findall(key))
    return bool(_REPEATED_GROUP.search(key)) or max(repeats, key.count("(")) > MAX_REPEATS


def _expression(key: str) -> str:
    return rf"(.*\.)?({key})$"  # as peft matches it


def _matched(patterns: Mapping[str, Any], name: str, otherwise: Any) -> Any:
    for key, value in patterns.items():
        if re.match(_expression(key), name):
            return value
    return otherwise
