#!/bin/sh
# A Slurm array: every task checks one part of all modules on all kernels. When all are done:
#   kmodld merge out/*.jsonl --sarif out.sarif
#
#SBATCH --job-name=kmodld
#SBATCH --array=0-15
#SBATCH --cpus-per-task=2
#SBATCH --mem=2G
set -u
modules=${MODULES:?a folder with modules}
kernels=${KERNELS:?images, trees or SPECs, with blanks between them}
out=${OUT:-out}

mkdir -p "$out"
for kernel in $kernels; do
    set -- "$@" --kernel "$kernel"
done
kmodld check "$modules" "$@" --jsonl --jobs "${SLURM_CPUS_PER_TASK:-0}" \
    --shard-index "$SLURM_ARRAY_TASK_ID" --shard-count "$SLURM_ARRAY_TASK_COUNT" \
    >"$out/$SLURM_ARRAY_TASK_ID.jsonl"
# 1 and 4 are answers: the task has done its work. kmodld merge gives the exit code of the whole.
case $? in
0 | 1 | 4) exit 0 ;;
*) exit 1 ;;
esac
