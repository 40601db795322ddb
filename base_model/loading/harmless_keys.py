"""Keys of published configs that the network here takes no argument for, and when they do nothing.

The rule: a key that the original class ignores in this configuration is harmless; everything else
is refused by name. What it ignores was read in EasyAnimate's own classes and pipelines (commit
c2a70d1), and for the VAE measured: a small random `AutoencoderKLMagvit`, 17 frames, float64, one
key changed at a time. "(0.0)" is the largest difference of latents and frames that this gave.

Each table maps a name to the condition and the reason. A key that the class here does not take and
whose value is null is unset, whatever its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from base_model.core.family import FAMILY
from base_model.core.kinds import INPAINT, kind_named

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Harmless:
    """When a key changes nothing, and why.

    Attributes:
        when: Whether it does nothing in this config.
        allowed: The values at which it does nothing, for people.
        reason: Why, for people.
    """

    when: Callable[[Config], bool]
    allowed: str
    reason: str


def _always(reason: str) -> Harmless:
    return Harmless(lambda config: True, "anything", reason)


def _among(key: str, values: tuple[Any, ...], reason: str) -> Harmless:
    return Harmless(lambda config: _is_one_of(config[key], values), str(values), reason)


def _among_or(
    key: str, values: tuple[Any, ...], when: Callable[[Config], bool], where: str, reason: str
) -> Harmless:
    """One of the values, or anything in configs of which `when` holds."""
    return Harmless(
        lambda config: _is_one_of(config[key], values) or when(config),
        f"{values}, or anything {where}",
        reason,
    )


def _unset(key: str, reason: str) -> Harmless:
    return Harmless(lambda config: config[key] is None, "null", reason)


def _is_one_of(value: Any, values: tuple[Any, ...]) -> bool:
    """Equality that does not take 0 for False, nor 1 for True."""
    return any(type(value) is type(allowed) and value == allowed for allowed in values)


def _while(when: Callable[[Config], bool], where: str, reason: str) -> Harmless:
    return Harmless(when, f"anything {where}", reason)


def _not_inpaint(config: Config) -> bool:
    return config.get("in_channels") != kind_named(INPAINT).channels


def _no_clip(config: Config) -> bool:
    return config.get("clip_channels") is None


def _cached(config: Config) -> bool:
    return config.get("cache_mag_vae") is True


def _untiled(config: Config) -> bool:
    return not any(config.get(key) for key in _TILING)


def _without_attention(config: Config) -> bool:
    return not config.get("mid_block_use_attention")


def _mini_batches(config: Config) -> bool:
    """Frames in whole latents, and as many latents as these frames give."""
    encoder = config.get("mini_batch_encoder", FAMILY.time_stride)
    decoder = config.get("mini_batch_decoder", 1)
    return (
        type(encoder) is type(decoder) is int
        and decoder >= 1
        and encoder == FAMILY.time_stride * decoder
        and (decoder == 1 or config.get("spatial_group_norm") is True)
    )


_TILING = ("use_tiling", "use_tiling_encoder", "use_tiling_decoder")
_SAVED = "says how the weights were saved; each tensor says its dtype itself"
_AVERAGE = "diffusers' EMAModel.save_pretrained notes its own settings beside the network's"

# What any tool that writes such files may add. Keys that begin with an underscore are notes of the
# library that wrote the file (_diffusers_version, _name_or_path, _use_default_values) and are not
# looked at, but for _class_name.
COMMON: Mapping[str, Harmless] = {
    "torch_dtype": _always(_SAVED),
    "dtype": _always(_SAVED),
    "transformers_version": _always("says which library wrote the file"),
} | dict.fromkeys(
    (
        "decay",
        "inv_gamma",
        "min_decay",
        "optimization_step",
        "power",
        "update_after_step",
        "use_ema_warmup",
    ),
    _always(_AVERAGE),
)

TRANSFORMER: Mapping[str, Harmless] = {
    "transformer_type": _among(
        "transformer_type",
        ("EasyAnimateTransformer3DModel",),
        "names the class, as EasyAnimate's yaml does",
    ),
    "after_norm": _among("after_norm", (False,), "no norm behind the feed-forward layers"),
    "swa_layers": _unset("swa_layers", "no block attends within windows"),
    "ref_channels": _unset("ref_channels", "no projection of reference images"),
    "clip_channels": _unset("clip_channels", "no projection of CLIP states"),
    "enable_clip_in_inpaint": _among_or(
        "enable_clip_in_inpaint",
        (False,),
        _no_clip,
        "while clip_channels is null",
        "without clip_channels the transformer takes no CLIP states",
    ),
    "position_of_clip_embedding": _while(
        _no_clip,
        "while clip_channels is null",
        "says where CLIP states go, and without clip_channels there are none",
    ),
    "add_ref_latent_in_control_model": _always(
        "in_channels says the same: 48 and 38 hold 16 channels of a reference image, 32 holds none"
    ),
    "enable_zero_in_inpaint": _among_or(
        "enable_zero_in_inpaint",
        (True,),
        _not_inpaint,
        "unless in_channels is 33",
        "all inpaint channels are zero where nothing is kept",
    ),
    # These the class here takes as arguments; what they do is done outside of it.
    "time_position_encoding_type": _among(
        "time_position_encoding_type", ("3d_rope",), "the rotary table of frame, row and column"
    ),
    "resize_inpaint_mask_directly": _among_or(
        "resize_inpaint_mask_directly",
        (True,),
        _not_inpaint,
        "unless in_channels is 33",
        "the mask is scaled to the latents' grid and does not pass the VAE",
    ),
    "enable_text_attention_mask": _among(
        "enable_text_attention_mask", (True,), "the text encoder does not attend to padding"
    ),
}

VAE: Mapping[str, Harmless] = {
    "vae_type": _among("vae_type", ("AutoencoderKLMagvit",), "names the class, as in the yaml"),
    "force_upcast": _always("an argument of the original class that nothing reads (0.0)"),
    "sample_size": _always("no argument of the original class (0.0)"),
    "norm_type": _unset("norm_type", "no argument of the original class (0.0)"),
    "cache_mag_vae": _among(
        "cache_mag_vae",
        (True,),
        "the caches of the causal convolutions, which encode and decode here too; without them "
        "the published pipelines smooth the frames and place masks otherwise",
    ),
    **{
        key: _among_or(
            key,
            (False,),
            _cached,
            "while cache_mag_vae is true",
            "looked at only without cache_mag_vae (0.0)",
        )
        for key in ("slice_mag_vae", "slice_compression_vae", "cache_compression_vae")
    },
    **{
        key: Harmless(
            _mini_batches,
            "4 and 1 for mini_batch_encoder and mini_batch_decoder, or equal multiples of both "
            "while spatial_group_norm is true",
            "how many frames and latents go through at once: the caches carry over (0.0)",
        )
        for key in ("mini_batch_encoder", "mini_batch_decoder")
    },
    **{
        key: _among(
            key,
            (False,),
            "large frames are encoded and decoded in one piece; tiles are asked for with "
            "--tiled-decode",
        )
        for key in _TILING
    },
    **{
        key: _while(
            _untiled,
            "while use_tiling, use_tiling_encoder and use_tiling_decoder are false",
            "the size of tiles, of which there are none (0.0)",
        )
        for key in ("tile_sample_min_size", "tile_overlap_factor")
    },
    "upcast_vae": _among(
        "upcast_vae", (False,), "the VAE computes in the dtype that is asked for, not in float32"
    ),
    "mid_block_type": _among("mid_block_type", ("MidBlock3D",), "the one middle block there is"),
    "mid_block_use_attention": _among(
        "mid_block_use_attention", (False,), "the middle block has no attention"
    ),
    **{
        key: _while(
            _without_attention,
            "while mid_block_use_attention is false",
            "of the middle block's attention, which it has not got (0.0)",
        )
        for key in ("mid_block_attention_type", "mid_block_num_attention_heads")
    },
    "num_attention_heads": _always(
        "of blocks with attention, which down_block_types and up_block_types may not name (0.0)"
    ),
    "use_gc_blocks": Harmless(
        lambda config: not _any_true(config["use_gc_blocks"]),
        "null, false or a list of false",
        "no block adds global context (0.0)",
    ),
    **dict.fromkeys(
        ("ch", "ch_mult"),
        _always("read where block_out_channels is null, which says the widths otherwise (0.0)"),
    ),
}

# diffusers' FlowMatchEulerDiscreteScheduler. The table is V5.1's (sigmas.py): mu = 1, exponential.
SCHEDULER: Mapping[str, Harmless] = {
    "shift": _always("used only without dynamic shifting, which is refused"),
    **dict.fromkeys(
        ("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len"),
        _always("only to compute mu from a clip's size; V5.1's pipelines give mu = 1"),
    ),
    "time_shift_type": _among("time_shift_type", ("exponential",), "the table that V5.1 uses"),
    "shift_terminal": _unset("shift_terminal", "the table ends at 0.0027 and 0, not stretched"),
    "invert_sigmas": _among("invert_sigmas", (False,), "sigmas run from 1 to 0"),
    "stochastic_sampling": _among("stochastic_sampling", (False,), "Euler steps without noise"),
    **{
        key: _among(key, (False,), "V5.1's own table")
        for key in ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
    },
}


def _any_true(value: Any) -> bool:
    return any(value) if isinstance(value, (list, tuple)) else bool(value)
