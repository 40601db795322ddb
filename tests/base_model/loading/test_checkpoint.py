import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import EasyAnimateTransformer3DModel
from safetensors.torch import load_file, save_file

from base_model.errors import GeneratorError
from base_model.generator import Condition, load_generator
from base_model.loading.checkpoint import empty_model, load_transformer, load_vae
from tests.goldens import FLOW, WEIGHT_FILE, load_golden, write_checkpoint, write_part


def edit_config(part: Path, **changes: Any) -> None:
    path = part / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v != "DELETE"}))


def edit_weights(part: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(part / WEIGHT_FILE)
    edit(weights)
    save_file(weights, part / WEIGHT_FILE)


@pytest.mark.parametrize("shards", [False, True])
def test_diffusers_layout_loads_as_the_original(folder: Path, tmp_path: Path, shards: bool) -> None:
    original = load_generator(folder, text_encoder=False)
    saved = tmp_path / "diffusers"
    size = "150KB" if shards else "1GB"
    original.transformer.save_pretrained(saved / "transformer", max_shard_size=size)
    original.vae.save_pretrained(saved / "vae", max_shard_size=size)
    assert (len(list((saved / "transformer").glob("*.safetensors"))) > 1) == shards
    loaded = load_generator(saved, text_encoder=False)
    expected = original.transformer.state_dict()
    state = loaded.transformer.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], expected[key]) for key in state)
    assert loaded.transformer.config.mmdit_layers == 2
    noise = torch.randn(1, 16, 1, 4, 4)
    condition = Condition(load_golden("sampling_7b_style").tensors["in.text"])
    assert torch.equal(
        loaded.velocity(noise, 0.5, condition), original.velocity(noise, 0.5, condition)
    )
    assert torch.equal(loaded.decode(noise), original.decode(noise))


def test_loaded_frozen_in_eval_mode_and_dtype(folder: Path) -> None:
    generator = load_generator(str(folder), dtype=torch.bfloat16, text_encoder=False)
    for model in (generator.transformer, generator.vae):
        assert not model.training
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
        assert not any(p.requires_grad for p in model.parameters())
        assert not any(p.is_meta for p in model.parameters())
    golden = load_golden("sampling_7b_style").weights["proj.weight"]
    assert torch.equal(generator.transformer.proj.weight, golden.to(torch.bfloat16))


def test_weights_do_not_change_with_their_file(folder: Path) -> None:
    transformer = load_transformer(folder)
    path = folder / "transformer" / WEIGHT_FILE
    before = transformer.proj.weight.clone()
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(transformer.proj.weight, before)


def test_every_layout_of_channels_loads(tmp_path: Path) -> None:
    channels = {}
    for name in ("inpaint_7b_style", "control_7b_style", "camera_all_mmdit", "t2v_all_mmdit"):
        folder = write_checkpoint(tmp_path / name, f"transformer_{name}")
        channels[name] = load_transformer(folder).proj.in_channels
    assert list(channels.values()) == [33, 48, 38, 16]


