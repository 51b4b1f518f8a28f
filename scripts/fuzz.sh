#!/usr/bin/env bash
# Fuzzes the readers of files that others made (tests/fuzz/readers.def) with libFuzzer under the address and undefined-behaviour
# sanitizers: no crash, nothing but a sentence thrown, no input over 10 s, memory under 1 GiB. Seeds: ../shared/golden, where it is there, and
# tests/fuzz/corpus. What breaks a reader is left in build/fuzz/findings/READER; mend it, then put it into tests/fuzz/corpus/READER.
#   scripts/fuzz.sh [--seconds 60] [--jobs 1] [READER...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=60 jobs=1
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds=$2; shift 2 ;;
    --jobs) jobs=$2; shift 2 ;;
    -*) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 2 ;;
    *) break ;;
  esac
done
several=()
[ "$jobs" -le 1 ] || several=(-jobs="$jobs")  # their logs are fuzz-N.log, in the order of jobs
command -v clang++-16 >/dev/null 2>&1 || { echo "fuzz: needs clang++-16 and its runtime (apt-get install clang-16 libclang-rt-16-dev libomp-16-dev)" >&2; exit 7; }
cmake --preset fuzz >/dev/null
cmake --build --preset fuzz --target fuzz_readers

names=$(sed -n 's/^FUZZ(\([a-z_]*\),.*/\1/p' tests/fuzz/readers.def)
[ $# -gt 0 ] || set -- $names
shared=${MOE_SHARED:-../shared}
failed=0
for reader in "$@"; do
  line=$(grep "^FUZZ($reader," tests/fuzz/readers.def) || { echo "fuzz: no reader '$reader': $names" >&2; exit 2; }
  file=$(sed 's/^[^"]*"\([^"]*\)".*/\1/' <<<"$line")
  from=$(sed 's/.*"\([^"]*\)")$/\1/' <<<"$line")
  work=build/fuzz/corpus/$reader findings=build/fuzz/findings/$reader
  mkdir -p "$work" "$findings" "tests/fuzz/corpus/$reader"
  if [ -n "$from" ] && [ -d "$shared/golden/$from" ]; then
    ending=${file##*.}
    [ "$ending" = "$file" ] && ending='*'
    find "$shared/golden/$from" -type f -name "*.$ending" -size -256k ! -name 'expected.*' -print0 |
      while IFS= read -r -d '' seed; do cp "$seed" "$work/$(sha256sum <"$seed" | cut -c1-16)"; done
  fi
  if [ "$reader" = trace ]; then
    moe=$(ls -t build/*/apps/moe 2>/dev/null | head -1)
    [ -n "$moe" ] || { echo "fuzz: trace: no seed: build the dev preset first" >&2; exit 7; }
    "$moe" synth uniform --tokens 64 --layers 2 --experts 4 --topk 2 --force -o "$work/small.h5" >/dev/null
  fi
  if [ "$reader" = gif ]; then  # those that the tests show beside Pillow
    python3 - "$work" <<'PYTHON'
import re, sys
cases = re.findall(r'\{\s*((?:"[0-9a-f]*"\s*)+),', open('tests/signal/gif_cases.inc').read())
assert cases, 'tests/signal/gif_cases.inc holds no case'
for n, case in enumerate(cases):
    with open(f'{sys.argv[1]}/case-{n}', 'wb') as out:
        out.write(bytes.fromhex(''.join(re.findall(r'"(.*?)"', case))))
PYTHON
  fi
  start=$(date +%s)
  if MOE_FUZZ=$reader build/fuzz/tests/fuzz_readers -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=262144 \
      "${several[@]}" -artifact_prefix="$findings/" "$work" "tests/fuzz/corpus/$reader" >"build/fuzz/$reader.log" 2>&1; then
    runs=$(sed -n 's/^Done \([0-9]*\) runs.*/\1/p' "build/fuzz/$reader.log" | tail -1)
    echo "fuzz: $reader: ${runs:-?} inputs in $(($(date +%s) - start)) s, nothing found"
  else
    echo "fuzz: $reader: FOUND, see build/fuzz/$reader.log and $findings"
    failed=1
  fi
done
exit $failed
