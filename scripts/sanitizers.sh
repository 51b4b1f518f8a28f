#!/usr/bin/env bash
# Tests under sanitizers. `--quick`, which scripts/test.sh runs: what ranks say to each other, and a
# layer shared out to ranks, as threads of one process, under the sanitizer of threads and under
# those of addresses and undefined behaviour; minutes. `--asan`: every test under those of addresses
# and undefined behaviour; more than an hour. `--tsan`: tests of the core, the ranks and of training
# under that of threads, by clang 16, whose OpenMP tells it what waits for what
# (apt-get install clang-16 libclang-rt-16-dev libomp-16-dev).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# g++'s OpenMP tells the sanitizer of threads nothing, so each rank has one thread. Without a fixed
# layout of addresses a new kernel puts things where that sanitizer does not expect them.
quick() {
  for sanitizer in thread address,undefined; do
    local build=build/ranks-${sanitizer%%,*}
    cmake --preset dev -B "$build" -DMOE_SANITIZE="$sanitizer" >/dev/null
    cmake --build "$build" --target test_comm
    echo "sanitizers: $sanitizer"
    OMP_NUM_THREADS=1 setarch -R "$build/tests/test_comm"
  done
}

addresses() {
  cmake --preset asan >/dev/null
  cmake --build --preset asan
  ctest --preset asan -j "$(nproc)"
}

threads() {
  cmake --preset tsan >/dev/null
  cmake --build --preset tsan --target test_core test_comm test_training
  export OMP_TOOL_LIBRARIES=/usr/lib/llvm-16/lib/libarcher.so
  export TSAN_OPTIONS="ignore_noninstrumented_modules=1 suppressions=$PWD/tests/tsan.supp"
  for test in core comm training; do
    "build/tsan/tests/test_$test"
  done
}

case "${1:-}" in
  --quick) quick ;;
  --asan) addresses ;;
  --tsan) threads ;;
  *)
    echo "scripts/sanitizers.sh --quick, --asan or --tsan" >&2
    exit 2
    ;;
esac
