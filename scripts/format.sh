#!/usr/bin/env bash
# Writes every C++ file as .clang-format says (Debian's clang-format 14, the one CI has).
#   scripts/format.sh            formats in place
#   scripts/format.sh --check    exit code 1, naming the lines, where a file is written differently
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

how=(-i)
[ "${1:-}" = --check ] && how=(--dry-run -Werror)
git ls-files -z -- '*.h' '*.cpp' '*.cu' '*.inl' | xargs -0 -n 40 -P "$(nproc)" clang-format "${how[@]}"
