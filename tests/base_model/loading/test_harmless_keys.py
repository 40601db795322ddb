"""Which keys of a config do nothing and which are refused, from the published config outwards."""

import json
from pathlib import Path
from typing import Any

import pytest
from diffusers import AutoencoderKLMagvit, EasyAnimateTransformer3DModel

from base_model.errors import GeneratorError
from base_model.loading.harmless_keys import COMMON, SCHEDULER, TRANSFORMER, VAE
from base_model.loading.model_configs import (
    check_scheduler,
    transformer_arguments_of,
    vae_arguments_of,
)
from tests.published_layout import CHANNELS, Kind, published, transformer_config

HERE = Path("somewhere/config.json")


def vae(**changes: Any) -> dict[str, Any]:
    config = published("vae") | changes
    config = {key: value for key, value in config.items() if value != "DELETE"}
    return vae_arguments_of(HERE, config, AutoencoderKLMagvit)


def transformer(kind: Kind = "control", **changes: Any) -> dict[str, Any]:
    config = transformer_config("7b", kind) | changes
    return transformer_arguments_of(HERE, config, EasyAnimateTransformer3DModel)


# Each was run on the original class: a small random AutoencoderKLMagvit of EasyAnimate c2a70d1
# gives the same latents and frames to the bit (2026-11-29, 17 frames in float64).
@pytest.mark.parametrize(
    "changes",
    [
        {"force_upcast": False},
        {"sample_size": 64},
        {"norm_type": "DELETE"},
        {"mid_block_attention_type": "3d"},
        {"mid_block_num_attention_heads": 4},
        {"num_attention_heads": 8},
        {"slice_mag_vae": True},
        {"slice_compression_vae": True},
        {"cache_compression_vae": True},
        {"mini_batch_encoder": 8, "mini_batch_decoder": 2},
        {"tile_sample_min_size": 16},
        {"tile_overlap_factor": 0.5},
        {"use_gc_blocks": [False] * 4},
        {"ch": 64, "ch_mult": [1, 2]},
        {"block_out_channels": None, "ch": 128, "ch_mult": [1, 2, 4, 4]},
    ],
    ids=str,
)
def test_what_the_original_vae_ignores(changes: dict[str, Any]) -> None:
    assert vae(**changes) == vae()


# Of these the original class or its pipelines give something else.
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"cache_mag_vae": False}, r"cache_mag_vae is False.*only \(True,\)"),
        ({"cache_mag_vae": "DELETE", "slice_mag_vae": True}, "slice_mag_vae is True"),
        ({"cache_mag_vae": "DELETE", "slice_compression_vae": True}, "slice_compression_vae is T"),
        ({"cache_mag_vae": "DELETE", "cache_compression_vae": True}, "cache_compression_vae is T"),
        ({"mini_batch_encoder": 9}, "mini_batch_encoder is 9.*4 and 1"),
        ({"mini_batch_encoder": 8}, "mini_batch_encoder is 8.*equal multiples"),
        ({"mini_batch_decoder": 0}, "mini_batch_"),
        (
            {"mini_batch_encoder": 8, "mini_batch_decoder": 2, "spatial_group_norm": False},
            "mini_batch_encoder is 8",
        ),
        ({"use_tiling": True}, "use_tiling is True.*--tiled-decode"),
        ({"use_tiling_decoder": True}, "use_tiling_decoder is True"),
        ({"use_tiling_encoder": True}, "use_tiling_encoder is True"),
        ({"upcast_vae": True}, "upcast_vae is True.*float32"),
        ({"mid_block_use_attention": True}, "mid_block_use_attention is True"),
        ({"mid_block_type": "UNetMidBlock3D"}, "mid_block_type is 'UNetMidBlock3D'"),
        ({"use_gc_blocks": [False, True, False, False]}, r"use_gc_blocks is \[False, True"),
        ({"norm_type": "layer"}, "norm_type is 'layer'.*only null"),
        ({"down_block_types": ["SpatialTemporalAttnDownBlock3D"] * 4}, "down_block_types is"),
        ({"up_block_types": "os.getcwd()"}, r"up_block_types is 'os\.getcwd\(\)'"),
        ({"up_block_types": "(" * 300}, "up_block_types is"),
        ({"block_out_channels": None, "ch": 8, "ch_mult": "1, 2"}, "ch is 8 and ch_mult '1, 2'"),
        ({"_class_name": "AutoencoderKLWan"}, "_class_name is 'AutoencoderKLWan'"),
    ],
    ids=str,
)
def test_what_it_does_not_ignore(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(GeneratorError, match=rf"(?s)somewhere/config\.json: .*{named}") as caught:
        vae(**changes)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("text", {"position_of_clip_embedding": "full"}),
        ("text", {"enable_clip_in_inpaint": True}),
        ("text", {"enable_zero_in_inpaint": False}),
        ("text", {"resize_inpaint_mask_directly": False}),
        ("inpaint", {"enable_zero_in_inpaint": True}),
        ("control", {"add_ref_latent_in_control_model": False}),
        ("control", {"transformer_type": "EasyAnimateTransformer3DModel"}),
        # diffusers' EMAModel, with which EasyAnimate's trainer saves, writes these.
        ("text", {"decay": 0.9999, "inv_gamma": 1.0, "min_decay": 0.0, "optimization_step": 9}),
        ("text", {"power": 0.67, "update_after_step": 0, "use_ema_warmup": False}),
        # Other tools' notes.
        ("text", {"torch_dtype": "bfloat16", "transformers_version": "4.46.3", "dtype": "float16"}),
        ("text", {"_name_or_path": "x", "_use_default_values": ["dropout"], "_commit": None}),
        ("text", {"quantization_config": None, "never_seen": None}),
    ],
    ids=str,
)
def test_what_the_original_transformer_ignores(kind: Kind, changes: dict[str, Any]) -> None:
    arguments = transformer(kind, **changes)
    taken = changes.keys() & arguments.keys()
    assert arguments == transformer(kind) | {key: changes[key] for key in taken}


