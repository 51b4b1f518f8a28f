#!/usr/bin/env bash
# Published classes beside ours: what they write is read here, what is written and edited here is read by them, in transformers 5 and 4.57. The two
# virtual environments (MOE_PEERS, default ~/.cache/moe/peers, and MOE_PEERS4, ~/.cache/moe/peers4) are made where they are not there.
#   scripts/transformers.sh [--preset dev]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

preset=dev
while [ $# -gt 0 ]; do
  case $1 in
    --preset) preset=$2; shift 2 ;;
    *) sed -n '2,4s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
done

# environment FOLDER MAJOR REQUIREMENT: made where transformers of that major version cannot be imported there.
environment() {
  local at=$1 major=$2
  if ! "$at/bin/python" -c "import torch, safetensors, h5py, transformers; assert transformers.__version__.startswith('$major.')" 2>/dev/null; then
    python3 -m venv "$at"
    "$at/bin/pip" install --quiet torch safetensors h5py numpy "$3"
  fi
}
five=${MOE_PEERS:-$HOME/.cache/moe/peers} four=${MOE_PEERS4:-$HOME/.cache/moe/peers4}
environment "$five" 5 "transformers>=5,<6"
environment "$four" 4 "transformers==4.57.6"

cmake --preset "$preset" >/dev/null
cmake --build --preset "$preset" --target moe test_model test_tower peers_write_model | tail -1
export MOE_PYTHON=$five/bin/python MOE_PYTHON4=$four/bin/python
"build/$preset/tests/test_model" "*transformers*"

# The figures themselves, for docs/models.md.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$MOE_PYTHON" tests/peers/make_family.py "$work/read" 2>/dev/null
"$MOE_PYTHON" tests/peers/remake_family.py "$work/read"
"build/$preset/apps/moe" verify --golden "$work/read"
modal=${MOE_SHARED:-../shared}/golden/modal/hf
if [ -d "$modal" ]; then
  "$MOE_PYTHON" tests/peers/modal_cases.py "$modal" "$work/modal" 2>/dev/null
  "build/$preset/apps/moe" verify --golden "$work/modal"
  "$MOE_PYTHON" -c "import torchvision, PIL" 2>/dev/null || "$five/bin/pip" install --quiet torchvision pillow
  "$MOE_PYTHON" tests/peers/check_files.py "build/$preset/apps/moe" "$modal" "$work/files" 2>/dev/null
fi
"$MOE_PYTHON" tests/peers/record_towers.py "$work/towers" 2>/dev/null
MOE_TOWER_CASES="$work/towers" "build/$preset/tests/test_tower" "encoders and projectors give*"
"$MOE_PYTHON" tests/peers/check_edits.py "build/$preset/apps/moe" "$work/read" 2>/dev/null
"$MOE_PYTHON4" -c "import compressed_tensors, accelerate" 2>/dev/null || "$four/bin/pip" install --quiet compressed-tensors accelerate
"$MOE_PYTHON4" tests/peers/check_few_bits.py "build/$preset/apps/moe" 2>/dev/null
"build/$preset/tests/peers_write_model" "$work/written"
"$MOE_PYTHON" tests/peers/check_logits.py --expect 5 "$work/written"
"$MOE_PYTHON4" tests/peers/check_logits.py --expect 4 "$work/written"
