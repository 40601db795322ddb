#!/usr/bin/env bash
# torch 2.13.0 (CPU, oneDNN; 2.15.0 gives the same), on a CPU with AMX, seen 2026-11-29 on an Intel Xeon:
# the weight gradient of a bfloat16 conv3d is NaN, or wrong without a NaN.
#
# Valid input: (4, 32, 7, 64, 64) standard normal, 32 kernels of 3 x 3 x 3, padding (0, 1, 1), one
# thread; the forward pass is right. With 9 frames in place of 7, or oneDNN held below AMX
# (ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16), the same code gives the gradient to bfloat16's rounding. With
# two threads some runs give a gradient that is finite and 38 % off, which no check for NaN finds.
#
# Output seen:
#   amx      NaN in 12739 of 27648
#   no amx   NaN in 0 of 27648, relative error 0.0023
#
# Exits with 0 while that holds, with 1 when it has changed, with 2 on a CPU without AMX.
set -euo pipefail
if ! grep -q -m1 amx_bf16 /proc/cpuinfo; then
  echo "this CPU has no AMX: nothing to be seen here"
  exit 2
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.3.5
cat > "$folder/gradient.py" <<'PY'
import torch

torch.manual_seed(0)
x, w = torch.randn(4, 32, 7, 64, 64), torch.randn(32, 32, 3, 3, 3) * 0.05


def gradient(dtype):
    weight = w.to(dtype).clone().requires_grad_()
    y = torch.nn.functional.conv3d(x.to(dtype), weight, padding=(0, 1, 1))
    y.float().square().mean().backward()
    return weight.grad.float()


exact, half = gradient(torch.float32), gradient(torch.bfloat16)
print(int(half.isnan().sum()), half.numel(), float((half - exact).norm() / exact.norm()))
PY
run() { env OMP_NUM_THREADS=1 "$@" "$folder/venv/bin/python" "$folder/gradient.py"; }
read -r nan all error <<< "$(run)"
echo "amx      NaN in $nan of $all"
read -r nan_below all error <<< "$(run ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16)"
echo "no amx   NaN in $nan_below of $all, relative error ${error:0:6}"
[ "$nan" -gt 0 ] && [ "$nan_below" -eq 0 ]
