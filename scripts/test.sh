#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test; those of ranks under sanitizers too
# (scripts/sanitizers.sh has the others).
# Ends with how many tests were skipped, and why.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/install-deps.sh
scripts/format.sh --check
cmake --preset dev >/dev/null
cmake --build --preset dev
ctest --preset dev -j "$(nproc)"
scripts/sanitizers.sh --quick

# The CUDA backend's operations ran on the host above; where nvcc is, they are compiled for a GPU too.
if command -v nvcc >/dev/null 2>&1; then
  BUILD=build/cuda-compile scripts/gpu-check.sh --compile-only
else
  echo "test: no nvcc here, so the CUDA backend was not compiled"
fi

# A test that cannot run says "skipped: why" (tests/skip.h); ctest's log has what each of them said.
log=build/dev/Testing/Temporary/LastTest.log
total=$(grep -c '^[0-9]*/[0-9]* Testing: ' "$log")
skipped=$(grep -c '^skipped: ' "$log" || true)
reasons=$(sed -n 's/^skipped: //p' "$log" | sort | uniq -c | sed 's/^ *\([0-9]*\) \(.*\)/\2 (\1)/' | paste -sd ';' | sed 's/;/; /g')
echo "test: $skipped of $total tests skipped${reasons:+: $reasons}"
