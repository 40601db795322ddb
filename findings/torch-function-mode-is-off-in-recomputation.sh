#!/usr/bin/env bash
# torch 2.15.0 on a CPU, seen 2026-12-01: a TorchFunctionMode that is entered around the forward and the
# backward pass sees nothing of what a checkpoint computes again.
#
# Valid input: a mode that casts the arguments of torch.mm to bfloat16 (or one that only counts calls),
# around a function under torch.utils.checkpoint (use_reentrant=False) and `loss.backward()`. `backward`
# is itself a function that a mode may override, and a mode is off within its own call; the forward
# pass that the checkpoint repeats lies in that call. The counting mode sees one torch.relu in the
# forward pass and none in the repetition, a TorchDispatchMode sees both, and a factory function under
# `with torch.device(...)`, which is a TorchFunctionMode, too, gives the device both times. The casting
# mode ends in a CheckpointError: the repetition computes in float32. Entered once more through
# `context_fn`, the mode is on in the repetition.
#
# Output seen:
#   function mode: relu in the forward pass 1, in the repetition 0
#   dispatch mode: relu in the forward pass 1, in the repetition 1
#   torch.device: meta meta
#   casting mode: CheckpointError
#   casting mode with context_fn: torch.float32 gradient, torch.bfloat16 torch.bfloat16 products
#
# Exits with 0 while that holds, with 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.15.0 numpy==2.3.5
cat > "$folder/modes.py" <<'PY'
from contextlib import nullcontext

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import CheckpointError, checkpoint


class Functions(TorchFunctionMode):
    seen = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.seen += func is torch.relu
        return func(*args, **(kwargs or {}))


class Operators(TorchDispatchMode):
    seen = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen += func is torch.ops.aten.relu.default
        return func(*args, **(kwargs or {}))


class Casting(TorchFunctionMode):
    dtypes = ()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.mm:
            args = tuple(one.bfloat16() for one in args)
        out = func(*args, **(kwargs or {}))
        if func is torch.mm:
            self.dtypes = (*self.dtypes, out.dtype)
        return out


def layer(x, weight):
    return torch.relu(torch.mm(x, weight)).sin()


def trained(mode, **options):
    weight = torch.ones(3, 3, requires_grad=True)
    with mode:
        out = checkpoint(layer, torch.ones(2, 3), weight, use_reentrant=False, **options)
        first = getattr(mode, "seen", 0)
        out.sum().backward()
    return weight.grad.dtype, first, getattr(mode, "seen", 0) - first


_, *functions = trained(Functions())
print("function mode: relu in the forward pass {}, in the repetition {}".format(*functions))
_, *operators = trained(Operators())
print("dispatch mode: relu in the forward pass {}, in the repetition {}".format(*operators))

made = []


def placed(x):
    made.append(torch.arange(3.0).device.type)
    return (x * torch.arange(3.0)).exp()


with torch.device("meta"):
    x = torch.ones(3, requires_grad=True)
    checkpoint(placed, x, use_reentrant=False).sum().backward()
print("torch.device:", *made)

try:
    trained(Casting())
    error = "none"
except CheckpointError as found:
    error = type(found).__name__
print("casting mode:", error)

mode = Casting()
dtype, *_ = trained(mode, context_fn=lambda: (nullcontext(), mode))
print(f"casting mode with context_fn: {dtype} gradient,", *mode.dtypes, "products")
held = (functions, operators, made) == ([1, 0], [1, 1], ["meta", "meta"])
half = (torch.bfloat16, torch.bfloat16)
raise SystemExit(not (held and error == "CheckpointError" and mode.dtypes == half))
PY
"$folder/venv/bin/python" "$folder/modes.py"
