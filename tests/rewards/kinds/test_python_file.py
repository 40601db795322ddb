"""A judge of the user's own: loaded, checked, and every way to get it wrong told."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rewards import FrameReward, RewardError, load_reward
from rewards.core.base import FrozenReward
from tests.rewards.tiny_clip import frames

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "my_judge.py"
CALLABLE = """
import torch
from rewards import FrameReward, VideoReward
class _Part: pass
class Mine:
    def __init__(self, power=1.0): self.power = power
    def __call__(self, frames, prompts): return {returned}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "judge.py"
    path.write_text(text, encoding="utf-8")
    return path


def returning(folder: Path, expression: str) -> FrozenReward:
    return load_reward("python", write(folder, CALLABLE.format(returned=expression)))


def test_the_example_scores_as_it_says() -> None:
    judge = load_reward("python", EXAMPLE, options={"warmth": 2.0}, name="warm", chunk=2)
    assert isinstance(judge, FrameReward)
    assert (judge.name, judge.chunk, judge.reads_text) == ("warm", 2, False)
    x = torch.zeros(1, 2, 3, 9, 9)
    x[0, 0, 0] = 0.6  # one frame all red, one black
    # brightness of an even frame is its mean over channels, whatever the spot
    torch.testing.assert_close(judge.per_frame(x, ["a"]), torch.tensor([[0.2 + 2 * 0.6, 0.0]]))
    x[0, 1, :, 4, 4] = 1.0  # a white dot in the middle shines more than one in a corner
    corner = x.roll((4, 4), dims=(3, 4))
    assert float(judge(x, ["a"]) - judge(corner, ["a"])) > 0.005


@pytest.mark.parametrize("chunk", [None, 1])
def test_any_callable_is_a_judge(tmp_path: Path, chunk: int | None) -> None:
    path = write(
        tmp_path, CALLABLE.format(returned="(frames.flatten(1) ** self.power).mean(dim=1)")
    )
    judge = load_reward("python", path, options={"power": 3.0}, chunk=chunk)
    x = frames(3, 2).requires_grad_()
    scores = judge(x, ["a", "b", "c"])
    expected = torch.stack([clip.pow(3).mean() for clip in x])
    torch.testing.assert_close(scores, expected)
    (gradient,) = torch.autograd.grad(scores.sum(), x)
    torch.testing.assert_close(gradient, 3 * x.detach() ** 2 / x[0].numel())
    assert judge.modules == []


def test_networks_are_frozen_and_told(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.line = torch.nn.Linear(3, 1)\n"
        "    def forward(self, frames, prompts):\n"
        "        return self.line(frames.mean(dim=(1, 3, 4)))[:, 0]\n"
        "class _Helper: pass\n",
    )
    judge = load_reward("python", path)
    (net,) = judge.modules
    assert not net.training
    assert not any(parameter.requires_grad for parameter in net.parameters())
    assert judge(frames(2, 2), ["a", "b"]).shape == (2,)


@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("0.5", "returned a float"),
        ("frames.mean()", r"returned the shape \(\) for frames .* return one score per clip"),
        ("frames.mean(dim=(2, 3, 4))", r"returned the shape"),
        ("frames.mean(dim=(1, 2, 3, 4)).half()", "returned torch.float16; return float32"),
        ("frames.mean(dim=(1, 2, 3, 4)) * float('nan')", "scores must be finite"),
        ("frames.detach().mean(dim=(1, 2, 3, 4))", "without a gradient to its frames"),
    ],
)
def test_wrong_results_are_told(
    tmp_path: Path, expression: str, said: str, chunk: int | None
) -> None:
    judge = returning(tmp_path, expression)
    judge.chunk = chunk
    x = frames(2, 3).requires_grad_()
    with pytest.raises(RewardError, match=said):
        judge(x, ["a", "b"]).sum().backward()


