#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test. With --asan: under the address and undefined-behaviour sanitizers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

preset=dev
[ "${1:-}" = --asan ] && preset=asan
scripts/install-deps.sh
cmake --preset "$preset" >/dev/null
cmake --build --preset "$preset"
ctest --preset "$preset" -j "$(nproc)"
