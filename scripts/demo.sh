#!/usr/bin/env bash
# From nothing to a report page: installs what is missing, builds a release, trains a small MoE
# language model on text found on this machine, traces its routing and reports on it. Everything it
# makes is under build/ and demo/.
#   scripts/demo.sh
#   scripts/demo.sh --quick FOLDER   the last three steps in small, in a new FOLDER, by the program
#                                    MOE (as ctest does)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
began=$SECONDS
say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
[ -t 1 ] && [ -z "${NO_COLOR:-}" ] || say() { printf '\n== %s\n' "$*"; }

moe=build/release/apps/moe out=demo model=tiny text=system:limit=1MB
steps=${MOE_DEMO_STEPS:-250} evaluated=20000 traced=40000
quick=
if [ "${1:-}" = --quick ]; then
  if [ $# != 2 ] || [ -z "${MOE:-}" ]; then
    echo "demo: MOE=PROGRAM scripts/demo.sh --quick FOLDER" >&2
    exit 2
  fi
  quick=1 moe=$MOE out=$2 model=nano text=system:limit=32KB steps=3 evaluated=256 traced=512
elif [ $# != 0 ]; then
  sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
if [ -e "$out" ]; then
  echo "demo: the folder '$out' exists; remove it to run again (rm -r $out)" >&2
  exit 2
fi
if [ -z "$quick" ]; then
  say "1/5 what moe needs"
  scripts/install-deps.sh
  say "2/5 building (a release)"
  cmake --preset release -DMOE_TESTS=OFF >/dev/null
  cmake --build --preset release --target moe
fi
mkdir -p "$out"
say "3/5 training a model on text of this machine"
"$moe" train --data "$text" --model "$model" --steps "$steps" --batch 8 --eval-every 0 \
  --eval-tokens "$evaluated" -o "$out/run"
say "4/5 recording where its tokens go"
"$moe" trace "$out/run" --data "$text,split=valid" --tokens "$traced" -o "$out/demo.moetrace.h5"
say "5/5 the report"
"$moe" report "$out/demo.moetrace.h5"
"$moe" report "$out/demo.moetrace.h5" -o "$out/report.html"
cat <<EOF

Done in $(( (SECONDS - began) / 60 )) min $(( (SECONDS - began) % 60 )) s. What was made:
  $out/run                 the model: a run folder with checkpoints that transformers opens
  $out/demo.moetrace.h5    every routing decision on the validation text, readable with h5py
  $out/report.html         the report: open it in a browser
Try next:
  $moe generate $out/run --prompt "The license"
  $moe show $out/run
  $moe train --data $text --model $model --steps $steps --batch 8 --balance none -o $out/unbalanced
  $moe list routers
EOF
