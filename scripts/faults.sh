#!/usr/bin/env bash
# The standing programme of faults (tests/faults/faults.py): kills, power cuts, failing calls, damaged
# files and odd words against the built program. --quick is for every day (minutes), --long reaches
# every place (hours on two cores).
#   scripts/faults.sh [--quick|--long] [BUILD_FOLDER] [--only NAME,...]
set -euo pipefail
cd "$(dirname "$0")/.."
long=()
build=build/dev
rest=()
while (($#)); do
  case $1 in
    --quick) ;;
    --long) long=(--long) ;;
    --only) rest=(--only "$2"); shift ;;
    *) build=$1 ;;
  esac
  shift
done
ninja -C "$build" apps/moe moe_interpose >/dev/null
exec python3 tests/faults/faults.py "$build/apps/moe" "$build/tests/libmoe_interpose.so" "${long[@]}" "${rest[@]}"