PROJ, BIAS = "proj.weight", "proj_out.bias"
SPOILED: list[tuple[str, Callable[[Path], Any], str]] = [
    (
        "missing key",
        lambda f: edit_weights(f / "transformer", lambda w: w.pop(BIAS)),
        rf"transformer: the weights do not fit.*Tensors 1 missing: {BIAS}\.",
    ),
    (
        "unexpected key",
        lambda f: edit_weights(f / "vae", lambda w: w.update({"extra.x": torch.zeros(2)})),
        r"vae: the weights do not fit.*1 unexpected: extra\.x\.",
    ),
    (
        "wrong shape",
        lambda f: edit_config(f / "transformer", in_channels=33),
        rf"1 of another shape: {PROJ} \(32, 16, 2, 2\) instead of \(32, 33, 2, 2\)",
    ),
    (
        "fewer layers than weights",
        lambda f: edit_config(f / "transformer", num_layers=3),
        r"24 unexpected: transformer_blocks\.3\.attn1\.norm_k\.bias, .* and 18 more",
    ),
    (
        "mmdit layers",
        lambda f: edit_config(f / "transformer", mmdit_layers=1),
        r"unexpected: transformer_blocks\.1\.attn1\.add_k_proj",
    ),
    (
        "truncated",
        lambda f: (f / "transformer" / WEIGHT_FILE).write_bytes(
            (f / "transformer" / WEIGHT_FILE).read_bytes()[:100_000]
        ),
        r"diffusion_pytorch_model\.safetensors \(100,000 bytes\) cannot be read .*truncated",
    ),
    (
        "empty file",
        lambda f: (f / "vae" / WEIGHT_FILE).write_bytes(b""),
        r"vae/diffusion_pytorch_model\.safetensors \(0 bytes\) cannot be read",
    ),
    (
        "pickled weights",
        lambda f: (f / "vae" / WEIGHT_FILE).rename(f / "vae" / "diffusion_pytorch_model.bin"),
        r"only pickled weights \(diffusion_pytorch_model\.bin\).* Save the model again as",
    ),
    (
        "no weights",
        lambda f: (f / "vae" / WEIGHT_FILE).unlink(),
        r"vae holds no \*\.safetensors file",
    ),
    (
        "two files",
        lambda f: shutil.copy(f / "vae" / WEIGHT_FILE, f / "vae" / "other.safetensors"),
        r"holds 2 safetensors files .*Keep one file",
    ),
    (
        "missing shard",
        lambda f: (f / "vae" / "x.safetensors.index.json").write_text(
            json.dumps({"weight_map": {"a": WEIGHT_FILE, "b": "gone.safetensors"}})
        ),
        r"names 2 files, of which 1 are missing: gone\.safetensors",
    ),
    ("no vae", lambda f: shutil.rmtree(f / "vae"), r"lacks vae/; it holds scheduler, transformer"),
    (
        "no config",
        lambda f: (f / "vae" / "config.json").unlink(),
        r"vae/config\.json is missing",
    ),
    (
        "broken config",
        lambda f: (f / "vae" / "config.json").write_text('{"a": '),
        r"vae/config\.json cannot be read as JSON",
    ),
    (
        "config is a list",
        lambda f: (f / "vae" / "config.json").write_text("[]"),
        r"must hold a JSON object, got a list",
    ),
    (
        "second text encoder",
        lambda f: edit_config(f / "transformer", text_embed_dim_t5=2048),
        r"text_embed_dim_t5 is 2048, for a second text encoder\. That is an EasyAnimateV5 or older",
    ),
    (
        "after norm",
        lambda f: edit_config(f / "transformer", after_norm=True),
        r"after_norm is True, and EasyAnimateTransformer3DModel supports only \(False,\)",
    ),
    (
        "window attention",
        lambda f: edit_config(f / "transformer", swa_layers=[1, 3]),
        r"swa_layers is \[1, 3\]",
    ),
    (
        "unknown key",
        lambda f: edit_config(f / "transformer", sparse_heads=4),
        r"sparse_heads is 4, and EasyAnimateTransformer3DModel supports no such key",
    ),
    (
        "config without channels",
        lambda f: edit_config(f / "transformer", in_channels="DELETE"),
        r"transformer/config\.json lacks in_channels",
    ),
    (
        "vae without group norm kind",
        lambda f: edit_config(f / "vae", spatial_group_norm="DELETE"),
        r"vae/config\.json lacks spatial_group_norm",
    ),
    (
        "vae attention by config",
        lambda f: edit_config(f / "vae", mid_block_use_attention=True),
        r"mid_block_use_attention is True",
    ),
    (
        "vae attention by weights",
        lambda f: edit_weights(
            f / "vae",
            lambda w: w.update({"encoder.mid_block.attentions.0.to_q.weight": torch.zeros(1)}),
        ),
        r"1 mid-block attention tensors \(encoder\.mid_block\.attentions\.0\.to_q\.weight\).*V5;",
    ),
    (
        "DDIM",
        lambda f: (f / "scheduler" / "scheduler_config.json").write_text(
            json.dumps({"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"})
        ),
        r"the scheduler is DDIMScheduler, not FlowMatchEulerDiscreteScheduler\. That is",
    ),
    (
        "static shift",
        lambda f: (f / "scheduler" / "scheduler_config.json").write_text(
            json.dumps(FLOW | {"use_dynamic_shifting": False})
        ),
        r"use_dynamic_shifting is False, V5\.1's flow has True",
    ),
]


@pytest.mark.parametrize(
    ("spoil", "message"), [s[1:] for s in SPOILED], ids=[s[0].replace(" ", "-") for s in SPOILED]
)
def test_a_spoiled_checkpoint_is_told(
    folder: Path, spoil: Callable[[Path], Any], message: str
) -> None:
    load_generator(folder, text_encoder=False)
    spoil(folder)
    with pytest.raises(GeneratorError, match=f"(?s){message}"):
        load_generator(folder, text_encoder=False)


def test_a_checkpoint_without_scheduler_loads(folder: Path) -> None:
    shutil.rmtree(folder / "scheduler")
    load_generator(folder, text_encoder=False)


def test_with_text_encoder(folder: Path, text_folder: Path) -> None:
    shutil.copytree(text_folder, folder, dirs_exist_ok=True)
    generator = load_generator(folder)
    text = generator.encode_prompts(["a red ball", "a"], ["", "bad"])
    assert text.positive.shape == text.negative.shape == (2, 96, 48)
    condition = generator.condition(text)
    noise = generator.initial_noise(generator.latent_shape(2, 5, 32, 32), [0, 1])
    assert generator.velocity(noise, 1.0, condition.positive).isfinite().all()
    with pytest.raises(GeneratorError, match="Got 2 prompts and 1 negative"):
        generator.encode_prompts(["a", "b"], [""])


def test_a_text_encoder_of_another_checkpoint(tmp_path: Path, text_folder: Path) -> None:
    golden = load_golden("sampling_7b_style")
    folder = write_checkpoint(tmp_path / "checkpoint")
    weights = golden.weights
    weights["text_proj.0.weight"] = torch.ones(32)
    weights["text_proj.1.weight"] = torch.ones(32, 32)
    write_part(folder / "transformer", golden.config | {"text_embed_dim": 32}, weights)
    shutil.copytree(text_folder, folder, dirs_exist_ok=True)
    with pytest.raises(GeneratorError, match="states have 48 channels, the transformer takes 32"):
        load_generator(folder)


def test_an_activation_that_there_is_not_is_told() -> None:
    with pytest.raises(GeneratorError, match="describes no EasyAnimateTransformer3DModel"):
        empty_model(EasyAnimateTransformer3DModel, {"activation_fn": "zz", "num_layers": 1})


def test_an_unreachable_hub_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The real client, made offline, with an empty cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        GeneratorError, match=r"'org/name' is not in the local cache .*hf download org/name --local"
    ):
        load_generator("org/name")


def test_vae_alone(checkpoint: Path) -> None:
    vae = load_vae(checkpoint, dtype=torch.float64)
    assert {p.dtype for p in vae.parameters()} == {torch.float64}
