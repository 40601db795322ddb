"""Merged checkpoints: the golden velocity, dtypes, shards, layouts, memory, interruptions."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, EasyAnimateTransformer3DModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from base_model.convert.conversion import Progress
from base_model.errors import GeneratorError
from base_model.files.weight_files import find_weights
from base_model.generator import Generator, load_generator
from base_model.loading.key_map import Layout, to_original
from reward_tuning.errors import TuningError
from reward_tuning.lora.adapter import LoraWeights, attach_weights, linear_modules, scaled
from reward_tuning.lora.export import FORMATS, export_adapter, import_adapter
from reward_tuning.lora.merging import Merged, merge_into_checkpoint
from reward_tuning.lora.module_shapes import transformer_shapes
from tests.base_model.conftest import checkpoint, text_folder
from tests.goldens import WEIGHT_FILE, load_golden, relative, write_part
from tests.reward_tuning.full_disk import largest_file
from tests.reward_tuning.golden_model import GRADIENTS, LORA, golden_condition
from tests.reward_tuning.lora.test_export import NAMES

__all__ = ["checkpoint", "text_folder"]  # fixtures
NOISE = load_golden("sampling_7b_style").tensors["in.noise"]
MB = 2**20


@pytest.fixture(scope="module")
def base(checkpoint: Path, text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole checkpoint: the golden transformer and VAE, a random text encoder."""
    folder = tmp_path_factory.mktemp("base") / "base"
    shutil.copytree(checkpoint, folder)
    shutil.copytree(text_folder, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture
def golden(base: Path) -> LoraWeights:
    return import_adapter(LORA, transformer_shapes(base))


def velocity(generator: Generator, sigma: float = 0.5) -> Tensor:
    with torch.no_grad():
        return generator.velocity(NOISE, sigma, golden_condition().positive)


def opened(folder: Path) -> Generator:
    return load_generator(folder, text_encoder=False)


def tuned(base: Path, weights: LoraWeights) -> Generator:
    generator = opened(base)
    attach_weights(generator.transformer, weights)
    return generator


# --- the golden LoRA


@pytest.mark.parametrize("layout", ["original", "diffusers"])
@pytest.mark.parametrize("format", FORMATS)
def test_the_golden_velocity_after_import_re_export_and_merging(
    base: Path, golden: LoraWeights, tmp_path: Path, format: str, layout: Layout
) -> None:
    path = export_adapter(golden, tmp_path / NAMES[format], format)
    again = import_adapter(path, transformer_shapes(base))
    done = merge_into_checkpoint(again, base, tmp_path / "merged", layout=layout)
    assert done.checkpoint.layout == layout
    assert done.modules == len(golden.state) > 20
    got = velocity(opened(tmp_path / "merged"))
    assert relative(got, GRADIENTS["out.velocity_with_lora"]) < 1e-5
    assert relative(velocity(opened(base)), GRADIENTS["out.velocity_with_lora"]) > 1e-3
    assert relative(got, velocity(tuned(base, golden))) < 1e-5


@pytest.mark.parametrize("strength", [0.7, 1.25, -1.0])
def test_a_strength_is_baked_in(
    base: Path, golden: LoraWeights, tmp_path: Path, strength: float
) -> None:
    merge_into_checkpoint(golden, base, tmp_path / "merged", strength=strength)
    generator = tuned(base, golden)
    with scaled(generator.transformer, strength):
        expected = velocity(generator)
    assert relative(velocity(opened(tmp_path / "merged")), expected) < 1e-5
    assert relative(velocity(generator), expected) > 1e-4


def test_every_weight_is_the_sum_and_all_others_keep_their_bytes(
    base: Path, golden: LoraWeights, tmp_path: Path
) -> None:
    golden = LoraWeights(golden.rank, golden.alpha, dict(list(golden.state.items())[3:7]))
    merge_into_checkpoint(golden, base, tmp_path / "merged")
    before = load_file(base / "transformer" / WEIGHT_FILE)
    after = load_file(tmp_path / "merged" / "transformer" / WEIGHT_FILE)
    assert before.keys() == after.keys()
    changed = {to_original(path) + ".weight": factors for path, factors in golden.state.items()}
    assert len(changed) == 4
    for name, tensor in before.items():
        if name not in changed:
            assert torch.equal(after[name], tensor), name
            continue
        down, up = changed[name]
        expected = tensor.double() + golden.strength * up.double() @ down.double()
        assert relative(after[name].double(), expected) < 1e-7, name
    for part in ("vae", "text_encoder", "tokenizer", "scheduler"):
        for old in (base / part).iterdir():
            assert (tmp_path / "merged" / part / old.name).stat().st_size > 0
    assert (tmp_path / "merged" / "vae" / WEIGHT_FILE).exists()
    text = "text_encoder/model.safetensors"
    assert (tmp_path / "merged" / text).stat().st_ino == (base / text).stat().st_ino  # a link
    config = "text_encoder/config.json"
    assert (tmp_path / "merged" / config).stat().st_ino != (base / config).stat().st_ino


def test_diffusers_and_we_open_the_result(base: Path, golden: LoraWeights, tmp_path: Path) -> None:
    merge_into_checkpoint(golden, base, tmp_path / "merged", layout="diffusers")
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "merged")
    assert type(pipeline).__name__ == "EasyAnimatePipeline"
    ours = load_generator(tmp_path / "merged")  # with its text encoder
    state = pipeline.transformer.state_dict()
    assert all(torch.equal(t, state[k]) for k, t in ours.transformer.state_dict().items())


