#!/usr/bin/env bash
# Holds predictions of decoding on this machine to what it takes (moe bench machine --verify), when it is quiet.
# usage: scripts/plan-verify.sh [MOE]      waits up to an hour for a load below 1.5, then verifies three times
set -euo pipefail
moe=${1:-build/dev/apps/moe}
for _ in $(seq 360); do
  read -r load _ < /proc/loadavg
  if awk -v l="$load" 'BEGIN { exit !(l < 1.5) }'; then
    failed=0
    for _ in 1 2 3; do
      "$moe" bench machine --verify --seconds 0.5 || failed=1
    done
    exit $failed
  fi
  sleep 10
done
echo "plan-verify: the load stayed above 1.5 for an hour, nothing was measured" >&2
exit 77
