"""A checkpoint's config.json to constructor arguments, or a refusal with its reason.

Original configs hold keys that diffusers' classes do not take. Those that change nothing at the
values V5.1 uses are left out by name; any other is refused, because ignoring it could mean building
another model in silence.
"""

import ast
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from base_model.errors import GeneratorError
from base_model.weight_files import read_json, shorten

_V5 = "That is an EasyAnimateV5 or older checkpoint; use EasyAnimateV5.1."

# Keys the diffusers classes lack (or implement without a reference) -> the values at which they
# change nothing in the network. None here: any value, the key only steers the published pipelines.
_TRANSFORMER_HARMLESS: Mapping[str, tuple[Any, ...] | None] = {
    "after_norm": (False,),
    "swa_layers": (None,),
    "ref_channels": (None,),
    "clip_channels": (None,),
    "time_position_encoding_type": ("3d_rope",),
    "enable_clip_in_inpaint": None,
    "position_of_clip_embedding": None,
    "add_ref_latent_in_control_model": None,
    "enable_zero_in_inpaint": None,
}
_VAE_HARMLESS: Mapping[str, tuple[Any, ...] | None] = {
    "mid_block_use_attention": (False,),
    "mid_block_type": ("MidBlock3D",),
    "use_gc_blocks": (None, False),
    "slice_compression_vae": (False,),
    "cache_compression_vae": (False,),
    # How the published decoder cuts a clip; no number depends on it with spatial_group_norm.
    "slice_mag_vae": None,
    "cache_mag_vae": None,
    "mini_batch_encoder": None,
    "mini_batch_decoder": None,
    # Only with attention, which is refused above.
    "mid_block_attention_type": None,
    "mid_block_num_attention_heads": None,
    "num_attention_heads": None,
    "upcast_vae": None,
    "use_tiling": None,
    "use_tiling_encoder": None,
    "use_tiling_decoder": None,
    "tile_sample_min_size": None,
    "tile_overlap_factor": None,
    "ch": None,  # read below
    "ch_mult": None,
}


def transformer_arguments(folder: Path, model_class: Any) -> dict[str, Any]:
    """Arguments for ``EasyAnimateTransformer3DModel`` from ``folder/config.json``.

    Raises:
        GeneratorError: When the config is of V5, or says something the class does not do.
    """
    path = folder / "config.json"
    return transformer_arguments_of(path, read_json(path), model_class)


def transformer_arguments_of(
    path: Path, config: Mapping[str, Any], model_class: Any
) -> dict[str, Any]:
    """As :func:`transformer_arguments`, of a config that is read already; path is for errors."""
    if config.get("text_embed_dim_t5") is not None:
        raise GeneratorError(
            f"{path}: text_embed_dim_t5 is {config['text_embed_dim_t5']}, for a second text "
            f"encoder. {_V5}"
        )
    needed = ("in_channels", "out_channels", "patch_size", "num_layers", "text_embed_dim")
    return _arguments(path, config, model_class, _TRANSFORMER_HARMLESS, needed)


def vae_arguments(folder: Path, model_class: Any) -> dict[str, Any]:
    """Arguments for ``AutoencoderKLMagvit`` from ``folder/config.json``.

    Original configs give the widths as ``ch`` times ``ch_mult`` and may hold lists as text.

    Raises:
        GeneratorError: When the config says something the class does not do.
    """
    path = folder / "config.json"
    return vae_arguments_of(path, read_json(path), model_class)


def vae_arguments_of(path: Path, config: Mapping[str, Any], model_class: Any) -> dict[str, Any]:
    """As :func:`vae_arguments`, of a config that is read already; path is for errors."""
    config = dict(config)
    if "block_out_channels" not in config and {"ch", "ch_mult"} <= config.keys():
        config["block_out_channels"] = [config["ch"] * m for m in config["ch_mult"]]
    for key in ("down_block_types", "up_block_types"):
        if isinstance(config.get(key), str):
            config[key] = list(ast.literal_eval(config[key]))
    # The original class and diffusers' have other defaults for these: they must be written down.
    needed = ("block_out_channels", "latent_channels", "scaling_factor", "spatial_group_norm")
    return _arguments(path, config, model_class, _VAE_HARMLESS, needed)


def check_scheduler(folder: Path) -> None:
    """Refuses a checkpoint whose scheduler is not the V5.1 flow.

    Args:
        folder: The checkpoint; without ``scheduler/scheduler_config.json`` nothing is checked.

    Raises:
        GeneratorError: When the scheduler is another, as V5's (which predicts v on a DDIM table).
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
    for key, value in (("num_train_timesteps", 1000), ("use_dynamic_shifting", True)):
        if config.get(key) != value:
            raise GeneratorError(
                f"{path}: {key} is {config.get(key)}, V5.1's flow has {value}. "
                "Sampling follows V5.1's table, so this checkpoint would be sampled wrongly."
            )


def _arguments(
    path: Path,
    config: Mapping[str, Any],
    model_class: Any,
    harmless: Mapping[str, tuple[Any, ...] | None],
    needed: tuple[str, ...],
) -> dict[str, Any]:
    taken = inspect.signature(model_class.__init__).parameters.keys() - {"self"}
    missing = [key for key in needed if config.get(key) is None]
    if missing:
        raise GeneratorError(
            f"{path} lacks {shorten(missing)}. Copy the config.json of the checkpoint the weights "
            "come from."
        )
    for key, value in config.items():
        if key.startswith("_"):
            continue
        if key in harmless:
            allowed = harmless[key]
            refused = allowed is not None and value not in allowed
        else:
            refused = key not in taken and value not in (None, False)
        if refused:
            known = f"only {harmless[key]}" if key in harmless else "no such key"
            raise GeneratorError(
                f"{path}: {key} is {value!r}, and {model_class.__name__} supports {known}. "
                "The network would be another one; use an EasyAnimateV5.1 checkpoint."
            )
    return {key: value for key, value in config.items() if key in taken}
