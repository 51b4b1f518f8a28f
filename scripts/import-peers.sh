#!/usr/bin/env bash
# How fast `moe import` is, through to the finished trace file, beside the least that a script does
# in Python: orjson + numpy, the ids in one array and nothing written. One run, the two in turn;
# the ids must be the same. Python's part lives in a virtual environment outside the tree
# (MOE_PEERS, default ~/.cache/moe/peers), which is made where it is not there.
#   scripts/import-peers.sh [--moe build/release/apps/moe] [--mb 200] [--runs 5]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

moe=build/release/apps/moe
mb=200
runs=5
while [ $# -gt 0 ]; do
  case $1 in
    --moe) moe=$2 ;;
    --mb) mb=$2 ;;
    --runs) runs=$2 ;;
    *) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
  shift 2
done
peers=${MOE_PEERS:-$HOME/.cache/moe/peers}
if ! "$peers/bin/python" -c 'import orjson, numpy, h5py' 2>/dev/null; then
  [ -x "$peers/bin/python" ] || python3 -m venv "$peers"
  "$peers/bin/pip" install --quiet orjson numpy h5py
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$peers/bin/python" tests/peers/import_speed.py make "$work" "$mb"
"$peers/bin/python" - "$moe" "$work" "$runs" <<'TABLE'
import os, statistics, subprocess, sys, time
import h5py, numpy as np

moe, work, runs = sys.argv[1], sys.argv[2], int(sys.argv[3])
kinds = {"megatron": ("router_trace_rank0.jsonl", ["--experts", "64"]),
         "base64": ("responses.jsonl", ["--experts", "64"])}

def theirs(kind, path):
    out = subprocess.run([sys.executable, "tests/peers/import_speed.py", "read", kind, path],
                         capture_output=True, text=True, check=True).stdout.split()
    return float(out[0]), int(out[1]), int(out[2])

def ours(path, words):
    begin = time.perf_counter()
    subprocess.run([moe, "import", path, *words, "-o", f"{work}/t.h5", "--force"],
                   capture_output=True, check=True)
    return time.perf_counter() - begin

def ids_of_trace():
    with h5py.File(f"{work}/t.h5") as file:
        ids = file["routing/expert_ids"][:]
    return int((ids != 0xFFFF).sum()), int(ids[ids != 0xFFFF].sum(dtype=np.uint64))

heads = ("orjson + numpy", "moe", "ratio", "lowest", "highest")
print(f"{'MB/s':10} " + " ".join(f"{head:>14}" for head in heads) + "  ids")
for kind, (name, words) in kinds.items():
    path = f"{work}/{name}"
    size = os.path.getsize(path) / 1e6
    ours(path, words)
    pairs = []
    for _ in range(runs):
        seconds, count, total = theirs(kind, path)
        pairs.append((seconds, ours(path, words)))
    same = "equal" if ids_of_trace() == (count, total) else "DIFFERENT"
    ratios = sorted(a / b for a, b in pairs)
    middle = [statistics.median(p[n] for p in pairs) for n in (0, 1)]
    cells = [size / middle[0], size / middle[1], statistics.median(ratios), ratios[0], ratios[-1]]
    print(f"{kind:10} " + " ".join(f"{cell:14.2f}" for cell in cells) + f"  {same}")
TABLE
