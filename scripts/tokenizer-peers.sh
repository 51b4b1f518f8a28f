#!/usr/bin/env bash
# Text to ids here, in Hugging Face's tokenizers and in tiktoken: the same ids first, then how fast: one thread each, 10^6 bytes
# of text a second of processor time, so that other work on the machine disturbs less; two threads by the clock. The vocabulary is
# Qwen's (151,643 ranks, from the PyPI package dashscope, Apache-2.0). The two libraries live in a virtual environment outside the tree
# (MOE_PEERS, default ~/.cache/moe/peers), which is made where it is not there.
# With --hash nothing is timed: the ids of the whole text by `moe tokenizer encode` and by each file's own library (tokenizers,
# sentencepiece) are compared by their SHA-256; without files those of ../shared/golden/tokenizers.
#   scripts/tokenizer-peers.sh [--moe build/release/apps/moe] [--mb 10] [--seconds 3] [--hash [TOKENIZER]...] [NAME=TEXTFILE...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

moe=build/release/apps/moe mb=10 seconds=3 texts=() hash= files=()
while [ $# -gt 0 ]; do
  case $1 in
    --moe) moe=$2; shift ;; --mb) mb=$2; shift ;; --seconds) seconds=$2; shift ;;
    --hash) hash=1 ;;
    *=*) texts+=("$1") ;;
    *.json|*.model) files+=("$1") ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
  shift
done
peers=${MOE_PEERS:-$HOME/.cache/moe/peers}
if ! "$peers/bin/python" -c 'import tokenizers, tiktoken' 2>/dev/null; then
  [ -x "$peers/bin/python" ] || python3 -m venv "$peers"
  "$peers/bin/pip" install --quiet tokenizers tiktoken
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python() { TOKENIZERS_PARALLELISM=false RAYON_NUM_THREADS=1 "$peers/bin/python" tests/peers/tokenizer_speed.py "$@"; }

# Without texts of the caller's own: English and Chinese beside the tree where they are, C headers of this machine.
if [ ${#texts[@]} -eq 0 ]; then
  find /usr/include -name '*.h' -size +8k | sort | sed -n 1,400p | xargs -d '\n' cat > "$work/code"
  texts=("code=$work/code")
  for name in english-shakespeare chinese-tang; do
    if [ -f "../shared/data/$name.txt" ]; then texts+=("${name%%-*}=../shared/data/$name.txt"); fi
  done
fi
if [ -n "$hash" ]; then
  "$peers/bin/python" -c 'import sentencepiece' 2>/dev/null || "$peers/bin/pip" install --quiet sentencepiece
  [ ${#files[@]} -gt 0 ] || files=(../shared/golden/tokenizers/*/tokenizer.json ../shared/golden/tokenizers/*/tokenizer.model)
  python documents "$work/docs.jsonl" "$mb" "${texts[@]}"
  TOKENIZERS_PARALLELISM=false "$peers/bin/python" tests/peers/tokenizer_hash.py "$(realpath "$moe")" "$work/docs.jsonl" "${files[@]}"
  exit
fi
"$peers/bin/pip" download --quiet --no-deps --dest "$work" dashscope==2.0.2
unzip -q "$work"/dashscope-*.whl dashscope/resources/qwen.tiktoken -d "$work"
ranks=$work/dashscope/resources/qwen.tiktoken
python documents "$work/docs.jsonl" "$mb" "${texts[@]}"
python qwen "$ranks" "$work/qwen.json"

python time tokenizers "$work/qwen.json" "$work/docs.jsonl" > "$work/tokenizers"
python time tiktoken "$ranks" "$work/docs.jsonl" > "$work/tiktoken"
"$moe" bench tokenizer "$work/qwen.json" --data "text:path=$work/docs.jsonl,field=text,domain=kind" --document 0 --threads 1 --threads 2 \
       --seconds "$seconds" --format json > "$work/moe"
python3 - "$work" <<'TABLE'
import json, sys
rows = {n: [json.loads(l) for l in open(f"{sys.argv[1]}/{n}")] for n in ("tokenizers", "tiktoken", "moe")}
kinds = [r["kind"] for r in rows["tokenizers"]]
ours = {(r["text"], r["threads"]): r for r in rows["moe"]}
def rate(name, kind):
    if kind != "all":
        return next(r["rate"] for r in rows[name] if r["kind"] == kind)
    return sum(r["bytes"] for r in rows[name]) / sum(r["bytes"] / r["rate"] for r in rows[name])
print(f"{'MB/s':10} {'tokenizers':>10} {'tiktoken':>9} {'moe':>8} {'over tokenizers':>16} {'over tiktoken':>14} {'2 threads':>10}  ids")
for kind in kinds + (["all"] if len(kinds) > 1 else []):
    hf, tik, one = rate("tokenizers", kind), rate("tiktoken", kind), ours[kind, 1]["processor"]
    two = ours[kind, 2]["rate"] / ours[kind, 1]["rate"]
    hashes = {r["hash"] for n in ("tokenizers", "tiktoken") for r in rows[n] if r["kind"] == kind} | {ours[kind, 1]["hash"]}
    same = "" if kind == "all" else "equal" if len(hashes) == 1 else "DIFFERENT"
    print(f"{kind:10} {hf:10.2f} {tik:9.1f} {one:8.1f} {one / hf:16.1f} {one / tik:14.1f} {two:10.2f}  {same}")
print(f"one word of {ours['one word', 1]['bytes']:,} bytes: {ours['one word', 1]['median']:.1f} ms by the clock")
TABLE