def test_a_wrong_result_of_a_derived_class_is_told(tmp_path: Path) -> None:
    text = EXAMPLE.read_text(encoding="utf-8").replace("return brightness +", "return 0 / 0 * ")
    text = text.replace("0 / 0 *", "float('nan') *")
    judge = load_reward("python", write(tmp_path, text))
    with pytest.raises(RewardError, match=r"WarmMiddle of judge.py returned \[\[nan"):
        judge(frames(1, 2), ["a"])
    with pytest.raises(RewardError, match="range over"):
        judge(frames(1, 2) * 255, ["a"])


@pytest.mark.parametrize("says", ["differentiable = False", "evaluation_only = True"])
def test_a_judge_without_a_gradient_says_so(says: str, tmp_path: Path) -> None:
    """By the name of today, and by that of older files."""
    text = CALLABLE.format(returned="frames.detach().mean(dim=(1, 2, 3, 4))")
    judge = load_reward("python", write(tmp_path, text + f"    {says}\n"))
    assert not judge.differentiable
    assert not judge(frames(2, 3).requires_grad_(), ["a", "b"]).requires_grad


def test_a_derived_class_without_a_gradient_says_so(tmp_path: Path) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert load_reward("python", write(tmp_path, text)).differentiable
    text = text.replace("(FrameReward):", "(FrameReward):\n    evaluation_only = True\n", 1)
    judge = load_reward("python", write(tmp_path, text))
    assert not judge.differentiable
    assert judge(frames(1, 2), ["a"]).shape == (1,)


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("x = 1\n", {}, "must define one class, the judge; found: none"),
        ("class A: pass\nclass B: pass\n", {}, "found: A, B. Begin the names"),
        ("class A: pass\n", {}, "A of judge.py is not callable"),
        ("import nothing_at_all\n", {}, r"ModuleNotFoundError: No module .* \(line 1\)"),
        ("\nclass A\n", {}, r"SyntaxError: .* \(line 2\)"),
        ("y = 1\nx = y / 0\n", {}, r"ZeroDivisionError: division by zero \(line 2\)"),
        (CALLABLE.format(returned="0"), {"powder": 2}, r"'powder': 2.*It takes: power=1.0"),
        (
            "from rewards import FrameReward\nclass A(FrameReward): pass\n",
            {},
            "cannot be constructed with the options {}: Can't instantiate abstract class A",
        ),
    ],
)
def test_files_that_are_no_judge(
    tmp_path: Path, text: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(RewardError, match=said):
        load_reward("python", write(tmp_path, text), options=options)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"no such file: .*judge.py"):
        load_reward("python", "judge.py", folder=tmp_path)


def test_a_class_and_its_own_base_are_one_judge(tmp_path: Path) -> None:
    text = CALLABLE.format(returned="frames.mean(dim=(1, 2, 3, 4)) * self.sign")
    text += "    sign = 1\nclass Less(Mine):\n    sign = -1\n"
    judge = load_reward("python", write(tmp_path, text))
    x = frames(2, 3)
    torch.testing.assert_close(judge(x, ["a", "b"]), -x.mean(dim=(1, 2, 3, 4)))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise KeyError('boom')", r"failed: KeyError: 'boom' \(line 3 of own\.py\)"),
        ("frames.mul_(0); return frames.mean((1, 2, 3, 4))", "changed its frames in place"),
    ],
)
def test_what_goes_wrong_while_it_scores_is_told(tmp_path: Path, body: str, told: str) -> None:
    path = tmp_path / "own.py"
    path.write_text(f"class Own:\n    def __call__(self, frames, prompts):\n        {body}\n")
    with pytest.raises(RewardError, match=told):
        load_reward("python", path)(torch.rand(1, 2, 3, 8, 8), ["a"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
        (
            "class Own:\n    def __init__(self):\n        raise RuntimeError('no weights')\n",
            r"cannot be constructed: RuntimeError: no weights \(line 3",
        ),
    ],
)
def test_what_goes_wrong_while_it_is_made_is_told(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "own.py"
    path.write_text(text)
    with pytest.raises(RewardError, match=told):
        load_reward("python", path)
