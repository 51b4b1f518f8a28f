#!/usr/bin/env bash
# From nothing to a report page: installs what is missing, builds a release, trains a small MoE language model on text found on
# this machine, traces its routing and reports on it. Everything it makes is under build/ and demo/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
began=$SECONDS
say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
[ -t 1 ] && [ -z "${NO_COLOR:-}" ] || say() { printf '\n== %s\n' "$*"; }

if [ -e demo ]; then
  echo "demo: the folder 'demo' exists; remove it to run again (rm -r demo)" >&2
  exit 2
fi
say "1/5 what moe needs"
scripts/install-deps.sh
say "2/5 building (a release)"
cmake --preset release -DMOE_TESTS=OFF >/dev/null
cmake --build --preset release --target moe
moe=build/release/apps/moe
mkdir demo
say "3/5 training a model on text of this machine"
"$moe" train --data system:limit=1MB --model tiny --steps "${MOE_DEMO_STEPS:-250}" --batch 8 --eval-every 0 --eval-tokens 20000 -o demo/run
say "4/5 recording where its tokens go"
"$moe" trace demo/run --data system:limit=1MB,split=valid --tokens 40000 -o demo/demo.moetrace.h5
say "5/5 the report"
"$moe" report demo/demo.moetrace.h5
"$moe" report demo/demo.moetrace.h5 -o demo/report.html
cat <<EOF

Done in $(( (SECONDS - began) / 60 )) min $(( (SECONDS - began) % 60 )) s. What was made:
  demo/run                 the model: a run folder with checkpoints that Hugging Face's transformers opens
  demo/demo.moetrace.h5    every routing decision on the validation text, readable with h5py
  demo/report.html         the report: open it in a browser
Try next:
  $moe generate demo/run --prompt "The license"
  $moe show demo/run
  $moe train --data system:limit=1MB --model tiny --steps 250 --batch 8 --balance none -o demo/unbalanced
  $moe list routers
EOF
