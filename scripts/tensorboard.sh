#!/usr/bin/env bash
# Event files of `moe report --format tensorboard`, read back by the tensorboard package: every number that a run logged must be in
# them, and no other. The package lives in a virtual environment in a temporary folder (or in MOE_TENSORBOARD, which is kept). Says
# "skipped" in a sentence where PyPI does not answer.
#   scripts/tensorboard.sh [--moe build/dev/apps/moe]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

moe=build/dev/apps/moe
while [ $# -gt 0 ]; do
  case $1 in
    --moe) moe=$2 ;;
    *) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
  shift 2
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
venv=${MOE_TENSORBOARD:-$work/venv}
if ! "$venv/bin/python" -c 'import tensorboard' 2>/dev/null; then
  if ! { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet tensorboard; } >"$work/pip.log" 2>&1; then
    tail -2 "$work/pip.log"
    echo "skipped: the tensorboard package could not be installed from PyPI"
    exit 0
  fi
fi
for seed in 1 2; do
  "$moe" train --data "text:path=/usr/share/common-licenses" --model nano --steps 6 --batch 2 --length 32 --eval-tokens 128 --eval-every 3 \
         --log-every 1 --seed $seed -o "$work/runs/s$seed" 2>/dev/null
done
"$moe" report "$work/runs/s1" "$work/runs/s2" -o "$work/events" --format tensorboard 2>/dev/null
"$moe" report "$work/runs/s1" "$work/runs/s2" -o "$work/logged.csv" 2>/dev/null
"$venv/bin/python" tests/peers/read_events.py "$work/events" "$work/logged.csv"
echo "tensorboard $("$venv/bin/python" -c 'import tensorboard; print(tensorboard.__version__)') reads them"
