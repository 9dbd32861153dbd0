#!/bin/bash
# One training on a SLURM cluster, one task per GPU; submit it from the root of the repository (docs/tutorials/cluster.md):
#
#   sbatch --nodes 2 --ntasks-per-node 4 --gres gpu:4 experiments/slurm/job.sh --config mre-demo --config trainer/slurm.yaml
#   sbatch --ntasks-per-node 4 experiments/slurm/job.sh --config mre-demo --config trainer/ddp_cpu.yaml
#
# Arguments after the script are options of `mmib fit`; the numbers of nodes and devices come from the job.
# Options given to sbatch override these:
#SBATCH --job-name=mmib
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
#
# MMIB_LOCAL_CACHE=FOLDER   every node reads image features from a copy in this folder of its local disk, one per job
# MMIB_CACHE=FOLDER         the folder that is copied (.cache/features)
set -euo pipefail

# The last task of an array has the id of the whole array: only this form always means one job.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}
restarts=${SLURM_RESTART_COUNT:-0}
ended=$PWD/.slurm-$job.ended
patience_s=80 # for the ranks to finish their step and write last.ckpt, of the 120 that --signal leaves

[[ -f experiments/slurm/prepare.py ]] || {
    echo "job $job: submit from the root of the repository, or with --chdir: $PWD is another folder" >&2
    exit 2
}
command -v mmib >/dev/null || PATH=$PWD/.venv/bin:$PATH
# Since SLURM 22.05 srun does not inherit this from sbatch.
[[ -z ${SLURM_CPUS_PER_TASK:-} ]] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

# In the background, because bash would see the signal only after the ranks have ended.
step() {
    srun --kill-on-bad-exit=1 "$@" &
    wait $!
}

# The folder of the run is named after the job, so when SLURM starts the job again, `mmib fit` finds its last.ckpt
# there and resumes.
requeue() {
    echo "job $job: $1: it is requeued"
    rm -f "$ended"
    scontrol requeue "$job" || {
        echo "job $job: cannot be requeued; go on with: sbatch … job.sh --run RUN --ckpt_path last" >&2
        exit 1
    }
    exit 0
}

# shellcheck disable=SC2317 # bash calls it
on_time_limit() {
    trap '' USR1
    scancel --signal=TERM "$job" # the ranks, not this shell: they write last.ckpt
    for ((waited = 0; waited < patience_s; waited++)); do
        [[ -n $(jobs -r) ]] || break
        sleep 1
    done
    requeue "the time limit is near"
}
trap on_time_limit USR1

echo "job $job: $SLURM_NTASKS tasks on $SLURM_NNODES nodes ($SLURM_JOB_NODELIST), restarts: $restarts"
cache=()
[[ -z ${MMIB_LOCAL_CACHE:-} ]] || cache=(--data.cache_dir "${MMIB_CACHE:=.cache/features}")

# One process writes the demo corpus and computes the missing features before the ranks start, so that they find
# everything and write nothing. If they need other files, nothing breaks either: the corpus and each part of a cache
# are renamed when complete, and builders of a cache take turns on its lock.
((restarts)) || step --nodes=1 --ntasks=1 --ntasks-per-node=1 python experiments/slurm/prepare.py "$@" "${cache[@]}"

if [[ -n ${MMIB_LOCAL_CACHE:-} ]]; then
    step --ntasks="$SLURM_NNODES" --ntasks-per-node=1 \
        cp --recursive --update --no-target-directory "$MMIB_CACHE" "$MMIB_LOCAL_CACHE"
    cache=(--data.cache_dir "$MMIB_LOCAL_CACHE")
fi

# A rank that wrote last.ckpt upon SIGTERM and ended has status 75. srun would treat that as a failure and kill the
# ranks that are still writing, so such a rank only leaves a note.
export ended
# shellcheck disable=SC2016 # for the ranks' own shells
rank='trap : TERM; mmib fit "$@" || { status=$?; ((status == 75)) || exit "$status"; : >"$ended"; }'
rm -f "$ended"
step bash -c "$rank" rank \
    "$@" "${cache[@]}" --trainer.num_nodes "$SLURM_NNODES" --trainer.devices "$SLURM_NTASKS_PER_NODE"
# Pre-emption with a grace time: SLURM sends SIGTERM to the ranks and not to this shell.
[[ ! -e $ended ]] || requeue "the ranks were ended by SIGTERM"
