#!/usr/bin/env bash
# scripts/demo.sh and scripts/compare_routers.py in small.
#   demo.sh PROGRAM FOLDER
set -euo pipefail
program=$1 folder=$2
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
rm -rf "$folder"
if [ ! -d /usr/share/common-licenses ]; then
  echo "skipped: the demo's text is that of a Debian machine" >&2
  exit 77
fi
MOE=$program scripts/demo.sh --quick "$folder" >"$folder.log" || { cat "$folder.log"; exit 1; }
for made in run demo.moetrace.h5 report.html; do
  [ -s "$folder/$made" ] || { echo "demo: no $folder/$made"; exit 1; }
done
grep -q '</html>' "$folder/report.html" || { echo "demo: report.html has no end"; exit 1; }
# what is proposed at the end is what the program takes
sed -n 's/^  \(.*moe.* train .*\)/\1/p' "$folder.log" | grep -q . || { echo "demo: proposes nothing"; exit 1; }
sed -n 's/^  \(.*moe.* train .*\)/\1 --dry-run/p' "$folder.log" | bash >/dev/null
# a second run does not touch what the first one made
if MOE=$program scripts/demo.sh --quick "$folder" >/dev/null 2>&1; then
  echo "demo: a second run was not refused"
  exit 1
fi
table=$(scripts/compare_routers.py text:path=README.md --moe "$program" --steps 2 --seeds 1 --only round_robin)
grep -Eq '^\| round_robin `round_robin:k=2` \| [0-9.]+ \| [0-9.]+ \|' <<<"$table" || { echo "$table"; exit 1; }
