#!/usr/bin/env bash
# One training step here and in PyTorch: first that both compute the same losses and gradients, then how fast. Rows are timed in
# turn on the same machine; peak memory is that of a process of its own. PyTorch lives in a virtual environment outside the tree
# (MOE_PEERS, default ~/.cache/moe/peers), which is made where it is not there.
#   scripts/peers.sh [--models "tiny small"] [--dtypes "f32 bf16"] [--seconds 10] [--threads N] [--batch 8]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

models="tiny small" dtypes="f32" seconds=10 threads=$(nproc) batch=8
while [ $# -gt 0 ]; do
  case $1 in
    --models) models=$2 ;; --dtypes) dtypes=$2 ;; --seconds) seconds=$2 ;; --threads) threads=$2 ;; --batch) batch=$2 ;;
    *) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
  shift 2
done

peers=${MOE_PEERS:-$HOME/.cache/moe/peers}
if ! "$peers/bin/python" -c 'import torch, safetensors, h5py' 2>/dev/null; then
  python3 -m venv "$peers"
  "$peers/bin/pip" install --quiet torch safetensors h5py numpy
fi
moe=build/release/apps/moe
cmake --preset release >/dev/null
cmake --build --preset release --target moe | tail -1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python() { "$peers/bin/python" tests/peers/train_step.py --threads "$threads" "$@"; }

# One document without line breaks: its text then says what follows every batch.
tr -s '[:space:]' ' ' < /usr/share/common-licenses/GPL-3 > "$work/text"
for model in $models; do
  "$moe" train --data "text:path=$work/text" --model "$model" --steps 0 --eval-tokens 1024 -o "$work/$model" 2>/dev/null
  "$moe" train --data "text:path=$work/text" --model "$model" --steps 4 --batch 2 --log-every 1 --eval-tokens 1024 --trace "$work/$model.h5" \
         --save-every 0 -o "$work/$model.run" 2>/dev/null
  same=1
  said=$(python agree "$work/$model" "$work/$model.h5" "$work/$model.run/metrics.jsonl" \
                "$work/text") || same=0
  echo "$model: ${said##*$'\n'}"
  if [ $same = 0 ]; then
    echo "$model: the two compute different things, so that their times cannot be compared" >&2
    exit 1
  fi
done

for model in $models; do
  for dtype in $dtypes; do
    for variant in loop grouped bmm loop+compile grouped+compile bmm+compile; do
      python time "$work/$model" "$variant" --batch "$batch" --dtype "$dtype" --seconds "$seconds" 2>"$work/error" >>"$work/rows.$model.$dtype" ||
        echo "$model $dtype $variant does not run here: $(tail -1 "$work/error")"
    done
    device=cpu
    [ "$dtype" = bf16 ] && device=cpu:dtype=bf16
    "$moe" bench model --model "$model" --batch "$batch" --seconds "$seconds" --threads "$threads" --device "$device" --only step --format json >"$work/ours" || continue
    python3 - "$work/rows.$model.$dtype" "$work/ours" "$model" "$dtype" <<'TABLE'
import json, sys
theirs = [json.loads(l) for l in open(sys.argv[1])]
ours = [r for r in map(json.loads, open(sys.argv[2])) if r["pass"] == "step"][0]
print(f"\n{sys.argv[3]} {sys.argv[4]}: {ours['tokens']} tokens a step, {ours['threads']} threads, torch {theirs[0]['torch']}")
print(f"{'':18} {'tokens/s':>10} {'ms a step':>10} {'peak MiB':>9} {'over import':>12}")
for r in theirs:
    print(f"{'torch ' + r['variant']:18} {r['tokens_per_s']:10,.0f} {r['median']:10.1f} {r['memory_mib']:9.0f} {r['memory_over_import_mib']:12.0f}")
print(f"{'moe':18} {ours['tokens_per_s']:10,.0f} {ours['median']:10.1f} {ours['memory']:9.0f}")
best = max(theirs, key=lambda r: r["tokens_per_s"])
print(f"ours / best of theirs ({best['variant']}): {ours['tokens_per_s'] / best['tokens_per_s']:.2f}; share of the ceiling {ours['ratio']:.2f}")
TABLE
  done
done
