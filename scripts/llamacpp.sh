#!/usr/bin/env bash
# GGUF files of this program in llama.cpp: opened, and continued as this program continues the checkpoint. llama-cpp-python, which builds llama.cpp from
# its source package, lives in a virtual environment outside the tree (MOE_LLAMACPP, default ~/.cache/moe/llamacpp), and the classes that make the tiny
# checkpoints in another (MOE_PEERS, default ~/.cache/moe/peers); both are made where they are not there. Folders of checkpoints may be named instead.
# --speed times decoding in both instead, with the release build, on files that it makes in FOLDER (tests/peers/decode_speed.py).
#   scripts/llamacpp.sh [--preset dev] [FOLDER ...] | --speed [FOLDER]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

preset=dev
speed=
folders=()
while [ $# -gt 0 ]; do
  case $1 in
    --preset) preset=$2; shift 2 ;;
    --speed) speed=yes preset=release; shift ;;
    -*) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2 ;;
    *) folders+=("$1"); shift ;;
  esac
done

llamacpp=${MOE_LLAMACPP:-$HOME/.cache/moe/llamacpp}
if ! "$llamacpp/bin/python" -c 'import llama_cpp' 2>/dev/null; then
  python3 -m venv "$llamacpp"
  CMAKE_ARGS="-DLLAVA_BUILD=OFF ${CMAKE_ARGS:-}" "$llamacpp/bin/pip" install --quiet "llama-cpp-python==0.3.36"
fi
cmake --preset "$preset" >/dev/null
cmake --build --preset "$preset" --target moe | tail -1

if [ -n "$speed" ]; then
  folder=${folders[0]:-${TMPDIR:-/tmp}/moe-decode}
  exec "$llamacpp/bin/python" tests/peers/decode_speed.py "build/$preset/apps/moe" "$folder"
fi
if [ ${#folders[@]} -eq 0 ]; then
  peers=${MOE_PEERS:-$HOME/.cache/moe/peers}
  if ! "$peers/bin/python" -c 'import torch, safetensors, transformers' 2>/dev/null; then
    python3 -m venv "$peers"
    "$peers/bin/pip" install --quiet torch safetensors h5py numpy "transformers>=5,<6"
  fi
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  "$peers/bin/python" tests/peers/make_family.py "$work/made" 2>/dev/null
  folders=("$work/made")
fi
"$llamacpp/bin/python" tests/peers/check_gguf.py "build/$preset/apps/moe" "${folders[@]}"
