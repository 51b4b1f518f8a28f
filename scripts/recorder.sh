#!/usr/bin/env bash
# The Python recorder beside the program: recordings of published checkpoints against `moe trace` on the same ids, and what becomes of
# padding, packed rows, decoding, training and kills, in transformers 5 and 4.57. The virtual environments (MOE_PEERS, default
# ~/.cache/moe/peers, and MOE_PEERS4, ~/.cache/moe/peers4) are those of scripts/transformers.sh, and made where they are not there.
#   scripts/recorder.sh [--quick] [--preset dev] [CHECKPOINTS...]     --quick: transformers 5 alone, without Trainer and kills
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

preset=dev quick=
while [ $# -gt 0 ]; do
  case $1 in
    --quick) quick=1; shift ;;
    --preset) preset=$2; shift 2 ;;
    -*) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 2 ;;
    *) break ;;
  esac
done
moe=build/$preset/apps/moe
shared=${MOE_SHARED:-../shared}
[ $# -gt 0 ] || set -- "$shared/golden/hf" "$shared/golden/hf2"

# environment FOLDER MAJOR REQUIREMENT: made where transformers of that major version cannot be imported there.
environment() {
  if ! "$1/bin/python" -c "import torch, h5py, xxhash, transformers; assert transformers.__version__.startswith('$2.')" 2>/dev/null; then
    [ -d "$1" ] || python3 -m venv "$1"
    "$1/bin/pip" install --quiet torch safetensors h5py numpy xxhash accelerate "$3"
  fi
}

five=${MOE_PEERS:-$HOME/.cache/moe/peers} four=${MOE_PEERS4:-$HOME/.cache/moe/peers4}
environment "$five" 5 "transformers>=5,<6"
"$five/bin/python" tests/recorder/compare.py "$moe" "$@"
[ -z "$quick" ] || exit 0
"$five/bin/python" tests/recorder/behaviour.py "$moe"
"$five/bin/python" tests/recorder/cost.py
environment "$four" 4 "transformers==4.57.6"
"$four/bin/python" tests/recorder/compare.py "$moe" "$@"
"$four/bin/python" tests/recorder/behaviour.py "$moe"
