"""`train.keep_graphs: auto`: the bytes of one graph, and how many fit into a budget."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from reward_tuning.progress import ProgressEvent
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.tuning.graph_memory import SavedBytes, graph_bytes
from reward_tuning.tuning.parts import load_parts
from reward_tuning.tuning.trainer import optimiser_step, start
from tests.reward_tuning import double_sampler
from tests.reward_tuning.double_sampler import PROMPTS, SIGMAS
from tests.reward_tuning.live_bytes import LiveBytes
from tests.reward_tuning.tiny_run import tiny_recipe
from tests.reward_tuning.tuning import test_trainer as runs

sampler = double_sampler.sampler
world, text_cache = runs.world, runs.text_cache
STEPS = ("method={kind: drtune, active_steps: 2, early_stop: false}", "train.batch_size=2")


def test_bytes_of_a_product_by_hand() -> None:
    """x w: the graph holds x for w's gradient and w for x's; w is a weight, and counted once."""
    layer = torch.nn.Linear(8, 4, bias=False)
    x = torch.randn(3, 8, requires_grad=True)
    with SavedBytes(layer) as saved:
        first = layer(x)
        assert saved.held() == 3 * 8 * 4
        second = layer(x).exp()
    assert saved.held() == 3 * 8 * 4 + 3 * 4 * 4  # exp holds its output
    del first
    assert saved.held() == 3 * 8 * 4 + 3 * 4 * 4
    second.sum().backward()
    assert saved.held() == 0


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("negative", ["detached", "joint"])
def test_bytes_of_a_step(sampler: ClipSampler, negative: Any, checkpointed: bool) -> None:
    """Against what is alive while a graph is held, which another measure counts."""
    sampler = dataclasses.replace(sampler, negative=negative)
    transformer = sampler.generator.transformer
    if checkpointed:
        transformer.enable_gradient_checkpointing()
    try:
        found = graph_bytes(sampler, PROMPTS[0], 2, SIGMAS)
        velocity = sampler.velocity(sampler.condition(PROMPTS), SIGMAS)
        x = sampler.noise([7, 8]).requires_grad_()
        with LiveBytes([*transformer.parameters(), *transformer.buffers()]) as memory:
            v = velocity(x, 1)
        assert found == pytest.approx(memory.now, rel=1e-9)
        del v
    finally:
        transformer.disable_gradient_checkpointing()
    if not checkpointed:
        assert graph_bytes(sampler, PROMPTS[0], 4, SIGMAS) == pytest.approx(2 * found, rel=0.1)


def test_a_run_keeps_what_fits(world: Path, tmp_path: Path) -> None:
    notes: list[str] = []

    def progress(event: ProgressEvent) -> None:
        notes.append(event.note or "")

    def kept(*overrides: str) -> tuple[int, dict[str, Any]]:
        recipe = tiny_recipe(world, tmp_path, *STEPS, *overrides)
        parts = load_parts(recipe, torch.device("cpu"), 40, progress)
        row = optimiser_step(recipe, parts, start(recipe, parts), Accelerator())
        return parts.options.keep_graphs, row

    one = None
    fits, row = kept("train.keep_graphs=auto")
    (note,) = [note for note in notes if "keep_graphs" in note]
    assert f"auto has room for {fits} graphs of" in note
    assert note.endswith("in 1 GB (train.keep_graphs_memory)")
    assert row["rollout"]["kept_steps"] == 2  # both active steps
    one = 1.0 / (fits + 0.5)  # GB, a little less than one graph needs
    assert kept("train.keep_graphs=auto", f"train.keep_graphs_memory={1.5 * one}")[0] == 1
    none, plain = kept("train.keep_graphs=auto", f"train.keep_graphs_memory={0.5 * one}")
    assert (none, plain["rollout"]["kept_steps"]) == (0, 0)
    told = [note for note in notes if "keep_graphs" in note][-1]
    assert "has room for 0 graphs" in told
    assert "GB (train.keep_graphs_memory), so it keeps none; " in told
    enough = float(told.split("none; ")[1].split()[0])
    assert kept("train.keep_graphs=auto", f"train.keep_graphs_memory={enough}")[0] == 1
    outside = "rewards=[{kind: http, url: 'http://localhost:9/', gradient: paired}]"
    recipe = tiny_recipe(
        world, tmp_path, *STEPS, outside, "train.gradient_accumulation=2", "train.keep_graphs=auto"
    )
    parts = load_parts(recipe, torch.device("cpu"), 40, progress)
    assert parts.options.keep_graphs == fits // 2  # one batch is ahead, and holds graphs, too
    assert "for each of 2 batches at a time in 1 GB" in "".join(notes)
    count, by_number = kept("train.keep_graphs=1")
    assert (count, by_number["rollout"]["kept_steps"]) == (1, 1)
    for other in (plain, by_number):
        assert other["loss"] == pytest.approx(row["loss"], rel=1e-6)
        assert other["grad_norm"] == pytest.approx(row["grad_norm"], rel=1e-5)
