"""The training loop on a module of six numbers."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base_model.training.loop import (
    Optimiser,
    OtherRunError,
    Schedule,
    means,
    save_atomically,
    step_generator,
    step_seed,
    train,
)

PINNED = 3698722337343307219

SCHEDULE = Schedule(
    steps=12, learning_rate=0.05, warmup=3, checkpoint_every=4, report_every=5, ema_decay=0.9
)


class InterruptedRunError(Exception):
    pass


def new_module() -> nn.Linear:
    module = nn.Linear(2, 2)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[0.5, -0.3], [0.1, 0.9]]))
        module.bias.copy_(torch.tensor([0.2, -0.1]))
    return module


def run(
    folder: Path,
    *,
    stop: int | None = None,
    schedule: Schedule = SCHEDULE,
    module: nn.Linear | None = None,
    seed: int = 0,
    stage: str = "stage",
    **options: Any,
) -> nn.Linear:
    """Train on noisy data of each step's generator; raise in the middle of step `stop`."""
    module = module or new_module()
    calls = 0

    def loss(_step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        nonlocal calls
        if calls == stop:
            raise InterruptedRunError
        calls += 1
        x = torch.randn(8, 2, generator=generator)
        target = x.flip(1) + 0.1 * torch.randn(8, 2, generator=generator)
        error = (module(x) - target).square().mean()
        return error, {"calls": float(calls)}

    options.setdefault("report", lambda *_: None)
    train(stage, module, loss, schedule, folder=folder, seed=seed, **options)
    return module


def state(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "stage.ckpt", weights_only=True)


def flat(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, part in value.items():
            if key != "seconds":
                yield key
                yield from flat(part)
    elif isinstance(value, list):
        for part in value:
            yield from flat(part)
    else:
        yield value


def same(one: Any, other: Any) -> bool:
    pairs = zip(flat(one), flat(other), strict=True)
    return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


@pytest.mark.parametrize("stop", [1, 4, 5, 7, 11])
def test_a_resumed_run_ends_in_the_same_bits(tmp_path: Path, stop: int) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(InterruptedRunError):
        run(tmp_path / "parts", stop=stop)
    resumed = run(tmp_path / "parts", module=new_module())
    assert same(whole.state_dict(), resumed.state_dict())
    assert same(state(tmp_path / "whole"), state(tmp_path / "parts"))
    assert not same(whole.state_dict(), new_module().state_dict())


def test_a_resumed_run_does_only_what_is_left(tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        run(tmp_path, stop=6)
    assert state(tmp_path)["step"] == 4
    rows: list[tuple[str, int, int, dict[str, float]]] = []
    run(tmp_path, report=lambda *row: rows.append(row))
    assert [row[:3] for row in rows] == [("stage", 5, 12), ("stage", 10, 12), ("stage", 12, 12)]
    assert [row[3]["calls"] for row in rows] == [1, 4, 7.5]


def test_a_finished_run_gives_its_result_without_a_step(tmp_path: Path) -> None:
    first = run(tmp_path)
    again = run(tmp_path, stop=0)
    assert same(first.state_dict(), again.state_dict())


def test_seeds_differ_by_seed_stage_and_step() -> None:
    seeds = {
        step_seed(seed, stage, step)
        for seed in range(3)
        for stage in ("vae-clips", "vae-images", "text")
        for step in range(100)
    }
    assert len(seeds) == 900
    assert all(0 <= seed < 2**63 for seed in seeds)
    # The three parts do not run into each other.
    assert step_seed(1, "1", 1) != step_seed(11, "", 1)


def test_step_seeds_never_change() -> None:
    """They decide every shipped weight: sha256 of "0/text/0", its first 63 bits."""
    assert step_seed(0, "text", 0) == PINNED
    drawn = torch.rand(2, generator=step_generator(0, "text", 0))
    assert torch.equal(drawn, torch.rand(2, generator=torch.Generator().manual_seed(PINNED)))


def test_stages_and_seeds_train_differently(tmp_path: Path) -> None:
    results = [
        run(tmp_path / "a"),
        run(tmp_path / "b", seed=1),
        run(tmp_path / "c", stage="other"),
    ]
    weights = [module.weight for module in results]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_loop_is_adamw_with_clipping_and_ema(tmp_path: Path) -> None:
    """The same run written out in numbers: AdamW, warm-up, cosine, clipping, moving average."""
    schedule = replace(SCHEDULE, max_grad_norm=0.5, weight_decay=0.1)
    trained = run(tmp_path, schedule=schedule)
    p = torch.cat([new_module().weight.flatten(), new_module().bias]).detach().double()
    ema, m, v = p.clone(), torch.zeros(6).double(), torch.zeros(6).double()
    for step in range(12):
        generator = step_generator(0, "stage", step)
        x = torch.randn(8, 2, generator=generator)
        target = (x.flip(1) + 0.1 * torch.randn(8, 2, generator=generator)).double()
        x = x.double()
        error = x @ p[:4].view(2, 2).T + p[4:] - target
        g = torch.cat([(error.T @ x).flatten(), error.sum(dim=0)]) * 2 / error.numel()
        g = g * min(1.0, 0.5 / g.norm().item())
        if step < 3:
            rate = 0.05 * (step + 1) / 3
        else:
            rate = 0.05 * (0.01 + 0.99 * (1 + math.cos(math.pi * (step - 3) / 9)) / 2)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        p[:4] *= 1 - rate * 0.1  # the bias does not decay
        p = p - rate * (m / (1 - 0.9 ** (step + 1))) / (
            (v / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
        )
        decay = min(0.9, (1 + step) / (10 + step))
        ema = decay * ema + (1 - decay) * p
    got = torch.cat([trained.weight.flatten(), trained.bias]).detach().double()
    torch.testing.assert_close(got, ema, atol=1e-5, rtol=0)
    saved = state(tmp_path)["parameters"]
    raw = torch.cat([saved["weight"].flatten(), saved["bias"]]).double()
    torch.testing.assert_close(raw, p, atol=1e-5, rtol=0)
    assert (p - ema).abs().max() > 1e-3  # the two are told apart


def test_the_rate_warms_up_and_falls_to_a_hundredth() -> None:
    schedule = Schedule(steps=110, learning_rate=2.0, warmup=10)
    assert [schedule.rate(step) for step in (0, 4, 9)] == pytest.approx([0.2, 1.0, 2.0])
    assert schedule.rate(10) == pytest.approx(2.0)
    assert schedule.rate(60) == pytest.approx(2.0 * 0.505)
    assert schedule.rate(110) == pytest.approx(0.02)
    rates = [schedule.rate(step) for step in range(10, 110)]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path, bad: float) -> None:
    module = new_module()
    steps = iter(range(100))

    def loss(_step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        error = module(torch.randn(4, 2, generator=generator)).square().mean()
        return error * (bad if next(steps) == 6 else 1.0), {}

    with pytest.raises(FloatingPointError, match=rf"stage: loss is {bad} at step 6"):
        train("stage", module, loss, SCHEDULE, folder=tmp_path, seed=0, report=lambda *_: None)
    saved = state(tmp_path)
    assert saved["step"] == 4
    assert saved["parameters"]["weight"].isfinite().all()


def test_a_gradient_that_is_no_number_stops_the_run_before_it_is_saved(tmp_path: Path) -> None:
    module = new_module()
    steps = iter(range(100))

    def loss(_step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        error = module(torch.randn(4, 2, generator=generator)).square().mean()
        if next(steps) == 7:  # the root of 0 is finite; its derivative is not
            error = error + (0.0 * module.bias.sum()).sqrt()
        return error, {}

    with pytest.raises(FloatingPointError, match="gradient norm is nan"):
        train("stage", module, loss, SCHEDULE, folder=tmp_path, seed=0, report=lambda *_: None)
    assert all(value.isfinite().all() for value in state(tmp_path)["parameters"].values())


def test_frozen_parameters_stay_and_are_not_saved(tmp_path: Path) -> None:
    module = new_module()
    module.bias.requires_grad_(False)
    run(tmp_path, module=module)
    assert torch.equal(module.bias, new_module().bias)
    assert set(state(tmp_path)["parameters"]) == set(state(tmp_path)["ema"]) == {"weight"}


def test_the_context_is_around_each_step_of_the_optimiser(tmp_path: Path) -> None:
    module = new_module()
    moved = []

    @contextmanager
    def around() -> Iterator[None]:
        before = module.weight.detach().clone()
        assert module.weight.grad is not None
        yield
        moved.append((module.weight - before).abs().max().item())
        with torch.no_grad():
            module.weight.copy_(before)

    run(tmp_path, module=module, around_step=around)
    assert len(moved) == 12
    assert min(moved) > 0
    assert torch.equal(module.weight, new_module().weight)


def test_the_log_has_a_line_for_each_report(tmp_path: Path) -> None:
    rows: list[tuple[str, int, int, dict[str, float]]] = []
    run(tmp_path, report=lambda *row: rows.append(row))
    logged = [json.loads(line) for line in (tmp_path / "stage.jsonl").read_text().splitlines()]
    assert [row["step"] for row in logged] == [5, 10, 12]
    assert logged == [{"step": step, **numbers} for _, step, _, numbers in rows]
    assert set(logged[0]) == {"step", "loss", "grad_norm", "seconds", "calls"}


def test_a_resumed_run_writes_no_row_twice(tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        run(tmp_path, stop=7)  # step 5 is logged, step 4 is saved
    run(tmp_path)
    logged = [json.loads(line) for line in (tmp_path / "stage.jsonl").read_text().splitlines()]
    assert [row["step"] for row in logged] == [5, 10, 12]


def test_seconds_go_on_after_a_resume(tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        run(tmp_path, stop=5)
    saved = state(tmp_path) | {"seconds": 1000.0}
    save_atomically(saved, tmp_path / "stage.ckpt")
    run(tmp_path)
    assert 1000.0 < state(tmp_path)["seconds"] < 1100.0


def test_saving_replaces_a_file_only_when_all_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.ckpt"
    save_atomically({"value": 1}, path)

    def full_disk(_state: object, file: Any) -> None:
        file.write(b"half a file")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full_disk)
        with pytest.raises(OSError, match="No space left"):
            save_atomically({"value": 2}, path)
    assert torch.load(path, weights_only=True) == {"value": 1}
    save_atomically({"value": 3}, path)
    assert torch.load(path, weights_only=True) == {"value": 3}
    assert [file.name for file in tmp_path.iterdir()] == ["a.ckpt"]


def test_numbers_are_means_since_the_last_report(tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    run(tmp_path, report=lambda *row: rows.append(row[3]))
    assert [row["calls"] for row in rows] == [3.0, 8.0, 11.5]  # of 1-5, 6-10 and 11-12
    assert means([{"a": 1.0}, {"a": 3.0, "b": 5.0}]) == {"a": 2.0, "b": 5.0}


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    for options in ({"seed": 1}, {"schedule": replace(SCHEDULE, steps=13)}):
        with pytest.raises(OtherRunError, match=r"stage\.ckpt belongs to another run.*delete it"):
            run(tmp_path, **options)
    run(tmp_path)


def test_running_statistics_resume_with_the_weights(tmp_path: Path) -> None:
    def train_norm(folder: Path, stop: int | None = None) -> nn.Module:
        module = nn.Sequential(new_module(), nn.BatchNorm1d(2))

        def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            if step == stop:
                raise InterruptedRunError
            return module(torch.randn(8, 2, generator=generator)).square().sum(), {}

        train("stage", module, loss, SCHEDULE, folder=folder, seed=0, report=lambda *_: None)
        return module

    whole = train_norm(tmp_path / "whole")
    with pytest.raises(InterruptedRunError):
        train_norm(tmp_path / "parts", stop=9)
    assert same(whole.state_dict(), train_norm(tmp_path / "parts").state_dict())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_muon_steps_have_an_even_spectrum_and_adamws_size(
    memory_format: torch.memory_format,
) -> None:
    """Against the polar factor by SVD: singular values are all 1 but for Muon's approximation."""
    torch.manual_seed(0)
    kernel = nn.Parameter(torch.randn(8, 6, 3, 3).contiguous(memory_format=memory_format))
    small, bias = nn.Parameter(torch.randn(3, 6, 3, 3)), nn.Parameter(torch.randn(8))
    schedule = Schedule(steps=1, learning_rate=1.0, optimiser="muon", weight_decay=0.0)
    optimiser = Optimiser([kernel, small, bias], schedule)
    before = [p.detach().clone() for p in (kernel, small, bias)]
    for p in (kernel, small, bias):
        scale = torch.logspace(-0.3, 0.3, len(p))
        p.grad = torch.randn_like(p) * scale.view(-1, *[1] * (p.ndim - 1))
    optimiser.step(0.01)
    moved = [p.detach() - old for p, old in zip((kernel, small, bias), before, strict=True)]
    assert kernel.is_contiguous(memory_format=memory_format)
    size = 0.01 * 0.2 * 54**0.5
    values = torch.linalg.svdvals(moved[0].flatten(1)) / size
    assert 0.5 < float(values.min()) <= float(values.max()) < 1.3
    assert kernel.grad is not None
    u, _, v = torch.linalg.svd(kernel.grad.flatten(1), full_matrices=False)
    likeness = F.cosine_similarity(-(u @ v).flatten(), moved[0].flatten(), dim=0)
    assert float(likeness) > 0.95
    for p, change in zip((small, bias), moved[1:], strict=True):
        assert p.grad is not None
        torch.testing.assert_close(change, -0.01 * p.grad.sign(), atol=1e-4, rtol=0)


def test_muon_resumes_in_the_same_bits(tmp_path: Path) -> None:
    schedule = replace(SCHEDULE, optimiser="muon")

    def wide() -> nn.Linear:
        torch.manual_seed(3)
        return nn.Linear(6, 5)

    def train_wide(folder: Path, stop: int | None = None) -> nn.Linear:
        module = wide()

        def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            if step == stop:
                raise InterruptedRunError
            return (module(torch.randn(8, 6, generator=generator)) - 1.0).square().mean(), {}

        train("stage", module, loss, schedule, folder=folder, seed=0, report=lambda *_: None)
        return module

    whole = train_wide(tmp_path / "whole")
    with pytest.raises(InterruptedRunError):
        train_wide(tmp_path / "parts", stop=9)
    assert same(whole.state_dict(), train_wide(tmp_path / "parts").state_dict())
    assert not same(whole.state_dict(), wide().state_dict())