@pytest.mark.parametrize(
    ("kind", "changes", "named"),
    [
        ("inpaint", {"enable_zero_in_inpaint": False}, "enable_zero_in_inpaint is False"),
        ("inpaint", {"resize_inpaint_mask_directly": False}, "resize_inpaint_mask_directly is Fal"),
        ("text", {"enable_text_attention_mask": False}, "enable_text_attention_mask is False"),
        ("text", {"time_position_encoding_type": "2d_rope"}, "time_position_encoding_type is '2d_"),
        ("text", {"after_norm": True}, r"after_norm is True.*\(False,\)"),
        ("text", {"after_norm": 0}, "after_norm is 0"),
        ("text", {"clip_channels": 768}, "clip_channels is 768.*only null"),
        ("text", {"ref_channels": 16}, "ref_channels is 16"),
        ("text", {"quantization_config": {"q": 8}}, "quantization_config is .*generator.quantise"),
        ("text", {"qk_norm": False}, "qk_norm is False.*no such key.*remove the key"),
        ("text", {"x" * 20: "y" * 9999}, "xxx is 'yyy.*no such key"),
        ("text", {"_class_name": "HunyuanTransformer3DModel"}, "_class_name is 'Hunyuan"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_changes_the_transformer(kind: Kind, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(GeneratorError, match=rf"(?s)somewhere/config\.json: .*{named}") as caught:
        transformer(kind, **changes)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"shift": 1.0, "max_shift": 3.0, "time_shift_type": "exponential"}, None),
        ({"invert_sigmas": False, "use_karras_sigmas": None, "shift_terminal": None}, None),
        ({"use_karras_sigmas": True}, "use_karras_sigmas is True"),
        ({"invert_sigmas": True}, "invert_sigmas is True"),
        ({"time_shift_type": "linear"}, "time_shift_type is 'linear'"),
        ({"shift_terminal": 0.02}, "shift_terminal is 0.02.*only null"),
        ({"stochastic_sampling": True}, "stochastic_sampling is True"),
        ({"prediction_type": "v_prediction"}, "prediction_type is 'v_prediction'.*no such key"),
        ({"num_train_timesteps": 500}, "num_train_timesteps is 500"),
    ],
    ids=str,
)
def test_the_scheduler(tmp_path: Path, changes: dict[str, Any], named: str | None) -> None:
    (tmp_path / "scheduler").mkdir()
    path = tmp_path / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(published("scheduler") | changes))
    if named is None:
        check_scheduler(tmp_path)
        return
    with pytest.raises(GeneratorError, match=named):
        check_scheduler(tmp_path)


def test_each_key_has_its_reason() -> None:
    for table in (COMMON, TRANSFORMER, VAE, SCHEDULER):
        for key, rule in table.items():
            assert len(rule.reason) > 10, key
            assert rule.allowed, key


def test_every_published_key_is_taken_or_has_a_reason() -> None:
    for kind in CHANNELS:
        taken = transformer(kind).keys()
        keys = {key for key in transformer_config("7b", kind) if not key.startswith("_")}
        assert keys <= taken | TRANSFORMER.keys()
    assert {key for key in published("vae") if not key.startswith("_")} <= vae().keys() | VAE.keys()


@pytest.mark.parametrize("scale", ["x", 0, -1.0, float("nan"), float("inf"), 10**400, True, [0.7]])
def test_a_scaling_factor_that_is_none_is_refused(scale: Any) -> None:
    with pytest.raises(GeneratorError, match=r"scaling_factor is .*a finite number above 0"):
        vae(scaling_factor=scale)


def test_more_layers_than_can_be_built_are_refused() -> None:
    with pytest.raises(GeneratorError, match="layers_per_block is 1000000000; at most 1000"):
        vae(layers_per_block=10**9)
    with pytest.raises(GeneratorError, match="num_layers is 1000000000; at most 1000"):
        transformer(num_layers=10**9)
