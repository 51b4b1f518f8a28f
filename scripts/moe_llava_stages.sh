#!/usr/bin/env bash
# MoE-LLaVA's three stages on made-up pictures, as a recipe of `moe` commands:
#   0  a dense language model learns the words: questions and answers without pictures
#   1  only the projector learns (two products, as in LLaVA 1.5): what is seen gets into the rows of
#      the language model
#   2  the whole dense model learns
#   3  every second feed-forward becomes 4 copies of itself, and feed-forwards and routers learn
# Each stage starts from the one before, and `moe eval` says how many answers are exact after it.
#   scripts/moe_llava_stages.sh [FOLDER]          minutes on two cores; FOLDER: runs/llava by default
#   scripts/moe_llava_stages.sh --quick [FOLDER]  a few steps of each: whether the recipe works
# PROJECTOR: mlp2x_gelu (two products, the default) or linear (one).
# MOE: the program (build/release/apps/moe, build/dev/apps/moe or `moe`). SEED: of all stages (1).
set -euo pipefail
cd "$(dirname "$0")/.."

quick=
if [ "${1:-}" = --quick ]; then
  quick=1
  shift
fi
out=${1:-runs/llava}
seed=${SEED:-1}
moe=${MOE:-}
for there in build/release/apps/moe build/dev/apps/moe; do
  [ -n "$moe" ] || [ ! -x "$there" ] || moe=$there
done
moe=${moe:-moe}
say() { printf '\n== %s\n' "$*"; }

steps0=150 steps1=100 steps2=500 steps3=300
data=shapes:valid=1200
if [ -n "$quick" ]; then
  steps0=3 steps1=3 steps2=4 steps3=4
  data=shapes:valid=24
fi
mkdir -p "$out"
words=$out/words.jsonl
# every question with every answer that fits it, each a text of its own, as a sample will end
{
  for colour in red green blue yellow; do
    for n in 0 1 2 3 4; do echo "how many $colour? $n"; done
  done
  for place in 'top left' 'top right' 'bottom left' 'bottom right'; do
    for a in red green blue yellow none; do echo "colour $place? $a"; done
    for a in square disc triangle cross none; do echo "form $place? $a"; done
  done
} | awk '{ line[NR] = $0 } END { for (i = 0; i < NR; ++i) printf "{\"text\": \"%s\"}\n", line[i * 7919 % NR + 1] }' > "$words"

train() {
  "$moe" train "$@" --seed "$seed" --batch 16 --length 64 --eval-every 0 --force
}
answers() {
  "$moe" eval "$1" --data "$data,split=valid" --length 64 | tee "$1.txt"
}

say "stage 0: the words, without pictures (a dense model)"
train --data "text:path=$words,field=text" --dense --lr 2e-3 --steps $steps0 \
  --model "moe-llava-toy:signal={image:numbers=48,places=16},projector=${PROJECTOR:-mlp2x_gelu}" -o "$out/words"
say "stage 1: the projector alone"
train --data "$data" --init "$out/words" --train projector --lr 3e-3 --steps $steps1 -o "$out/stage1"
answers "$out/stage1"
say "stage 2: the whole dense model"
train --data "$data" --init "$out/stage1" --lr 2e-3 --steps $steps2 -o "$out/stage2"
answers "$out/stage2"
say "stage 3: 4 copies of each feed-forward of layers 0 and 2; feed-forwards and routers learn"
rm -rf "$out/copies"
"$moe" edit "$out/stage2" -o "$out/copies" --upcycle copy:experts=4,k=2
train --data "$data" --init "$out/copies" --train experts --train router --train dense \
  --capacity position:factor=1.5 --balance switch:coef=0.01,counts=top1 --lr 1e-3 \
  --steps $steps3 -o "$out/stage3"
answers "$out/stage3"
say "who takes what: $moe trace $out/stage3 --data $data,split=valid --length 64 -o $out/stage3.moetrace.h5"
