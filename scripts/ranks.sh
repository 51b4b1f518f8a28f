#!/usr/bin/env bash
# Several processes for real, over every MPI that is installed (tests/ranks/ranks.py): the bytes of one
# process from every layout of ranks, runs resumed on other numbers, faults and how all ranks end.
#   scripts/ranks.sh --mutations [--only NAME,...]     # planted mistakes, each built into a copy
#   scripts/ranks.sh [--quick] [BUILD_FOLDER] [--mpi openmpi|mpich] [--only bytes,hosts,resume,verbs,stop,kills,faults,memory,gpus,real]
#   scripts/ranks.sh build/release --only speed [--before MOE] [--torch PYTHON]     # times, on a quiet machine (tests/ranks/speed.py)
set -euo pipefail
cd "$(dirname "$0")/.."
build=build/dev
rest=()
while (($#)); do
  case $1 in
    --mutations) exec /usr/bin/python3 tests/ranks/mutations.py . "${@:2}" ;;
    --quick) rest+=("$1") ;;
    --mpi | --only | --before | --torch) rest+=("$1" "$2"); shift ;;
    *) build=$1 ;;
  esac
  shift
done
targets=(apps/all)
if [[ " ${rest[*]} " == *" speed "* ]]; then
  mapfile -t -O 1 targets < <(ninja -C "$build" -t targets all | grep -o '^moe_ranks_speed_[a-z]*')
fi
ninja -C "$build" "${targets[@]}" >/dev/null
exec /usr/bin/python3 tests/ranks/ranks.py "$build/apps/moe" "${rest[@]}"
