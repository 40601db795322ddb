#!/usr/bin/env bash
# torch 2.15.0 on a CPU, seen 2026-12-01 on an AMD EPYC (Zen 4, avx512_bf16): a linear layer in
# bfloat16 on a transposed input copies its weight once for each token.
#
# Valid input: 2 sequences of 197 tokens of 384 channels as (197, 2, 384), a view of a contiguous
# (2, 197, 384), which is what attention of the kind "sequence first" feeds its projection, and a
# weight of (1152, 384), 0.88 MB. The call allocates 175 MB for a result of 0.9 MB: 197 copies of the
# weight for a batched product. The same call on a contiguous copy of the view allocates 1.0 MB; in
# float32 and in float16 the view takes 1.8 and 0.9 MB.
#
# Output seen (MB that the call allocates at its peak):
#   bfloat16 contiguous 1.0
#   bfloat16 view 175.6
#   float32 view 1.8
#   float16 view 0.9
#
# Exits with 0 while that holds, with 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.15.0 numpy==2.3.5
cat > "$folder/linear.py" <<'PY'
import torch
from torch.profiler import ProfilerActivity, profile


def peak(dtype, view):
    """MB that one call allocates at its peak, by PyTorch's own list of allocations."""
    x = torch.randn(2, 197, 384, dtype=dtype).transpose(0, 1)
    x = x if view else x.contiguous()
    weight = torch.randn(1152, 384, dtype=dtype)
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        torch.nn.functional.linear(x, weight)
    events = [one for one in seen.profiler.kineto_results.events() if one.name() == "[memory]"]
    now = most = 0
    for one in sorted(events, key=lambda one: one.start_ns()):
        now += one.nbytes()
        most = max(most, now)
    return most / 1e6


plain = peak(torch.bfloat16, False)
copied = peak(torch.bfloat16, True)
single = peak(torch.float32, True)
half = peak(torch.float16, True)
print(f"bfloat16 contiguous {plain:.1f}\nbfloat16 view {copied:.1f}")
print(f"float32 view {single:.1f}\nfloat16 view {half:.1f}")
raise SystemExit(not (copied > 150 > 5 > max(plain, single, half)))
PY
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/linear.py" 2> /dev/null
