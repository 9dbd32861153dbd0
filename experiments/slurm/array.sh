#!/bin/bash
# Trainings that differ in one thing, each a separate job like that of job.sh; submit from the root of the repository:
#
#   sbatch --array 1-3 experiments/slurm/array.sh --config mre-demo --config trainer/slurm.yaml
#   sbatch --array 1-8 experiments/slurm/array.sh --trials trials.txt --config mre-demo --config trainer/slurm.yaml
#
# Without --trials the task's number is the seed. With it, the task uses the line of the file with that number: options
# of `mmib fit`, quoted as in a shell, for example: --model.gamma 0.5 --model.beta_text 1e-3
#SBATCH --job-name=mmib-array
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
set -euo pipefail

trial=(--seed_everything "$SLURM_ARRAY_TASK_ID")
if [[ ${1:-} == --trials ]]; then
    line=$(sed -n "${SLURM_ARRAY_TASK_ID}p" "$2")
    [[ -n $line ]] || {
        echo "job ${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID: $2 has no line $SLURM_ARRAY_TASK_ID" >&2
        exit 2
    }
    mapfile -t trial < <(xargs printf '%s\n' <<<"$line")
    shift 2
fi
echo "trial $SLURM_ARRAY_TASK_ID: ${trial[*]}"
exec bash experiments/slurm/job.sh "$@" "${trial[@]}"
