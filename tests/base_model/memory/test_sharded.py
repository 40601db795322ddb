"""Weights of the blocks spread over two processes: the same bits, half of them here."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from base_model.errors import GeneratorError
from base_model.memory.sharded import bytes_here, share_blocks, whole_blocks
from tests.reward_tuning.tiny_transformer import inputs, tiny_transformer, velocity

PROCESS = """
import sys
import torch
from torch import distributed, nn
from base_model.memory.sharded import bytes_here, share_blocks, whole_blocks
from tests.reward_tuning.tiny_transformer import inputs, tiny_transformer, velocity

rank = int(sys.argv[1])
distributed.init_process_group(
    "gloo", init_method=f"tcp://127.0.0.1:{sys.argv[2]}", rank=rank, world_size=2
)


def adapted(dtype, checkpointing):
    model = tiny_transformer().to(dtype).requires_grad_(False)
    extra = []
    for block in model.transformer_blocks:
        layer = block.attn1.to_q
        layer.extra = nn.Parameter(torch.full((layer.out_features,), 0.1))  # float32 among others
        layer.register_forward_hook(lambda self, args, out: out + self.extra.to(out.dtype))
        extra.append(layer.extra)
    if checkpointing:
        model.enable_gradient_checkpointing()
    return model, extra


def gradients(model, extra, x, text):
    with torch.no_grad():
        before = velocity(model, x, text)
    kept = velocity(model, x, text, 0.7)  # a graph that waits while others come and go
    leaf = x.clone().requires_grad_()
    (through,) = torch.autograd.grad(velocity(model, leaf, text, 0.4).sum(), leaf)
    v = velocity(model, x, text, 0.2)
    with torch.no_grad():
        base = velocity(model, x, text, 0.2)
    (v * base).sum().backward()
    kept.sum().backward()
    return [before, through, *(one.grad for one in extra)]


for dtype in (torch.float32, torch.bfloat16):
    for checkpointing in (False, True):
        latents, text = inputs()
        x = latents + rank  # other clips on each
        expected = gradients(*adapted(dtype, checkpointing), x, text)
        model, extra = adapted(dtype, checkpointing)
        all_bytes = bytes_here(model.transformer_blocks)
        share_blocks(model, extra)
        assert bytes_here(model.transformer_blocks) < 0.55 * all_bytes
        with torch.no_grad():
            velocity(model, x, text)
        assert bytes_here(model.transformer_blocks) < 0.55 * all_bytes, "weights stay after a call"
        found = gradients(model, extra, x, text)
        assert bytes_here(model.transformer_blocks) < 0.55 * all_bytes, "weights stay after a sweep"
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
        with whole_blocks(model), torch.no_grad():
            assert bytes_here(model.transformer_blocks) == all_bytes
            with whole_blocks(model):  # nests
                for _ in range(3 * rank):  # as often as this one likes, alone
                    assert torch.equal(velocity(model, x, text), expected[0])
            assert bytes_here(model.transformer_blocks) == all_bytes
        assert bytes_here(model.transformer_blocks) < 0.55 * all_bytes
        for one in extra:
            one.grad = None
        again = gradients(model, extra, x, text)
        assert all(torch.equal(a, b) for a, b in zip(expected, again, strict=True))
print("alike")
distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gloo of the tests is for Linux and macOS")
def test_shared_weights_give_the_same_bits(tmp_path: Path) -> None:
    (tmp_path / "process.py").write_text(PROCESS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "process.py"), str(rank), port],
            env={**os.environ, **place, "CUDA_VISIBLE_DEVICES": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            out, err = process.communicate(timeout=240)
            assert (process.returncode, out) == (0, "alike\n"), err
    finally:
        for process in processes:
            process.kill()


def test_one_process_alone_is_refused() -> None:
    model = tiny_transformer().requires_grad_(False)
    with pytest.raises(GeneratorError, match="this one is alone"):
        share_blocks(model, [])


def test_weights_that_are_not_shared_are_whole() -> None:
    model = tiny_transformer().requires_grad_(False)
    size = bytes_here(model)
    assert size == sum(p.numel() * 4 for p in model.parameters())
    with whole_blocks(model), torch.no_grad():
        assert velocity(model, *inputs()).isfinite().all()
    with whole_blocks(None):
        pass
    assert bytes_here(model) == size
