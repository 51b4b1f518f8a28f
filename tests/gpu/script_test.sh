#!/usr/bin/env bash
# scripts/gpu-check.sh without a GPU: its table and exit code when the program it runs passes, fails, crashes, hangs or has no device.
#   tests/gpu/script_test.sh MOE_GPU_CHECK
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
export BUILD=$folder/build
bad=0
# expect EXIT_CODE TEXT NAME=VALUE...: runs the script in that environment
expect() {
  local want=$1 text=$2 got=0; shift 2
  env "$@" scripts/gpu-check.sh >"$folder/out" 2>&1 || got=$?
  [ "$got" -eq "$want" ] && grep -q -- "$text" "$folder/out" && return
  echo "with $*: exit code $got instead of $want, or no '$text' in"; cat "$folder/out"
  bad=1
}
cat >"$folder/fake" <<'FAKE'
#!/usr/bin/env bash
case "$FAKE:$1" in
  nodevice:facts) exit 7 ;;
  broken:facts) exit 127 ;;
  *:facts) printf 'row\tdevice\tfake\t\t\n' ;;
  crash:verify) exit 139 ;;
  failed:verify) printf 'row\tcases\t3\tall 4\tFAILED\n'; exit 1 ;;
  silent:steps) exit 1 ;;
  hangs:same) sleep 20 ;;
  *) printf 'row\t%s %s\tfine\t\tok\n' "$1" "$2" ;;
esac
FAKE
cat >"$folder/python" <<'FAKE'
#!/usr/bin/env bash
[ "$1" = -c ] && exit "$NO_TORCH"
[ "$*" = 'tests/peers/expert_layer_torch.py --device cpu' ] || exit 3
printf 'row\ttheirs\tfine\t\t\n'
FAKE
chmod +x "$folder/fake" "$folder/python"
fake=(CHECK="$folder/fake" DEVICE=cpu LIMIT=1)
expect 0 '^whole check .* ok$' "${fake[@]}" FAKE=good
expect 0 '^theirs  *fine' "${fake[@]}" FAKE=good PYTHON="$folder/python" NO_TORCH=0
expect 0 '^PyTorch beside it  *not here' "${fake[@]}" FAKE=good PYTHON="$folder/python" NO_TORCH=1
expect 7 'need a GPU' "${fake[@]}" FAKE=nodevice
expect 1 'does not start: exit code 127' "${fake[@]}" FAKE=broken
expect 1 '^verify cpu .*ended with exit code 139 .*FAILED' "${fake[@]}" FAKE=crash
expect 1 '^cases .*FAILED' "${fake[@]}" FAKE=failed
expect 1 '^ten steps cpu .*ended with exit code 1 .*FAILED' "${fake[@]}" FAKE=silent
expect 1 '^same bytes cpu .*not done in the time it had .*FAILED' "${fake[@]}" FAKE=hangs
expect 0 '^cpu: cases against the definition .* ok$' CHECK="$1" DEVICE=cpu
exit "$bad"
