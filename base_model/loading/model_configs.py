"""Read a checkpoint's config.json as constructor arguments, or refuse it with the reason.

Original configs hold keys that diffusers' classes do not take. Those that change nothing are
skipped by name (`base_model.loading.harmless_keys`); any other is refused, because ignoring it
could silently build another model.
"""

import ast
import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from base_model.core.family import FAMILY
from base_model.core.kinds import Kind, kind_of
from base_model.errors import GeneratorError
from base_model.files.weight_files import read_json, shorten
from base_model.loading.harmless_keys import COMMON, SCHEDULER, TRANSFORMER, VAE, Harmless

_V5 = "That is an EasyAnimateV5 or older checkpoint; use EasyAnimateV5.1."
_DOES_SOMETHING = (
    "Ignoring it could change the result: use an EasyAnimateV5.1 checkpoint, or remove the key "
    "from the file if you know that it changes nothing."
)
_UNKNOWN: Mapping[str, str] = {
    "quantization_config": "The weights are quantised, or were: use the checkpoint they were made "
    "from and generator.quantise, or remove the key if they are plain bfloat16 or float32."
}
_SHOWN_AT_MOST = 80
MOST_LAYERS = 1000  # every layer is built before weights are read; the 12B has 48
_COUNTS = ("num_layers", "layers_per_block")
_FLOW: Mapping[str, Any] = {
    "num_train_timesteps": FAMILY.timesteps,
    "use_dynamic_shifting": True,
}
_BLOCK_TYPES: Mapping[str, tuple[str, ...]] = {
    "down_block_types": ("SpatialDownBlock3D", "SpatialTemporalDownBlock3D"),
    "up_block_types": ("SpatialUpBlock3D", "SpatialTemporalUpBlock3D"),
}


def transformer_arguments(folder: Path, model_class: Any) -> dict[str, Any]:
    """Read the arguments of `EasyAnimateTransformer3DModel` from `folder/config.json`.

    Raises:
        GeneratorError: The config is of V5, or asks for something that the class does not do.
    """
    path = folder / "config.json"
    return transformer_arguments_of(path, read_json(path), model_class)


def transformer_arguments_of(
    path: Path, config: Mapping[str, Any], model_class: Any
) -> dict[str, Any]:
    """Do what `transformer_arguments` does for a parsed config; `path` is for messages."""
    if config.get("text_embed_dim_t5") is not None:
        raise GeneratorError(
            f"{path}: text_embed_dim_t5 is {config['text_embed_dim_t5']}, for a second text "
            f"encoder. {_V5}"
        )
    needed = ("in_channels", "out_channels", "patch_size", "num_layers", "text_embed_dim")
    return _arguments(path, config, model_class, TRANSFORMER, needed)


def vae_arguments(folder: Path, model_class: Any) -> dict[str, Any]:
    """Read the arguments of `AutoencoderKLMagvit` from `folder/config.json`.

    Original configs give the widths as `ch` times `ch_mult` and may hold lists as text.

    Raises:
        GeneratorError: The config asks for something that the class does not do.
    """
    path = folder / "config.json"
    return vae_arguments_of(path, read_json(path), model_class)


def vae_arguments_of(path: Path, config: Mapping[str, Any], model_class: Any) -> dict[str, Any]:
    """Do what `vae_arguments` does for a parsed config; `path` is for messages."""
    config = dict(config)
    if config.get("block_out_channels") is None and {"ch", "ch_mult"} <= config.keys():
        config["block_out_channels"] = _widths(path, config["ch"], config["ch_mult"])
    for key, known in _BLOCK_TYPES.items():
        if config.get(key) is not None:
            config[key] = _block_types(path, key, config[key], known)
    scale = config.get("scaling_factor")
    if scale is not None and not _is_scale(scale):
        raise GeneratorError(
            f"{path}: scaling_factor is {_shown(scale)}; expected a finite number above 0. V5.1 "
            "has 0.7125."
        )
    # The defaults of the original class and of diffusers' differ: the config must give these.
    needed = ("block_out_channels", "latent_channels", "scaling_factor", "spatial_group_norm")
    return _arguments(path, config, model_class, VAE, needed)


