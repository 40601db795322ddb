"""The package of the HPSv2 authors as the oracle: ``hpsv2.score`` on the same random weights.

It is installed without its dependencies (it pins an old pytest): ``pip install --no-deps hpsv2
clint args``. Its wheel lacks a vocabulary file, and it imports ``turtle`` by mistake: the fixture
mends both, the file in a temporary copy of the package.
"""

import importlib
import importlib.util
import shutil
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from rewards import load_reward
from rewards.clip_towers.tokenizers import import_open_clip
from tests.rewards.tiny_clip import frames, hps_file, random_state

# hpsv2's configuration classes know no default that open_clip's would not share.
ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 224, "layers": 2, "width": 32, "head_width": 8, "patch_size": 56},
    "text_cfg": {
        "context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2
    },
}  # fmt: skip


def _installed() -> Path:
    for name in ("hpsv2", "clint"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install --no-deps hpsv2 clint args")
    spec = importlib.util.find_spec("hpsv2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations)))


@pytest.fixture(scope="module")
def hpsv2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """``hpsv2.img_score`` from a mended copy of the package."""
    source, folder = _installed(), tmp_path_factory.mktemp("hpsv2")
    open_clip = import_open_clip()
    ignored = shutil.ignore_patterns("__pycache__", "assets")
    shutil.copytree(source, folder / "hpsv2", ignore=ignored)
    vocabulary = "bpe_simple_vocab_16e6.txt.gz"
    shutil.copy(Path(open_clip.__file__).parent / vocabulary, folder / "hpsv2/src/open_clip")
    before = set(sys.modules)
    turtle = types.ModuleType("turtle")
    turtle.forward = None  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "turtle", turtle)
        patch.syspath_prepend(str(folder))
        module = importlib.import_module("hpsv2.img_score")
        assert Path(module.__file__ or "").is_relative_to(folder)
        yield module
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "hpsv2":
            del sys.modules[name]


@pytest.fixture(scope="module")
def oracle(hpsv2: Any) -> Any:
    """``(PIL image, prompt, checkpoint) -> float`` and the model behind it."""
    clip = importlib.import_module("hpsv2.src.open_clip")
    transform = importlib.import_module("hpsv2.src.open_clip.transform")
    model = clip.CLIP(**ARCHITECTURE, output_dict=True).eval()
    hpsv2.model_dict["model"] = model
    hpsv2.model_dict["preprocess_val"] = transform.image_transform(
        224, is_train=False, resize_longest_max=True
    )
    return hpsv2


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return random_state(ARCHITECTURE)


def pil(frame: Tensor) -> Image.Image:
    return Image.fromarray((frame.permute(1, 2, 0) * 255).round().byte().numpy())


@pytest.mark.parametrize(("height", "width"), [(224, 224), (256, 256), (180, 320), (337, 203)])
def test_score_equals_hpsv2(
    oracle: Any, state: dict[str, Tensor], tmp_path: Path, height: int, width: int
) -> None:
    path = hps_file(tmp_path, state)
    prompts = ["A cat with two horns on its head", "ein Bär & eine “Katze”"]
    # Hard edges: the resize overshoots there, and hpsv2 does not clamp.
    clip = (frames(2, 1, height, width) > 0.5).float()
    ours = load_reward("hps", path, architecture=ARCHITECTURE)(clip, prompts)
    theirs = [
        float(oracle.score(pil(clip[i, 0]), prompt, cp=str(path))[0])
        for i, prompt in enumerate(prompts)
    ]
    assert abs(theirs[0] - theirs[1]) > 1e-3
    torch.testing.assert_close(ours, torch.tensor(theirs), rtol=0, atol=1e-6)


def test_pixel_gradient_equals_hpsv2(oracle: Any, state: dict[str, Tensor], tmp_path: Path) -> None:
    """Through their tower and their tokenizer; their ``score`` itself has no gradient."""
    path = hps_file(tmp_path, state)
    judge = load_reward("hps", path, architecture=ARCHITECTURE)
    model = oracle.model_dict["model"].float().eval()
    model.load_state_dict({k: v.half().float() for k, v in state.items()})
    tokenizer = importlib.import_module("hpsv2.src.open_clip").get_tokenizer("ViT-H-14")
    prompts = ["a red circle moves left", "一只猫"]
    ours = frames(2, 1, 224, 224).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    out = model(((theirs - mean) / std)[:, 0], tokenizer(prompts))
    expected = (out["image_features"] * out["text_features"]).sum(dim=-1)
    score = judge(ours, prompts)
    torch.testing.assert_close(score, expected, rtol=0, atol=1e-6)
    (a,) = torch.autograd.grad(score.sum(), ours)
    (b,) = torch.autograd.grad(expected.sum(), theirs)
    assert float((a - b).norm() / b.norm()) < 1e-5


def test_published_keys_are_hpsv2s_keys(hpsv2: Any) -> None:
    """The tower that the authors build has the names that we load, in their order."""
    theirs = importlib.import_module("hpsv2.src.open_clip").CLIP(**ARCHITECTURE)
    assert list(theirs.state_dict()) == list(random_state(ARCHITECTURE))
