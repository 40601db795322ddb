#!/usr/bin/env bash
# accelerate 1.15.0 (torch 2.13.0, CPU), seen 2026-11-29: `accelerate launch --cpu --num_processes 2`
# starts one process, says nothing and ends with 0.
#
# Without several GPUs `launch` takes its simple launcher, which starts the script once and heeds
# --num_processes only for mpirun. Of what was asked, MASTER_ADDR and MASTER_PORT are left in the
# environment; WORLD_SIZE is not set, so the script takes itself for the only process and a step has
# half of the batch that was meant. And the other way round: `torchrun --nproc_per_node 2` on a
# machine without a GPU starts two processes, in each of which `Accelerator()` says that it is the only
# one, unless it is told `cpu=True` or ACCELERATE_USE_CPU=true. Both then write the same files.
#
# Valid input: both commands as documented, a script of one line.
#
# Output seen:
#   accelerate launch:
#   process 0 of 1, WORLD_SIZE None
#   torchrun:
#   process 0 of 1, WORLD_SIZE 2
#   process 0 of 1, WORLD_SIZE 2
#   torchrun, told of the CPU:
#   process 0 of 2, WORLD_SIZE 2
#   process 1 of 2, WORLD_SIZE 2
#
# Exits with 0 while that holds, with 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 accelerate==1.15.0 numpy==2.3.5
cat > "$folder/say.py" <<'PY'
import os

asked = os.environ.get("WORLD_SIZE")
from accelerate import Accelerator

one = Accelerator()
print(f"process {one.process_index} of {one.num_processes}, WORLD_SIZE {asked}\n", end="", flush=True)
PY
export CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 HF_HOME="$folder"
cd "$folder"
launched=$(venv/bin/accelerate launch --cpu --num_processes 2 --num_machines 1 \
  --mixed_precision no --dynamo_backend no say.py)
plain=$(venv/bin/torchrun --nproc_per_node 2 say.py 2>/dev/null | sort)
told=$(ACCELERATE_USE_CPU=true venv/bin/torchrun --nproc_per_node 2 say.py 2>/dev/null | sort)
printf 'accelerate launch:\n%s\ntorchrun:\n%s\ntorchrun, told of the CPU:\n%s\n' \
  "$launched" "$plain" "$told"
[ "$launched" = "process 0 of 1, WORLD_SIZE None" ]
[ "$plain" = "$(printf 'process 0 of 1, WORLD_SIZE 2\n%.0s' 1 2)" ]
[ "$told" = "$(printf 'process 0 of 2, WORLD_SIZE 2\nprocess 1 of 2, WORLD_SIZE 2')" ]
