#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test. With --asan: under the address and undefined-behaviour sanitizers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

preset=dev
[ "${1:-}" = --asan ] && preset=asan
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
