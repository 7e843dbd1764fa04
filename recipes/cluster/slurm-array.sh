#!/usr/bin/env bash
# One job on many nodes: every task of the array answers its share of the input, and the last command joins them.
#
#   sbatch --array=0-7 recipes/cluster/slurm-array.sh recipes/mt-bench.yaml
#   batchchat merge runs/mt-bench/shard-*-of-8 --output runs/mt-bench-whole     (when all tasks are done)
#
# A task that is about to be ended (its time is up, or a job of higher priority takes the node) gets SIGUSR1 two
# minutes before, stops, and is queued again: it goes on where it stopped. The run directory must be on a file system
# that all nodes see.
#SBATCH --job-name=batchchat
#SBATCH --time=04:00:00
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
set -euo pipefail

recipe=${1:?name a recipe}
shift

batchchat run "$recipe" --quiet source.shard=slurm "$@" &
run=$!

requeue() {
  kill -TERM "$run" 2>/dev/null || true
  wait "$run" || true
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
  exit 0
}
trap requeue USR1

wait "$run"
