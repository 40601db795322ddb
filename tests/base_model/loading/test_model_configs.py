"""Published configs become the arguments of networks of the published size."""

from pathlib import Path

import pytest
from diffusers import AutoencoderKLMagvit, EasyAnimateTransformer3DModel

from base_model.generator import load_generator
from base_model.loading.checkpoint import empty_model
from base_model.loading.model_configs import transformer_arguments
from tests.base_model.loading.test_checkpoint import edit_config
from tests.goldens import load_golden, write_part


# Parameter counts of the published inpaint checkpoints (33 channels), from the hub's metadata; the
# others have 3072 * 2 * 2 weights of the patch embedding more or less for each input channel.
@pytest.mark.parametrize("channels", [16, 33, 38, 48])
@pytest.mark.parametrize(
    ("layers", "mmdit_layers", "published"),
    [(36, 18, 6_814_670_912), (48, 48, 11_799_265_856)],
    ids=["7b", "12b"],
)
def test_full_size_on_the_meta_device(
    tmp_path: Path, channels: int, layers: int, mmdit_layers: int, published: int
) -> None:
    golden = load_golden("transformer_inpaint_7b_style").config
    full = {
        "num_attention_heads": 48,
        "attention_head_dim": 64,
        "in_channels": channels,
        "num_layers": layers,
        "mmdit_layers": mmdit_layers,
        "time_embed_dim": 512,
        "text_embed_dim": 3584,
        "add_noise_in_inpaint_model": True,
        "swa_layers": None,
        "ref_channels": None,
        "clip_channels": None,
    }
    write_part(tmp_path / "transformer", golden | full, {})
    arguments = transformer_arguments(tmp_path / "transformer", EasyAnimateTransformer3DModel)
    model = empty_model(EasyAnimateTransformer3DModel, arguments)
    expected = published + (channels - 33) * 3072 * 2 * 2
    assert sum(p.numel() for p in model.parameters()) == expected
    assert all(p.is_meta for p in model.parameters())


def test_full_size_vae_on_the_meta_device() -> None:
    model = empty_model(AutoencoderKLMagvit, {})
    assert sum(p.numel() for p in model.parameters()) == 244_375_507
    assert len(model.state_dict()) == 228


def test_harmless_keys_of_original_configs_are_left_out(folder: Path) -> None:
    edit_config(
        folder / "transformer", swa_layers=None, ref_channels=None, anything_new=None, _private=3
    )
    # The original VAE config gives widths as ch * ch_mult, and lists as text.
    blocks = load_golden("vae").config["down_block_types"]
    edit_config(folder / "vae", block_out_channels="DELETE", down_block_types=str(tuple(blocks)))
    generator = load_generator(folder, text_encoder=False)
    assert list(generator.vae.config.block_out_channels) == [8, 16, 16, 16]
    assert generator.transformer.config.norm_eps == 1e-5
