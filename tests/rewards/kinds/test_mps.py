"""MPS against a restatement of its formulas: one sample, one head, one token at a time."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rewards import RewardError
from rewards.core.torchvision_import import ensure_torchvision_importable
from rewards.core.tower_options import TowerOptions
from rewards.kinds.mps import CONDITIONS, MpsReward, load_mps, related
from tests.rewards.options import taken
from tests.rewards.tiny_clip import frames
from tests.rewards.tiny_cross import MEAN, MPS, STD, mps_file, mps_state

PROMPTS = ["a red circle moves left", "Ein Bär, “quoted”, in the light of the town", "一只猫"]


def load(folder: Path, state: dict[str, Tensor] | None = None, **options: Any) -> MpsReward:
    return load_mps(mps_file(folder, state), taken(options), **options)


class Reference:
    """transformers' CLIP for the tokens; the cross model from its formulas, in loops."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        ensure_torchvision_importable()
        from transformers import CLIPConfig, CLIPModel

        text = {**MPS["text"], "hidden_act": "gelu", "eos_token_id": 49407, "bos_token_id": 49406}
        vision = {**MPS["vision"], "hidden_act": "gelu"}
        config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
        self.clip: Any = CLIPModel(config).eval().requires_grad_(False)
        ours = {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
        self.clip.load_state_dict(ours)
        self.state = {k: v for k, v in state.items() if k.startswith("cross_model.")}

    def score(self, pixels: Tensor, ids: Tensor, about: Tensor, threshold: float) -> Tensor:
        """One image ``(3, 32, 32)`` and one row of numbers each for prompt and condition."""
        text = self.clip.text_model(input_ids=ids[None]).last_hidden_state[0]
        text = text @ self.clip.text_projection.weight.T
        words = self.clip.text_model(input_ids=about[None]).last_hidden_state[0]
        words = words @ self.clip.text_projection.weight.T
        end = ids.tolist().index(49407)
        likeness = [max(float(token @ word) for word in words) for token in text]
        keep = [value / max(likeness) > threshold for value in likeness]
        image = self.clip.vision_model(pixel_values=pixels[None]).last_hidden_state[0]
        image = image @ self.clip.visual_projection.weight.T
        for layer in range(MPS["cross"]["layers"]):
            image = image + self._look_at_text(
                f"cross_model.layers.{layer}.0.fn", image, text, keep
            )
            image = image + self._look_around(f"cross_model.layers.{layer}.1.fn", image)
        first, whole = image[0], text[end]
        cosine = (first @ whole) / (first.square().sum().sqrt() * whole.square().sum().sqrt())
        return self.clip.logit_scale.exp() * cosine

    def _look_at_text(self, name: str, image: Tensor, text: Tensor, keep: list[bool]) -> Tensor:
        x = self._norm(name, image)
        query, pair = self._times(f"{name}.to_q", x), self._times(f"{name}.to_kv", text)
        key, value = pair[:, :8], pair[:, 8:]
        heads = []
        for head in range(3):
            rows = []
            for q in query[:, 8 * head : 8 * head + 8]:
                sims = [q @ k / math.sqrt(8) for k, kept in zip(key, keep, strict=True) if kept]
                values = [v for v, kept in zip(value, keep, strict=True) if kept]
                rows.append(torch.stack(sims).softmax(0) @ torch.stack(values))
            heads.append(torch.stack(rows))
        read = self._times(f"{name}.to_out", torch.cat(heads, dim=1))
        return read + self._swiglu(self._times(f"{name}.ff.0", x), f"{name}.ff.2")

    def _look_around(self, name: str, image: Tensor) -> Tensor:
        fused = self._times(f"{name}.fused_attn_ff_proj", self._norm(name, image))
        key, value = self._turn(name, fused[:, 24:32]), fused[:, 32:40]
        heads = []
        for head in range(3):
            query = self._turn(name, fused[:, 8 * head : 8 * head + 8])
            heads.append((query @ key.T / math.sqrt(8)).softmax(dim=1) @ value)
        seen = self._times(f"{name}.attn_out", torch.cat(heads, dim=1))
        return seen + self._swiglu(fused[:, 40:], f"{name}.ff_out.1")

    def _norm(self, name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(dim=1, keepdim=True)
        spread = (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
        return centred / spread * self.state[f"{name}.norm.weight"]

    def _times(self, name: str, x: Tensor) -> Tensor:
        return x @ self.state[f"{name}.weight"].T

    def _swiglu(self, x: Tensor, name: str) -> Tensor:
        half = x.shape[1] // 2
        gate = x[:, half:]
        return self._times(name, gate * torch.sigmoid(gate) * x[:, :half])

    def _turn(self, name: str, x: Tensor) -> Tensor:
        """Channel i and channel i + 4 are a point that is turned by place * frequency."""
        rows = []
        for place, row in enumerate(x):
            angles = place * self.state[f"{name}.rotary_emb.inv_freq"]
            a, b = row[:4], row[4:]
            cos, sin = angles.cos(), angles.sin()
            rows.append(torch.cat([a * cos - b * sin, b * cos + a * sin]))
        return torch.stack(rows)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    state = mps_state()
    state["model.logit_scale"] = torch.tensor(math.log(20.0))
    return state


@pytest.mark.parametrize("threshold", [0.01, 0.3])
def test_score_and_pixel_gradient_equal_the_formulas(
    tmp_path: Path, state: dict[str, Tensor], threshold: float
) -> None:
    judge, reference = load(tmp_path, state, threshold=threshold), Reference(state)
    ours = frames(3, 1).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    score = judge(ours, PROMPTS)
    (about,) = judge.tokenizer([CONDITIONS["overall"]])
    pixels = (theirs[:, 0] - MEAN) / STD
    rows = zip(pixels, judge.tokenizer(PROMPTS), strict=True)
    expected = torch.stack([reference.score(p, ids, about, threshold) for p, ids in rows])
    # Scores of about 20 in size: 1e-6 of that.
    torch.testing.assert_close(score, expected, rtol=1e-6, atol=2e-5)
    assert float(expected.detach().std()) > 0.5
    weights = torch.tensor([1.0, -2.0, 0.5])
    (a,) = torch.autograd.grad((score * weights).sum(), ours)
    (b,) = torch.autograd.grad((expected * weights).sum(), theirs)
    assert float((a - b).norm() / b.norm()) < 1e-5


def test_score_equals_the_formulas_in_double(tmp_path: Path, state: dict[str, Tensor]) -> None:
    judge = load(tmp_path, state, dtype=torch.float64)
    reference = Reference({k: v.double() for k, v in state.items()})
    reference.clip.double()
    x = frames(1, 1).double()
    (about,), (ids,) = judge.tokenizer([CONDITIONS["overall"]]), judge.tokenizer(PROMPTS[:1])
    expected = reference.score((x[0, 0] - MEAN.double()) / STD.double(), ids, about, 0.01)
    # The constants in fp32 differ from those in fp64 by 1e-8 of a pixel.
    assert float(judge(x, PROMPTS[:1])) == pytest.approx(float(expected), rel=1e-6)


def test_the_mask_keeps_only_related_words(tmp_path: Path, state: dict[str, Tensor]) -> None:
    kept = {}
    for threshold in (0.0, 0.3, 0.7):
        packed = load(tmp_path, state, threshold=threshold).condition(PROMPTS)
        assert packed.shape == (3, 78, 25)
        assert set(packed[:, :, -1].unique().tolist()) <= {0.0, 1.0}
        kept[threshold] = packed[:, :-1, -1].sum(dim=1)
    assert (kept[0.0] >= kept[0.3]).all()
    assert (kept[0.3] > kept[0.7]).any()
    assert (kept[0.7] >= 1).all()


def test_the_mask_of_a_prompt_is_its_own(tmp_path: Path, state: dict[str, Tensor]) -> None:
    judge = load(tmp_path, state)
    words, _ = judge.network.text_tokens(judge.tokenizer([CONDITIONS["overall"]]))
    text, _ = judge.network.text_tokens(judge.tokenizer(PROMPTS))
    text = text * torch.tensor([1.0, 3.0, 0.2])[:, None, None]  # the reference divides by the max
    together = related(text, words, 0.5)
    alone = torch.cat([related(text[i : i + 1], words, 0.5) for i in range(3)])
    assert torch.equal(together, alone)
    likeness = torch.einsum("nid,kd->nik", text, words[0]).amax(dim=2)
    assert not torch.equal(together, likeness / likeness.max() > 0.5)


def test_padding_is_the_end_token_and_takes_part(tmp_path: Path, state: dict[str, Tensor]) -> None:
    judge = load(tmp_path, state)
    (ids,) = judge.tokenizer(["red"])
    assert ids.tolist() == [49406, 736, *([49407] * 75)]
    assert judge.context_length == 77
    assert judge.truncated(["red " * 75, "red " * 76]) == [1]
    packed, x = judge.condition(["red"]), frames(1, 1)[:, 0]
    without = packed.clone()
    without[:, 4:77, -1] = 0.0  # nobody looks at the padding
    assert float((judge.score_images(x, packed) - judge.score_images(x, without)).abs()) > 1e-4


def test_a_prompt_does_not_depend_on_its_neighbours(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    judge = load(tmp_path, state, threshold=0.5)
    x = frames(3, 2)
    together = judge(x, PROMPTS)
    alone = [load(tmp_path, state, threshold=0.5)(x[i : i + 1], [PROMPTS[i]]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)
    other = judge(x, PROMPTS[1:] + PROMPTS[:1])
    assert float((other - together).abs().min()) > 1e-3


def test_conditions_by_name_and_in_own_words(tmp_path: Path, state: dict[str, Tensor]) -> None:
    assert set(CONDITIONS) == {"overall", "aesthetics", "detail", "alignment"}
    parts = [CONDITIONS[name] for name in ("aesthetics", "detail", "alignment")]
    assert CONDITIONS["overall"] == ", ".join([*parts, "word, things."])
    masks = {}
    for condition in (*CONDITIONS, "pink elephants", CONDITIONS["detail"]):
        judge = load(tmp_path, state, condition=condition, threshold=0.6)
        masks[condition] = judge.condition(PROMPTS[:2])[..., -1]
    assert torch.equal(masks["detail"], masks[CONDITIONS["detail"]])
    assert not torch.equal(masks["pink elephants"], masks["overall"])
    with pytest.raises(RewardError, match="condition ''; give one of overall, aesthetics"):
        load(tmp_path, state, condition="")
    for threshold in (1.0, -0.1, math.nan):
        with pytest.raises(RewardError, match=r"threshold.*less than 1"):
            load(tmp_path, state, threshold=threshold)


def test_chunks_and_checkpointing_change_no_gradient(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    whole, parts = load(tmp_path, state), load(tmp_path, state, gradient_checkpointing=True)
    parts.chunk = 2
    runs = []
    layer = parts.network.cross_model.layers[0]
    layer[0].fn.ff.register_forward_pre_hook(lambda *_: runs.append(1))  # type: ignore[index,union-attr]
    gradients = []
    for judge in (whole, parts):
        x = frames(2, 3).requires_grad_()
        judge(x, PROMPTS[:2]).square().sum().backward()
        assert x.grad is not None
        gradients.append(x.grad)
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) < 1e-6
    assert len(runs) == 9  # three chunks: scored, scored with a graph, and once more for memory


def test_bf16_everywhere_but_in_the_cosine(tmp_path: Path, state: dict[str, Tensor]) -> None:
    judge = load(tmp_path, state, dtype=torch.bfloat16)
    assert {p.dtype for p in judge.network.parameters()} == {torch.bfloat16}
    frequencies = [b for n, b in judge.network.named_buffers() if n.endswith("inv_freq")]
    assert {f.dtype for f in frequencies} == {torch.float32}
    x = frames(2, 1).requires_grad_()
    score = judge(x, PROMPTS[:2])
    assert score.dtype == torch.float32
    exact = load(tmp_path, state)(x, PROMPTS[:2])
    torch.testing.assert_close(score, exact, rtol=0, atol=0.5)  # of 20
    (gradient,) = torch.autograd.grad(score.sum(), x)
    assert float(gradient.abs().max()) > 0


def test_gradcheck_in_double(tmp_path: Path, state: dict[str, Tensor]) -> None:
    judge = load(tmp_path, state, dtype=torch.float64)
    x = frames(1, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: judge(v, ["a red circle"]), x, fast_mode=True)


def test_climbing_the_gradient_raises_the_score(tmp_path: Path, state: dict[str, Tensor]) -> None:
    judge = load(tmp_path, state)
    x = frames(1, 1)
    first = float(judge(x, PROMPTS[:1]))
    for _ in range(20):
        x = x.requires_grad_()
        (gradient,) = torch.autograd.grad(judge(x, PROMPTS[:1]).sum(), x)
        x = (x + 0.02 * gradient.sign()).detach().clamp(0, 1)
    assert float(judge(x, PROMPTS[:1])) > first + 1.0


def test_a_file_without_architecture_is_taken_for_the_published_one(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    torch.save(state, tmp_path / "mine.pth")
    with pytest.raises(RewardError, match=r"MPS of width 1024: .*missing.*another shape"):
        load_mps(tmp_path / "mine.pth", TowerOptions())
    given = load_mps(tmp_path / "mine.pth", TowerOptions(), architecture=MPS)
    x = frames(1, 1)
    expected = load(tmp_path, state)(x, ["red"])
    torch.testing.assert_close(given(x, ["red"]), expected, rtol=1e-6, atol=1e-5)
    for wrong in ("ViT-H-14", {**MPS, "cross": {"layers": 2}}, {**MPS, "width": "24"}):
        with pytest.raises(RewardError, match=r"architecture.*[Rr]emove it"):
            load_mps(tmp_path / "mine.pth", TowerOptions(), architecture=wrong)  # type: ignore[arg-type]


def test_the_authors_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "MPS_overall_checkpoint.pth")
    with pytest.raises(RewardError, match="more than tensors"):
        load_mps(tmp_path / "MPS_overall_checkpoint.pth", TowerOptions())
