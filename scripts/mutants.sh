#!/usr/bin/env bash
# Damaged recordings of every binary kind that `moe import` reads: 2,000 mutants of each, every one
# a trace that verifies or a refusal in one sentence, within 1 GiB (tests/import/mutants.py).
#
#   scripts/mutants.sh              # 2,000 of each kind, of recorded files too where there are some
#   scripts/mutants.sh --quick      # 40 of each kind, as ctest runs it
#   MOE=path/to/moe scripts/mutants.sh --kind npz --seed 7 --keep /tmp/wrong
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
moe=${MOE:-build/dev/apps/moe}
if [[ ! -x $moe ]]; then
  echo "mutants.sh: no program at $moe; ninja -C build/dev apps/moe builds it, MOE names another" >&2
  exit 7
fi
words=(--count 2000)
if [[ ${1:-} == --quick ]]; then
  words=(--count 40)
  shift
elif [[ -d ../shared/golden/import ]]; then
  words+=(--samples ../shared/golden/import)
fi
exec /usr/bin/python3 tests/import/mutants.py "$moe" "${words[@]}" "$@"
