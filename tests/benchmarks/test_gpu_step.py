"""The benchmark of a step on a GPU, on a CPU at a small shape: everything but its numbers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from base_model.errors import GeneratorError
from benchmarks import gpu_step
from benchmarks.gpu_step import LEVERS, Lever, Row, main, recipe_of, rows_within, table, tried
from benchmarks.small_shape import SMALL
from reward_tuning.estimate.step_cost import metered_step

CPU = torch.device("cpu")
MEASURED = Row(
    "plain",
    "7b",
    seconds={"rollout": 1.0, "reward": 0.5, "sweep": 0.5, "update": 0.0, "step": 2.0},
    tflop={"transformer": 300.0, "rest": 0.0},
    memory={"rollout": 2 * 10**9, "sweep": 3 * 10**9},
    rate=150.0,
    transformer_rate=200.0,
    of_matrix_rate=0.5,
    outside=0.1,
)


@pytest.mark.parametrize("shape", gpu_step.SHAPES)
def test_every_row_is_a_recipe(shape: str) -> None:
    for lever in LEVERS:
        recipe = recipe_of(shape, lever.overrides)
        assert recipe.train.gradient_accumulation == 1
        assert recipe.sampling.steps == 12
    assert len({lever.name for lever in LEVERS}) == len(LEVERS)


SAME_WORK = ("plain", "4 steps at once", "offload", "block-offload", "fp8")
QUICK = ["plain", "small decoder"]
EVERY = [lever.name for lever in LEVERS if lever.name != "compiled blocks"]


@pytest.mark.slow
@pytest.mark.parametrize("only", [QUICK, EVERY])
def test_it_measures_a_small_shape(only: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(["--device", "cpu", "--shape", "small", "--minutes", "60", "--only", *only])
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found["matrix_rates"]["bfloat16"].keys() == {"128", "256"}
    rows = {row["lever"]: row for row in found["rows"]}
    assert list(rows) == only
    unavailable = {name for name, row in rows.items() if row["status"] == "not available"}
    # The first three need other packages; TeaCache has coefficients for known shapes alone.
    assert unavailable <= {"int8", "nf4", "first-block cache 0.1", "TeaCache 0.08"}
    measured = {name: row for name, row in rows.items() if name not in unavailable}
    assert {row["status"] for row in measured.values()} == {"measured"}
    for row in measured.values():
        phases = [row["seconds"][name] for name in ("rollout", "reward", "sweep", "update")]
        assert sum(phases) == pytest.approx(row["seconds"]["step"])
        assert sum(row["parts"].values()) == pytest.approx(row["seconds"]["step"], rel=0.3)
        assert min(row["parts"].values()) > 0
        assert min(row["memory"].values()) > 0
        rate = row["tflop"]["transformer"] / row["parts"]["transformer"]
        assert row["transformer_rate"] == pytest.approx(rate)
        assert row["of_matrix_rate"] > 0
        assert row["tflop"]["rest"] == 0
        assert row["goals"].keys() == {"half_of_matrix_rate", "tenth_outside"}
        assert f"small  {row['lever']}" in printed.err
    counted = metered_step(recipe_of("small", ()), SMALL, 0, {}).flops
    whole = {"transformer": 0.0, "decoder": 0.0}
    for (_, part, _), count in counted.items():
        if gpu_step.group_of(part) in whole:
            whole[gpu_step.group_of(part)] += count / 1e12
    for name in set(SAME_WORK) & measured.keys():
        for part, tflop in whole.items():
            assert rows[name]["tflop"][part] == pytest.approx(tflop), name
    assert rows["small decoder"]["tflop"]["decoder"] != rows["plain"]["tflop"]["decoder"]


def test_what_cannot_be_measured_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def result(error: Exception) -> Row:
        def fail(*_: object) -> Row:
            raise error

        monkeypatch.setattr(gpu_step, "measured", fail)
        return tried(Lever("x"), "7b", CPU, lambda dtype: 1.0)

    full = result(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore"))
    assert (full.status, full.why) == (
        "out of memory",
        "CUDA out of memory. Tried to allocate 2 GiB",
    )
    assert result(MemoryError()).status == "out of memory"
    assert result(RuntimeError("CUDA error: out of memory")).status == "out of memory"
    missing = result(GeneratorError("int8 needs bitsandbytes"))
    assert (missing.status, missing.why) == ("not available", "int8 needs bitsandbytes")
    assert missing.as_json()["goals"] is None
    with pytest.raises(RuntimeError, match="shapes differ"):
        result(RuntimeError("shapes differ"))


def test_rows_that_do_not_fit_in_time_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(gpu_step.time, "monotonic", lambda: now)

    def measure(lever: Lever, shape: str) -> Row:
        nonlocal now
        now += 10 * lever.weight
        return Row(lever.name, shape)

    levers = [Lever("a"), Lever("b", weight=5.0), Lever("c", least=70.0), Lever("d"), Lever("e")]
    rows = list(rows_within(35.0, levers, ["7b"], measure))
    assert [(row.lever, row.status) for row in rows] == [
        ("a", "measured"),
        ("b", "out of time"),
        ("c", "out of time"),
        ("d", "measured"),
        ("e", "measured"),
    ]
    assert rows[1].why == "50 s needed, 25 s left"
    assert rows[2].why == "70 s needed, 25 s left"
    assert now == 30.0


def test_shapes_take_turns() -> None:
    levers = [Lever("a"), Lever("b")]
    rows = rows_within(60.0, levers, ["7b", "12b"], lambda lever, shape: Row(lever.name, shape))
    assert [(row.lever, row.shape) for row in rows] == [
        ("a", "7b"),
        ("a", "12b"),
        ("b", "7b"),
        ("b", "12b"),
    ]


@pytest.mark.parametrize(
    ("share", "outside", "met"), [(0.5, 0.09, "met, met"), (0.49, 0.1, "not met, not met")]
)
def test_goals(share: float, outside: float, met: str) -> None:
    row = replace(MEASURED, of_matrix_rate=share, outside=outside)
    text = table(
        [row, Row("nf4", "7b", "not available", "no bitsandbytes")], {"bfloat16": {8: 4e14}}
    )
    (line,) = [line for line in text.splitlines() if line.startswith("7b     plain")]
    assert line.endswith(met)
    assert line.split()[2:7] == ["1", "0.5", "0.5", "0", "2"]
    assert line.split()[7] == "3.0"
    assert "7b     nf4" in text
    assert "not available: no bitsandbytes" in text
    assert "matrix products in bfloat16: 8: 400 TFLOP/s" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_without_a_device_it_says_what_it_needs() -> None:
    with pytest.raises(SystemExit, match=r"torch sees none here.*--device cpu --shape small"):
        main([])


def test_a_cpu_measures_no_published_shape() -> None:
    with pytest.raises(SystemExit, match="give --shape small"):
        main(["--device", "cpu"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_it_measures_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--shape", "small", "--only", "plain", "offload"])
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["status"] for row in rows} == {"measured"}
    assert all(row["reads"] > 0 for row in rows)
