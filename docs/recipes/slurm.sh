#!/bin/sh
# Boot tests as a Slurm array job: sbatch --array=1-8 docs/recipes/slurm.sh SUITE... --kernel KERNEL...
# The folder of submission has to be shared between the nodes, and daxvisor in PATH. Results: boot-tests/N.
# Afterwards, whatever became of the parts:
#   sbatch --dependency=afterany:JOB --wrap 'daxvisor test merge boot-tests/[0-9]* --out boot-tests/all --html boot-tests/page'
#SBATCH --job-name=boot-tests
#SBATCH --ntasks=1
#SBATCH --output=boot-tests-%A-%a.log
set -eu
out=boot-tests/$SLURM_ARRAY_TASK_ID
mkdir -p "$out"
# Slurm starts a job anew after a node has failed; what has a result stays.
exec daxvisor test "$@" --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_MAX" --out "$out" --resume