def _is_scale(value: Any) -> bool:
    """Return whether latents can be multiplied and divided by a value."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 1e-30 < value < 1e30


def _widths(path: Path, first: Any, multiples: Any) -> list[int]:
    whole = [first, *multiples] if isinstance(multiples, (list, tuple)) else [multiples]
    if not all(isinstance(number, int) for number in whole):
        raise GeneratorError(
            f"{path}: ch is {_shown(first)} and ch_mult {_shown(multiples)}; expected an "
            "integer and a list of integers, such as 128 and [1, 2, 4, 4]."
        )
    return [first * multiple for multiple in multiples]


def _block_types(path: Path, key: str, value: Any, known: tuple[str, ...]) -> list[str]:
    """Read a list of block types, which original configs may hold as text."""
    types = value
    if isinstance(value, str):
        try:
            types = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            types = None
    if not isinstance(types, (list, tuple)) or any(name not in known for name in types):
        raise GeneratorError(
            f"{path}: {key} is {_shown(value)}; V5.1's VAE has a list of {' and '.join(known)}. "
            f"{_V5}"
        )
    return list(types)


def kind_of_checkpoint(folder: Path) -> Kind:
    """Return the kind of a checkpoint on disk, from its config alone.

    Args:
        folder: Folder with `transformer/config.json`, in either layout.

    Raises:
        GeneratorError: There is no such config, or no such kind.
    """
    config = read_json(folder / "transformer" / "config.json")
    return kind_of(config.get("in_channels", 0))


def check_scheduler(folder: Path) -> None:
    """Refuse a checkpoint whose scheduler is not the flow of V5.1.

    Args:
        folder: Folder of the checkpoint; nothing is checked if there is no
            `scheduler/scheduler_config.json`.

    Raises:
        GeneratorError: The scheduler is another one, such as V5's (which predicts v on a DDIM
            table), or its table would differ from V5.1's.
    """
    path = folder / "scheduler" / "scheduler_config.json"
    if not path.is_file():
        return
    config = read_json(path)
    name = config.get("_class_name")
    if name != "FlowMatchEulerDiscreteScheduler":
        raise GeneratorError(
            f"{path}: the scheduler is {name}, not FlowMatchEulerDiscreteScheduler. {_V5}"
        )
    for key, value in _FLOW.items():
        if config.get(key) != value:
            raise GeneratorError(
                f"{path}: {key} is {_shown(config.get(key))}, V5.1's flow has {value}. "
                "Sampling follows V5.1's table, so this checkpoint would be sampled wrongly."
            )
    refuse_unknown(path, config, {**COMMON, **SCHEDULER}, _FLOW, name)


def _arguments(
    path: Path,
    config: Mapping[str, Any],
    model_class: Any,
    harmless: Mapping[str, Harmless],
    needed: tuple[str, ...],
) -> dict[str, Any]:
    name = model_class.__name__
    if config.get("_class_name", name) not in (name, None):
        raise GeneratorError(
            f"{path}: _class_name is {_shown(config['_class_name'])}, EasyAnimateV5.1's is {name}. "
            f"{_V5}"
        )
    for key in _COUNTS:
        if isinstance(config.get(key), int) and config[key] > MOST_LAYERS:
            raise GeneratorError(
                f"{path}: {key} is {_shown(config[key])}; at most {MOST_LAYERS} are allowed. Copy "
                "the config.json of the checkpoint the weights come from."
            )
    taken = inspect.signature(model_class.__init__).parameters.keys() - {"self"}
    missing = [key for key in needed if config.get(key) is None]
    if missing:
        raise GeneratorError(
            f"{path} lacks {shorten(missing)}. Copy the config.json of the checkpoint the weights "
            "come from."
        )
    refuse_unknown(path, config, {**COMMON, **harmless}, taken, name)
    return {key: value for key, value in config.items() if key in taken}


def refuse_unknown(
    path: Path,
    config: Mapping[str, Any],
    harmless: Mapping[str, Harmless],
    taken: Iterable[str],
    name: str,
) -> None:
    """Refuse keys that are neither arguments nor harmless.

    Args:
        path: Path of the config, for messages.
        config: Parsed config.
        harmless: Harmless keys of its class (`base_model.loading.harmless_keys`).
        taken: Keys that become arguments.
        name: Name of the class.

    Raises:
        GeneratorError: Names the first such key, its value, the allowed values and the reason.
    """
    taken = set(taken)
    for key, value in config.items():
        if key.startswith("_") or (value is None and key not in taken):
            continue
        rule = harmless.get(key)
        if rule is None and key not in taken:
            raise GeneratorError(
                f"{path}: {key} is {_shown(value)}, and {name} supports no such key. "
                f"{_UNKNOWN.get(key, _DOES_SOMETHING)}"
            )
        if rule is not None and not rule.when(config):
            raise GeneratorError(
                f"{path}: {key} is {_shown(value)}, and {name} supports only {rule.allowed}: "
                f"{rule.reason}. {_DOES_SOMETHING}"
            )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_AT_MOST else f"{text[:_SHOWN_AT_MOST]}..."