# --- dtypes and shards


def test_each_tensor_keeps_its_dtype_and_the_rounding_is_measured(
    base: Path, golden: LoraWeights, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(base, mixed)
    file = mixed / "transformer" / WEIGHT_FILE
    blocks = {
        name: tensor.to(torch.bfloat16) if name.startswith("transformer_blocks") else tensor
        for name, tensor in load_file(file).items()
    }
    save_file(blocks, file, {"format": "pt", "by": "a test", "modelspec.hash_sha256": "stale"})
    done = merge_into_checkpoint(golden, mixed, tmp_path / "merged")
    after = load_file(tmp_path / "merged" / "transformer" / WEIGHT_FILE)
    assert {name: t.dtype for name, t in after.items()} == {n: t.dtype for n, t in blocks.items()}
    lost = norms = 0.0
    for path, (down, up) in golden.state.items():
        name = to_original(path) + ".weight"
        change = golden.strength * up @ down
        # in float32, then rounded once
        assert torch.equal(after[name], (blocks[name].float() + change).to(after[name].dtype))
        made = after[name].double() - blocks[name].double()
        lost += float((made - change).norm()) ** 2
        norms += float(change.double().norm()) ** 2
    assert done.rounding == pytest.approx((lost / norms) ** 0.5, rel=1e-3)
    assert 1e-3 < done.rounding < 0.1
    assert done.rounding_text().startswith(f"{len(golden.state)} layers changed; rounding")
    small = merge_into_checkpoint(golden, mixed, tmp_path / "weak", strength=1e-4)
    assert small.rounding > 0.1
    assert small.rounding_text().startswith("warning: ")
    assert small.rounding_text().endswith("apart from its generator")
    header = find_weights(tmp_path / "merged" / "transformer").metadata
    assert header["by"] == "a test"
    assert header.get("modelspec.hash_sha256") is None


def test_a_dtype_converts_and_one_too_narrow_is_refused(
    base: Path, golden: LoraWeights, tmp_path: Path
) -> None:
    merge_into_checkpoint(golden, base, tmp_path / "half", dtype=torch.bfloat16)
    half = load_file(tmp_path / "half" / "transformer" / WEIGHT_FILE)
    assert {tensor.dtype for tensor in half.values()} == {torch.bfloat16}
    with pytest.raises(TuningError, match="values that float16 cannot hold; use a smaller"):
        merge_into_checkpoint(golden, base, tmp_path / "narrow", dtype=torch.float16, strength=1e9)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["half"]


def test_shards_have_an_index_and_the_same_tensors(
    base: Path, golden: LoraWeights, tmp_path: Path
) -> None:
    merge_into_checkpoint(golden, base, tmp_path / "one")
    merge_into_checkpoint(golden, base, tmp_path / "many", max_shard_size="100KB")
    part = tmp_path / "many" / "transformer"
    files = sorted(part.glob("*.safetensors"))
    assert len(files) > 2
    index = json.loads((part / f"{WEIGHT_FILE}.index.json").read_text())
    assert set(index["weight_map"].values()) == {file.name for file in files}
    one = load_file(tmp_path / "one" / "transformer" / WEIGHT_FILE)
    many = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert one.keys() == many.keys()
    assert all(torch.equal(one[name], many[name]) for name in one)
    assert relative(velocity(opened(tmp_path / "many")), velocity(opened(tmp_path / "one"))) == 0
    headers = {find_weights(part).metadata["reward_tuning.merged"]}
    assert headers == {json.dumps({"strength": 1.0, "rank": 4, "modules": len(golden.state)})}


def test_the_header_says_what_it_is(base: Path, golden: LoraWeights, tmp_path: Path) -> None:
    about = {
        "modelspec.title": "mine",
        "modelspec.license": "MIT",
        "modelspec.usage_hint": "strength",
        "ss_network_dim": "4",
    }
    for layout, code in (
        ("original", "https://github.com/aigc-apps/EasyAnimate"),
        ("diffusers", "diffusers"),
    ):
        merge_into_checkpoint(golden, base, tmp_path / layout, layout=layout, about=about)  # type: ignore[arg-type]
        header = find_weights(tmp_path / layout / "transformer").metadata
        assert header["format"] == "pt"
        assert header["modelspec.implementation"] == code
        assert header["modelspec.architecture"] == "easyanimate-v5.1"
        assert (header["modelspec.title"], header["modelspec.license"]) == ("mine, merged", "MIT")
        assert not {"modelspec.usage_hint", "ss_network_dim"} & header.keys()
        assert "modelspec.title" not in find_weights(tmp_path / layout / "vae").metadata


# --- memory


MEASURE = """
import sys, threading, time
from pathlib import Path
from safetensors.torch import load_file
from reward_tuning.lora.export import import_adapter
from reward_tuning.lora.merging import merge_into_checkpoint
from reward_tuning.lora.module_shapes import transformer_shapes

def held():  # without the pages of mapped files, which the system drops as it likes
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("RssAnon:") + 1]) * 1024

base, lora, target = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
weights = import_adapter(lora, transformer_shapes(base))
before, peak, done = held(), [0], threading.Event()

def watch():
    while not done.is_set():
        peak[0] = max(peak[0], held())
        time.sleep(0.0005)

watcher = threading.Thread(target=watch)
watcher.start()
if target.name == "all":
    kept = {k: t.clone() for k, t in load_file(next((base / "transformer").glob("*.saf*"))).items()}
else:
    merge_into_checkpoint(weights, base, target, max_shard_size="20MB")
done.set()
watcher.join()
print(peak[0] - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the memory is read from Linux's /proc")
def test_the_memory_is_that_of_one_layer(base: Path, tmp_path: Path) -> None:
    """On top of the adapter; the largest layer has 8 MiB in float32, the file 100 MiB."""
    folder = tmp_path / "large"
    shutil.copytree(base, folder)
    config = load_golden("sampling_7b_style").config
    config |= {"num_attention_heads": 8, "attention_head_dim": 64, "num_layers": 14}
    with torch.device("meta"):
        shapes = EasyAnimateTransformer3DModel.from_config(config)
    draw = torch.Generator().manual_seed(0)
    state = {
        to_original(name): torch.randn(tensor.shape, generator=draw, dtype=torch.bfloat16) / 32
        for name, tensor in shapes.state_dict().items()
    }
    write_part(folder / "transformer", config, state)
    size = (folder / "transformer" / WEIGHT_FILE).stat().st_size
    assert size > 90 * MB
    factors = {
        path: (
            torch.randn(8, layer.in_features, generator=draw),
            torch.randn(layer.out_features, 8, generator=draw),
        )
        for path, layer in linear_modules(shapes).items()
    }
    lora = export_adapter(LoraWeights(8, 8.0, factors), tmp_path / "a.safetensors", "original")

    def peak(target: str) -> float:
        command = [sys.executable, "-c", MEASURE, str(folder), str(lora), str(tmp_path / target)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stdout) / MB

    merged = peak("merged")
    assert len(list((tmp_path / "merged" / "transformer").glob("*.safetensors"))) > 4
    # Both with the pages of mapped files, which the system counts as it likes.
    assert merged < 0.75 * peak("all")


# --- interruptions and refusals


def stop_in(part: str, error: type[BaseException]) -> Progress:
    def report(file: str, done: int, total: int) -> None:
        if file.startswith(part):
            raise error("now")

    return report


@pytest.mark.parametrize("part", ["transformer/", "vae/", "text_encoder/"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_nothing(
    base: Path, golden: LoraWeights, tmp_path: Path, part: str, error: type[BaseException]
) -> None:
    with pytest.raises(error):
        merge_into_checkpoint(golden, base, tmp_path / "merged", progress=stop_in(part, error))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(base: Path, golden: LoraWeights, tmp_path: Path) -> None:
    with largest_file(50_000), pytest.raises(GeneratorError, match="merged could not be written"):
        merge_into_checkpoint(golden, base, tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []


Refused = Callable[[LoraWeights, Path, Path], Merged]
REFUSED: dict[str, tuple[Refused, type[Exception], str]] = {
    "exists": (
        lambda w, base, to: merge_into_checkpoint(w, base, to.parent),
        TuningError,
        "exists and is not overwritten",
    ),
    "nothing": (
        lambda w, base, to: merge_into_checkpoint(w, base, to, strength=0.0),
        TuningError,
        "a finite number other than 0",
    ),
    "shard size": (
        lambda w, base, to: merge_into_checkpoint(w, base, to, max_shard_size="many"),
        GeneratorError,
        "'many' is invalid",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refusals(base: Path, golden: LoraWeights, tmp_path: Path, what: str) -> None:
    call, error, message = REFUSED[what]
    with pytest.raises(error, match=message):
        call(golden, base, tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []
