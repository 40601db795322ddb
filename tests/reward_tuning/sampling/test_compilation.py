"""Compiled blocks: the gradient of plain ones, code that later processes find, and the messages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from reward_tuning.errors import TuningError
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.sampling.compilation import (
    CACHE_VARIABLE,
    compile_blocks,
    keep_compiled_code,
    uncompiled,
)
from reward_tuning.sampling.sampler import ClipSampler
from tests.goldens import write_checkpoint
from tests.reward_tuning.double_sampler import PROMPTS, double_sampler
from tests.reward_tuning.tiny_transformer import inputs, tiny_transformer, velocity
from tests.reward_tuning.tuning import test_step as steps

judge = steps.judge
DEFAULT = default_cache_dir()  # PyTorch's own


@pytest.fixture(scope="module")
def sampler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClipSampler]:
    """The golden generator in float64 with an adapter and compiled blocks."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    folder = write_checkpoint(tmp_path_factory.mktemp("generator"))
    found = double_sampler(folder, [prompt.text for prompt in PROMPTS])
    compile_blocks(found.generator.transformer)
    yield found
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("negative", "checkpointing", "options"),
    [
        ("detached", False, {}),
        ("detached", False, {"keep_graphs": 2}),
        ("detached", True, {"keep_graphs": 1}),
        ("joint", True, {"keep_graphs": 2}),
    ],
)
def test_the_gradient_is_that_of_the_plain_chain(
    sampler: ClipSampler,
    judge: FramedJudge,
    negative: Any,
    checkpointing: bool,
    options: dict[str, Any],
) -> None:
    """By autograd on the whole chain with the blocks as they are."""
    transformer = sampler.generator.transformer
    one = steps.batch(early_stop=False)
    with uncompiled(transformer):
        loss, pull, expected = steps.reference(sampler, judge, one, negative, anchor=0.3)
    if checkpointing:
        transformer.enable_gradient_checkpointing()
    try:
        report, got = steps.step(sampler, [judge], one, negative=negative, anchor=0.3, **options)
    finally:
        transformer.disable_gradient_checkpointing()
    assert report.kept_steps == options.get("keep_graphs", 0)
    assert report.loss == pytest.approx(loss, rel=1e-6)
    assert report.drift == pytest.approx(pull / 2, rel=1e-6)
    assert steps.relative(got, expected) < 1e-6
    assert max(seen.rerun_error for seen in report.steps) < 1e-6


@pytest.mark.slow
def test_two_plans_go_back_through_one_kept_graph(sampler: ClipSampler, judge: FramedJudge) -> None:
    """The mean of the two plans' gradients; the first of them may free nothing of the graph."""
    one = steps.batch("draft_k", active_steps=2, smallest_step=0.0)
    other = steps.batch("draft_k", active_steps=1, smallest_step=0.0)
    with uncompiled(sampler.generator.transformer):
        grads = [steps.reference(sampler, judge, of, "detached")[2] for of in (one, other)]
    expected = [(a + b) / 2 for a, b in zip(*grads, strict=True)]
    two = replace(one, more_plans=(other.plan,))
    report, got = steps.step(sampler, [judge], two, keep_graphs=2)
    assert report.kept_steps == 2
    assert steps.relative(got, expected) < 1e-6


@pytest.mark.slow
def test_blocks_of_a_kind_share_their_code() -> None:
    """Six blocks of two kinds are two graphs; weights and their names stay as they are."""
    transformer = tiny_transformer(num_layers=6)
    names = list(transformer.state_dict())
    expected = velocity(transformer, *inputs())
    torch._dynamo.reset()
    compile_blocks(transformer)
    torch._dynamo.utils.counters.clear()
    with torch.no_grad():
        found = velocity(transformer, *inputs())
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    assert list(transformer.state_dict()) == names
    assert not torch.equal(found, expected)  # the compiler rounds otherwise
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad(), uncompiled(transformer):
        assert torch.equal(velocity(transformer, *inputs()), expected)


PROGRAM = """
import json, os, torch
from reward_tuning.sampling.compilation import compile_blocks
from tests.reward_tuning.tiny_transformer import inputs, tiny_transformer, velocity

transformer = tiny_transformer(num_layers=2, mmdit_layers=1)
compile_blocks(transformer)
velocity(transformer, *inputs()).sum().backward()
counters = torch._dynamo.utils.counters["inductor"]
print(json.dumps([counters["fxgraph_cache_hit"], counters["fxgraph_cache_miss"]]))
"""


@pytest.mark.slow
def test_a_later_process_finds_the_code(tmp_path: Path) -> None:
    """By the compiler's own counters of its cache, here in the project's cache folder."""
    environment = {**os.environ, "REWARD_TUNING_CACHE": str(tmp_path)}
    environment.pop(CACHE_VARIABLE, None)
    found = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(json.loads(done.stdout))
    (first_hits, first_misses), (hits, misses) = found
    assert first_hits == misses == 0
    assert hits == first_misses > 0
    assert any((tmp_path / "inductor").iterdir())


def test_the_folder_of_compiled_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWARD_TUNING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "own"))
    keep_compiled_code()
    assert os.environ[CACHE_VARIABLE] == str(tmp_path / "own")
    assert not any(tmp_path.iterdir())
    for unset in ("", DEFAULT):
        monkeypatch.setenv(CACHE_VARIABLE, unset)
        keep_compiled_code()
        assert os.environ[CACHE_VARIABLE] == str(tmp_path / "cache" / "inductor")
        assert (tmp_path / "cache" / "inductor").is_dir()


def test_a_folder_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REWARD_TUNING_CACHE", str(tmp_path / "file"))
    monkeypatch.setenv(CACHE_VARIABLE, DEFAULT)
    with pytest.raises(TuningError, match=r"inductor could not be created: .*REWARD_TUNING_CACHE"):
        keep_compiled_code()
    assert os.environ[CACHE_VARIABLE] == DEFAULT


@pytest.mark.slow
def test_a_machine_without_a_compiler_is_told(tmp_path: Path) -> None:
    program = (
        "import torch\n"
        "from reward_tuning.sampling.compilation import require_compilation\n"
        "from reward_tuning.errors import TuningError\n"
        "try:\n    require_compilation(torch.device('cpu'))\n"
        "except TuningError as error:\n    print(error)\n"
    )
    found = {}
    for compiler in ("no-such-compiler", None):
        own = {"CXX": compiler, "PATH": str(tmp_path)} if compiler else {}
        found[compiler] = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **own, CACHE_VARIABLE: str(tmp_path / str(compiler))},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    assert "torch.compile does not work here" in found["no-such-compiler"]
    assert "train.compile=false" in found["no-such-compiler"]
    assert found[None] == ""
