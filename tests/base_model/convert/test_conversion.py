"""Whole checkpoints, both ways: bytes of every file, names of the published implementation."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKLMagvit,
    DiffusionPipeline,
    EasyAnimateTransformer3DModel,
)
from safetensors.torch import load_file, save_file

from base_model.convert.conversion import convert_checkpoint, describe_left_out
from base_model.errors import GeneratorError
from base_model.files.shipped import resolve_checkpoint
from base_model.generator import load_generator
from tests.goldens import FLOW, TRANSFORMERS, WEIGHT_FILE, load_golden, write_checkpoint


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def whole(folder: Path, text: Path, transformer: str = TRANSFORMERS[1]) -> Path:
    """A whole checkpoint in the original layout, of golden weights."""
    write_checkpoint(folder, transformer)
    shutil.copytree(text, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture
def original(tmp_path: Path, text_folder: Path) -> Path:
    return whole(tmp_path / "original", text_folder)


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_original_to_diffusers_and_back(tmp_path: Path, text_folder: Path, name: str) -> None:
    original = whole(tmp_path / "original", text_folder, name)
    (original / "model_index.json").write_text('{"_class_name":"EasyAnimatePipeline"}')
    (original / "README.md").write_text("# about")
    done = convert_checkpoint(original, tmp_path / "diffusers", "diffusers")
    assert (done.before, done.layout, done.left_out) == ("original", "diffusers", ())

    golden = load_golden(name)
    state = load_file(tmp_path / "diffusers" / "transformer" / WEIGHT_FILE)
    assert done.tensors == len(state) + len(load_golden("vae").weights)
    assert not any(".attn2." in key for key in state)
    # diffusers' own loader, strict: it names every missing or unexpected tensor
    loaded, report = EasyAnimateTransformer3DModel.from_pretrained(
        tmp_path / "diffusers" / "transformer", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    published = golden.weights["transformer_blocks.0.attn2.to_out.0.weight"]
    assert torch.equal(loaded.transformer_blocks[0].attn1.to_add_out.weight, published)

    convert_checkpoint(tmp_path / "diffusers", tmp_path / "back", "original")
    assert contents(tmp_path / "back").keys() == contents(original).keys()
    assert (
        load_file(tmp_path / "back" / "transformer" / WEIGHT_FILE).keys() == golden.weights.keys()
    )
    for key, tensor in load_file(tmp_path / "back" / "transformer" / WEIGHT_FILE).items():
        assert torch.equal(tensor.view(torch.uint8), golden.weights[key].view(torch.uint8)), key
    for key, before in contents(original).items():
        if not key.endswith(WEIGHT_FILE):  # the golden files' own headers have no metadata
            assert contents(tmp_path / "back")[key] == before, key


def test_diffusers_to_original_and_back(tmp_path: Path, original: Path) -> None:
    """From what diffusers itself saves; every byte of every file returns."""
    saved = tmp_path / "diffusers"
    generator = load_generator(original, text_encoder=False)
    generator.transformer.save_pretrained(saved / "transformer")
    generator.vae.save_pretrained(saved / "vae")
    for part in ("text_encoder", "tokenizer", "scheduler"):
        shutil.copytree(original / part, saved / part)
    (saved / "model_index.json").write_text('{"_class_name": "EasyAnimateInpaintPipeline"}')

    convert_checkpoint(saved, tmp_path / "there", "original")
    weights = load_file(tmp_path / "there" / "transformer" / WEIGHT_FILE)
    golden = load_golden(TRANSFORMERS[1])
    assert weights.keys() == golden.weights.keys()
    assert all(torch.equal(weights[key], golden.weights[key]) for key in weights)
    config = json.loads((tmp_path / "there" / "transformer" / "config.json").read_text())
    assert golden.config.items() <= config.items()  # the published class's arguments, all of them
    config = json.loads((tmp_path / "there" / "vae" / "config.json").read_text())
    assert load_golden("vae").config.items() <= config.items()

    convert_checkpoint(tmp_path / "there", tmp_path / "back", "diffusers")
    assert contents(tmp_path / "back") == contents(saved)


def test_shipped_generator_there_and_back(tmp_path: Path) -> None:
    tiny = resolve_checkpoint("tiny")
    assert isinstance(tiny, Path)
    convert_checkpoint(tiny, tmp_path / "there", "original")
    convert_checkpoint(tmp_path / "there", tmp_path / "back", "diffusers")
    back = contents(tmp_path / "back")
    assert json.loads(back["model_index.json"])["_class_name"] == "EasyAnimatePipeline"
    assert back == contents(tiny)


@pytest.mark.parametrize(
    ("name", "pipeline"),
    [
        ("transformer_t2v_all_mmdit", "EasyAnimatePipeline"),
        ("transformer_inpaint_7b_style", "EasyAnimateInpaintPipeline"),
        ("transformer_camera_all_mmdit", "EasyAnimateControlPipeline"),
    ],
)
def test_diffusers_opens_the_whole_folder(
    tmp_path: Path, text_folder: Path, name: str, pipeline: str
) -> None:
    original = whole(tmp_path / "original", text_folder, name)
    convert_checkpoint(original, tmp_path / "diffusers", "diffusers")
    opened = DiffusionPipeline.from_pretrained(tmp_path / "diffusers")
    assert type(opened).__name__ == pipeline
    assert isinstance(opened.vae, AutoencoderKLMagvit)
    assert opened.scheduler.config.shift == 3.0
    vae = load_golden("vae").weights
    assert all(torch.equal(t, vae[key]) for key, t in opened.vae.state_dict().items())


def test_shards(tmp_path: Path, original: Path) -> None:
    done = convert_checkpoint(original, tmp_path / "shards", "diffusers", max_shard_size="200KB")
    part = tmp_path / "shards" / "transformer"
    files = sorted(part.glob("*.safetensors"))
    assert len(files) > 1
    assert files[0].name == f"diffusion_pytorch_model-00001-of-{len(files):05d}.safetensors"
    assert all(sum(t.nbytes for t in load_file(file).values()) <= 200_000 for file in files)
    generator = load_generator(tmp_path / "shards", text_encoder=False)
    reference = load_generator(original, text_encoder=False)
    expected = reference.transformer.state_dict()
    state = generator.transformer.state_dict()
    assert all(torch.equal(state[key], expected[key]) for key in expected)
    EasyAnimateTransformer3DModel.from_pretrained(part)  # reads the index
    golden = [load_golden(name).weights for name in ("vae", TRANSFORMERS[1])]
    numbers = sum(tensor.nbytes for weights in golden for tensor in weights.values())
    rest = ("text_encoder", "tokenizer", "scheduler")
    copied = [v for key, v in contents(original).items() if key.startswith(rest)]
    assert done.nbytes == numbers + sum(map(len, copied))
    convert_checkpoint(tmp_path / "shards", tmp_path / "back", "original")
    back = load_file(tmp_path / "back" / "transformer" / WEIGHT_FILE)
    assert back.keys() == golden[1].keys()
    assert all(torch.equal(back[key], golden[1][key]) for key in back)
    with pytest.raises(GeneratorError, match="'many' is invalid"):
        convert_checkpoint(original, tmp_path / "no", "diffusers", max_shard_size="many")
    with pytest.raises(GeneratorError, match="'-3GB' is invalid: it is below 0"):
        convert_checkpoint(original, tmp_path / "no", "diffusers", max_shard_size="-3GB")


def test_dtype(tmp_path: Path, original: Path) -> None:
    convert_checkpoint(original, tmp_path / "half", "original", dtype=torch.bfloat16)
    half = load_file(tmp_path / "half" / "transformer" / WEIGHT_FILE)
    for key, tensor in load_golden(TRANSFORMERS[1]).weights.items():
        assert torch.equal(half[key], tensor.to(torch.bfloat16))
    assert contents(tmp_path / "half" / "text_encoder") == contents(original / "text_encoder")
    assert contents(tmp_path / "half" / "vae").keys() == contents(original / "vae").keys()


def test_a_config_changed_in_between_counts(tmp_path: Path, original: Path) -> None:
    """What is kept of the other layout is stale then and not used."""
    there = tmp_path / "there"
    convert_checkpoint(original, there, "diffusers")
    assert (there / "vae" / "config.original.json").is_file()
    edit_json(there / "vae" / "config.json", scaling_factor=0.5)
    edit_json(there / "transformer" / "config.json")  # the same, written otherwise
    convert_checkpoint(there, tmp_path / "back", "original")
    config = json.loads((tmp_path / "back" / "vae" / "config.json").read_text())
    assert config["scaling_factor"] == 0.5
    assert config["mini_batch_encoder"] == 4
    before = contents(original)["transformer/config.json"]
    assert contents(tmp_path / "back")["transformer/config.json"] == before


def test_progress_counts_every_byte(tmp_path: Path, original: Path) -> None:
    told: list[tuple[str, int, int]] = []
    done = convert_checkpoint(
        original, tmp_path / "new", "diffusers", progress=lambda *event: told.append(event)
    )
    assert told[-1][1:] == (done.nbytes, done.nbytes)
    assert [now for _, now, _ in told] == sorted(now for _, now, _ in told)
    names = {name for name, _, _ in told}
    assert {f"transformer/{WEIGHT_FILE}", "tokenizer/tokenizer.json"} <= names


def test_no_code_and_no_pickles_are_copied(tmp_path: Path, original: Path) -> None:
    (original / "modeling.py").write_text("raise SystemExit")
    (original / "text_encoder" / "own.py").write_text("raise SystemExit")
    (original / "text_encoder" / "old.bin").write_bytes(b"x")
    (original / "assets").mkdir()
    done = convert_checkpoint(original, tmp_path / "new", "diffusers")
    assert done.left_out == ("assets", "modeling.py")
    assert describe_left_out(done).endswith(": assets, modeling.py")
    assert not [key for key in contents(tmp_path / "new") if key.endswith((".py", ".bin"))]


def edit_weights(part: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(part / WEIGHT_FILE)
    edit(weights)
    save_file(weights, part / WEIGHT_FILE)


REFUSED: list[tuple[str, Callable[[Path], Any], str]] = [
    (
        "missing",
        lambda f: edit_weights(f / "transformer", lambda w: w.pop("text_proj.1.bias")),
        r"transformer: the weights do not fit.*1 missing: text_proj\.1\.bias\.",
    ),
    (
        "unexpected",
        lambda f: edit_weights(f / "transformer", lambda w: w.update(x=torch.zeros(1))),
        r"1 unexpected: x\.",
    ),
    (
        "both layouts at once",
        lambda f: edit_weights(
            f / "transformer",
            lambda w: w.update({"transformer_blocks.0.attn1.add_q_proj.bias": torch.zeros(32)}),
        ),
        r"1 present twice, with the names of both layouts: .*0\.attn2\.to_q\.bias and ",
    ),
    (
        "attention",
        lambda f: edit_weights(
            f / "vae",
            lambda w: w.update({"decoder.mid_block.attentions.0.to_k.bias": torch.zeros(2)}),
        ),
        r"1 mid-block attention tensors \(decoder\.mid_block\.attentions\.0\.to_k\.bias\).*V5;",
    ),
    (
        "second text encoder",
        lambda f: edit_json(f / "transformer" / "config.json", text_embed_dim_t5=2048),
        r"text_embed_dim_t5 is 2048.*V5 or older",
    ),
    (
        "DDIM",
        lambda f: edit_json(f / "scheduler" / "scheduler_config.json", _class_name="DDIMScheduler"),
        "the scheduler is DDIMScheduler.*V5 or older",
    ),
    (
        "no scheduler",
        lambda f: shutil.rmtree(f / "scheduler"),
        r"no scheduler/scheduler_config\.json, which distinguishes V5\.1 from V5",
    ),
    (
        "no tokenizer",
        lambda f: shutil.rmtree(f / "tokenizer"),
        "no complete checkpoint: it lacks tokenizer/",
    ),
    (
        "another text encoder",
        lambda f: edit_json(f / "text_encoder" / "config.json", model_type="bert"),
        "the text encoder is 'bert'",
    ),
    (
        "damaged config",
        lambda f: (f / "vae" / "config.json").write_text("{"),
        r"vae/config\.json cannot be read as JSON",
    ),
]


@pytest.mark.parametrize(
    ("spoil", "message"), [r[1:] for r in REFUSED], ids=[r[0].replace(" ", "-") for r in REFUSED]
)
def test_refused(
    tmp_path: Path, original: Path, spoil: Callable[[Path], Any], message: str
) -> None:
    spoil(original)
    with pytest.raises(GeneratorError, match=f"(?s){message}"):
        convert_checkpoint(original, tmp_path / "new", "diffusers")
    assert [path.name for path in tmp_path.iterdir()] == ["original"]


def test_the_layout_it_has_already(tmp_path: Path, original: Path) -> None:
    with pytest.raises(GeneratorError, match="is already in the original layout"):
        convert_checkpoint(original, tmp_path / "new", "original")


def test_nothing_is_replaced(tmp_path: Path, original: Path) -> None:
    (tmp_path / "new").mkdir()
    with pytest.raises(GeneratorError, match=r"new already exists\. Choose another folder"):
        convert_checkpoint(original, tmp_path / "new", "diffusers")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(GeneratorError, match="link already exists"):
        convert_checkpoint(original, tmp_path / "link", "diffusers")


def test_a_stopped_conversion_leaves_nothing(tmp_path: Path, original: Path) -> None:
    def stop(file: str, done: int, total: int) -> None:
        assert not (tmp_path / "new").exists()
        if file.startswith("text_encoder/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_checkpoint(original, tmp_path / "new", "diffusers", progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["original"]


def test_a_full_disk_is_told(
    tmp_path: Path, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(GeneratorError, match=r"needs 0\.0 GB and .* has 0\.0 GB free"):
        convert_checkpoint(original, tmp_path / "new", "diffusers")
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    with pytest.raises(
        GeneratorError, match=r"new could not be written: .*No files are left behind"
    ):
        convert_checkpoint(original, tmp_path / "file" / "new", "diffusers")


def test_the_flow_is_copied(tmp_path: Path, original: Path) -> None:
    convert_checkpoint(original, tmp_path / "new", "diffusers")
    assert json.loads(contents(tmp_path / "new")["scheduler/scheduler_config.json"]) == FLOW
