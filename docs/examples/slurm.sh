#!/bin/bash
# A reward tuning on 2 machines with 8 GPUs each that continues by itself after a preemption:
#   sbatch docs/examples/slurm.sh mine.yaml /shared/runs/mine
# Submit it from the project's environment (`sbatch` passes it on), with HF_HOME in a folder that
# all machines see and that holds what `reward-tuning doctor mine.yaml` asks for.
#SBATCH --job-name=reward-tuning
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@300
set -u
recipe=$1 run=$2

# 300 s before the end Slurm sends USR1 to this script alone: the run saves itself after its current
# step, and the job goes back into the queue. One that is killed resumes from its last checkpoint.
# USR1 may also come before the training has started: then it has 240 s to do so, and is stopped.
requeue() {
    if [ -e "$run/recipe.yaml" ]; then mkdir -p "$run/control" && touch "$run/control/stop"; fi
    for _ in $(seq 240); do
        [ -n "$(jobs -pr)" ] || break
        sleep 1
    done
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
}
trap requeue USR1

command="run $recipe output=$run"
if [ -e "$run/recipe.yaml" ]; then command="resume $run"; fi
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# torchrun kills its processes 30 s after it has forwarded a signal; a phase may take longer.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=600
# shellcheck disable=SC2086  # the command is several words
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" torchrun --nnodes="$SLURM_NNODES" --nproc_per_node=8 \
    --rdzv_id="$SLURM_JOB_ID" --rdzv_backend=c10d --rdzv_endpoint="$first:29500" \
    -m reward_tuning.cli $command &
wait "$!"
