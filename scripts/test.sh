#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test. With --asan: under the address and undefined-behaviour sanitizers.
# With --tsan: those of threads (core, comm, training, ranks as threads among them) under the thread sanitizer, built by clang 16
# (apt-get install clang-16 libclang-rt-16-dev libomp-16-dev), whose OpenMP tells the sanitizer what waits for what.
# Ends with how many tests were skipped, and why.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

preset=dev
[ "${1:-}" = --asan ] && preset=asan
if [ "${1:-}" = --tsan ]; then
  cmake --preset tsan >/dev/null
  cmake --build --preset tsan --target test_core test_comm test_training
  export OMP_TOOL_LIBRARIES=/usr/lib/llvm-16/lib/libarcher.so
  export TSAN_OPTIONS="ignore_noninstrumented_modules=1 suppressions=$PWD/tests/tsan.supp"
  for test in core comm training; do
    "build/tsan/tests/test_$test"
  done
  exit 0
fi
scripts/install-deps.sh
scripts/format.sh --check
cmake --preset "$preset" >/dev/null
cmake --build --preset "$preset"
ctest --preset "$preset" -j "$(nproc)"

# The CUDA backend's operations ran on the host above; where nvcc is, they are compiled for a GPU too.
if command -v nvcc >/dev/null 2>&1; then
  BUILD=build/cuda-compile scripts/gpu-check.sh --compile-only
else
  echo "test: no nvcc here, so the CUDA backend was not compiled"
fi

# A test that cannot run says "skipped: why" (tests/skip.h); ctest's log has what each of them said.
log=build/$preset/Testing/Temporary/LastTest.log
total=$(grep -c '^[0-9]*/[0-9]* Testing: ' "$log")
skipped=$(grep -c '^skipped: ' "$log" || true)
reasons=$(sed -n 's/^skipped: //p' "$log" | sort | uniq -c | sed 's/^ *\([0-9]*\) \(.*\)/\2 (\1)/' | paste -sd ';' | sed 's/;/; /g')
echo "test: $skipped of $total tests skipped${reasons:+: $reasons}"
