#!/usr/bin/env bash
# A published folder of a large MoE model's shape, of random weights in bf16 with a tokenizer of 8,192 pieces trained on the texts given,
# traced on them: tokens a second, and peak memory over the size of the file. The default is OLMoE's shape (H=2048, 64 experts of
# 1024, top 8, V=50304) with 8 of its 16 layers: 7.1 GB. --small makes a model of seconds, to try the script.
#   scripts/large-model.sh [--moe build/release/apps/moe] [--work FOLDER] [--layers 8] [--tokens 8192] [--batch 8]
#                          [--expert-memory 2GB] [--device cpu] [--small] [--keep]
#                          [--glob '*.txt'] TEXT_FOLDER
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
moe=build/release/apps/moe work= layers=8 tokens=8192 batch=8 memory=2GB device=cpu keep= texts= glob='*.txt'
hidden=2048 width=1024 experts=64 heads=16 vocabulary=50304 pieces=8192 context=1024
while [ $# -gt 0 ]; do
  case $1 in
    --moe) moe=$2; shift ;; --work) work=$2; shift ;; --layers) layers=$2; shift ;; --tokens) tokens=$2; shift ;;
    --batch) batch=$2; shift ;; --expert-memory) memory=$2; shift ;; --device) device=$2; shift ;;
    --small) hidden=64 width=32 experts=16 heads=4 vocabulary=1024 pieces=512 context=256 layers=2 tokens=2048 memory=100KB ;;
    --keep) keep=1 ;;
    --glob) glob=$2; shift ;;
    -*) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2 ;;
    *) texts=$1 ;;
  esac
  shift
done
[ -d "$texts" ] || { echo "large-model: name a folder of texts" >&2; exit 2; }
moe=$(realpath "$moe") texts=$(realpath "$texts")
if [ -z "$work" ]; then work=$(mktemp -d); else mkdir -p "$work"; fi
[ -n "$keep" ] || trap 'rm -rf "$work/tokenizer.json" "$work/big" "$work/big.h5" "$work/big.html" "$work/said"' EXIT

run() { echo "+ moe ${*/#$work\//}" >&2; "$moe" "$@"; }
run tokenizer train --data "text:path=$texts,glob=$glob" --vocab "$pieces" --pattern gpt2 -o "$work/tokenizer.json" --force
shape=layers=$layers,hidden=$hidden,heads=$heads,kv_heads=$heads,width=$width,context=$context,vocabulary=$vocabulary,experts=$experts
start=$(date +%s)
run train --steps 0 --save-dtype bf16 --data "text:path=$texts,glob=$glob" --tokenizer "$work/tokenizer.json" \
    --model "olmoe-toy:$shape,router={softmax:k=8,norm=0}" -o "$work/big" --force
echo "made in $(($(date +%s) - start)) s"
weights=$(du -cb "$work"/big/checkpoint-*/*.safetensors | tail -1 | cut -f1)

# no other page of the file in memory than those that are read now
sync
for file in "$work"/big/checkpoint-*/*.safetensors; do dd if="$file" iflag=nocache count=0 status=none; done
echo "+ moe trace big --data text:path=$texts,glob=$glob --tokens $tokens --batch $batch --expert-memory $memory --device $device" >&2
start=$(date +%s.%N)
/usr/bin/time -f '%M' -o "$work/said" "$moe" trace "$work/big" --data "text:path=$texts,glob=$glob" --tokens "$tokens" --length "$context" --batch "$batch" \
    --expert-memory "$memory" --device "$device" --redundancy-tokens 0 -o "$work/big.h5" --force
seconds=$(awk "BEGIN { print $(date +%s.%N) - $start }")
peak=$(tail -1 "$work/said")
run verify "$work/big.h5"
run report "$work/big.h5" -o "$work/big.html" --force
rows=$(run show "$work/big.h5" --format json | python3 -c 'import json,sys; print(json.load(sys.stdin).get("tokens", ""))' 2>/dev/null || true)
awk -v tokens="${rows:-$tokens}" -v s="$seconds" -v peak="$peak" -v bytes="$weights" 'BEGIN {
  printf "%d tokens in %.1f s with opening: %.1f tokens/s; peak memory %.2f GB, %.2f of the %.2f GB of weights\n",
         tokens, s, tokens / s, peak * 1024 / 1e9, peak * 1024 / bytes, bytes / 1e9 }'
