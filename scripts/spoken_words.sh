#!/usr/bin/env bash
# Spoken words: espeak-ng says 45 words in many voices, and a small MoE learns to name them. Whole
# voices are kept for validation, so what counts is words in voices that training never heard.
#   scripts/spoken_words.sh [FOLDER] [OPTIONS OF moe train]
# FOLDER: runs/words by default; sounds in FOLDER/sounds (made once), the run in FOLDER/run.
#   scripts/spoken_words.sh runs/words --seed 2          another seed
#   scripts/spoken_words.sh runs/words --dense           the dense twin
# Every variant of espeak-ng's American English is a voice (100 with version 1.51), with a speed and
# a pitch of its own, and says two words in five. WORDS: the words. STEPS: 700.
# MOE: the program (build/release/apps/moe, build/dev/apps/moe or `moe`).
# Needs espeak-ng (apt-get install espeak-ng; GPL-3+, what it says is yours); moe never calls it.
set -euo pipefail

out=${1:-runs/words}
shift $(($# > 0))
root=$(dirname "$0")/..
moe=${MOE:-}
for there in "$root"/build/release/apps/moe "$root"/build/dev/apps/moe; do
  [ -n "$moe" ] || [ ! -x "$there" ] || moe=$there
done
moe=${moe:-moe}
words=${WORDS:-zero one two three four five six seven eight nine red green blue yellow black white \
  dog cat bird horse house tree water fire stone left right up down stop go yes no open close \
  hello mother father summer winter morning evening music paper window}
sounds=$out/sounds

# Files of a voice: sounds/VOICE/WORD.wav; a file's name is its caption, a folder is a voice.
say_all() {
  local n=0 m voice word
  for voice in "$@"; do
    mkdir -p "$sounds.part/$voice"
    m=$n
    for word in $words; do
      if ((m % 5 < 2)); then
        espeak-ng -z -v "en-us+$voice" -s $((130 + n * 37 % 90)) -p $((20 + n * 23 % 60)) \
          -w "$sounds.part/$voice/$word.wav" "$word"
      fi
      m=$((m + 1))
    done
    n=$((n + 1))
  done
}

if [ ! -d "$sounds" ]; then
  if ! command -v espeak-ng >/dev/null 2>&1; then
    echo "spoken_words: espeak-ng is not here, and it says the words: apt-get install espeak-ng" >&2
    exit 7
  fi
  rm -rf "$sounds.part"
  mkdir -p "$sounds.part"
  mapfile -t names < <(espeak-ng --voices=variant | sed -n 's/.*!v\/\([A-Za-z0-9_-]*\)  .*/\1/p' |
    LC_ALL=C sort -u)
  say_all "${names[@]}"
  mv "$sounds.part" "$sounds"
fi

data=sounds:path=$sounds,apart=folder
model='custom:hidden=96,layers=3,heads=4,kv_heads=4,context=128,experts=8,width=96'
model+=',router={softmax:k=2},balance={switch:coef=0.01}'
show() {
  printf '\n$ %s\n' "$*"
  "$@"
}
show "$moe" train --data "$data" --steps "${STEPS:-700}" --batch 32 --length 64 --lr 3e-3 \
  --threads 1 --eval-every 100 --eval-tokens 0 --force -o "$out/run" \
  --model "$model" \
  "$@"
show "$moe" eval "$out/run" --data "$data,split=valid" --length 64 --threads 1
