#!/usr/bin/env bash
# Is the CUDA backend right and how fast is it? One command on a machine with an NVIDIA GPU, a C++ compiler, CMake and the CUDA
# toolkit 13; no network, no other library. Builds moe_gpu_check, holds every operation to the definition, times the expert layer beside
# dense cuBLAS (and PyTorch, where it is), looks for bad memory accesses and races, and prints one table last.
#   scripts/gpu-check.sh [--build-only | --compile-only]      (--compile-only: the CUDA sources alone, for machines without a GPU)
# Exit code 0: all passed; 1: something failed, was too slow or did not fit into the time; 2: usage; 7: no CUDA toolkit or no device
# here, so nothing was run. BUILD: the folder to build in (build/gpu-check); ARCH: what to compile for (90); LIMIT: seconds for each
# part (240); TOTAL: for everything (600); CHECK: a moe_gpu_check that is built already; DEVICE: cuda, or cpu to rehearse with CHECK;
# PYTHON: one that has PyTorch (python3).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build=${BUILD:-build/gpu-check} arch=${ARCH:-90} limit=${LIMIT:-240} total=${TOTAL:-600} device=${DEVICE:-cuda}
began=$SECONDS failed=0
say() { echo "gpu-check: $*" >&2; }

target=moe_gpu_check
case "${1:-}" in
  '' | --build-only) ;;
  --compile-only) target=moe_cuda ;;
  *) say "there is no option '$1'; try --build-only or --compile-only"; exit 2 ;;
esac
mkdir -p "$build" && [ -w "$build" ] || { say "cannot write to $build; set BUILD to another folder"; exit 1; }
check=${CHECK:-$build/tests/gpu/moe_gpu_check} rows=$build/rows.tsv
if [ -z "${CHECK:-}" ]; then
  nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null)
  [ -n "$nvcc" ] || { say "there is no nvcc here, so the CUDA backend cannot be built; it comes with the CUDA toolkit 13"; exit 7; }
  command -v cmake >/dev/null || { say "there is no cmake here, so nothing can be built"; exit 7; }
  say "building for sm_$arch with $nvcc"
  if ! { cmake -S . -B "$build" -DCMAKE_CUDA_COMPILER="$nvcc" -DMOE_CUDA=ON -DMOE_ONLY_GPU_CHECK=ON -DCMAKE_BUILD_TYPE=Release -DCMAKE_CUDA_ARCHITECTURES="$arch" &&
         cmake --build "$build" --target "$target" -j "$(nproc)"; } >"$build/build.log" 2>&1; then
    tail -n 40 "$build/build.log" >&2
    say "the build failed; its whole output is in $build/build.log"
    exit 1
  fi
  say "$target built in $((SECONDS - began)) s"
  [ -n "${1:-}" ] && exit 0
fi

row() { printf 'row\t%s\t%s\t%s\t%s\n' "$@" >>"$rows"; }
bad() { row "$1" "$2" '' FAILED; failed=1; }
# within COMMAND...: with what is left of the time, but at most LIMIT; 124 where that was not enough
within() {
  local left=$((total - (SECONDS - began)))
  [ "$left" -gt 0 ] || return 124
  timeout "$((left < limit ? left : limit))" "$@"
}
# part NAME COMMAND...: its rows go to the table, the rest to stderr; what did not end well and has not said so itself is a failure
part() {
  local name=$1 status=0; shift
  local start=$SECONDS
  within "$@" >"$build/out" || status=$?
  grep $'^row\t' "$build/out" >>"$rows"
  case "$status" in
    0) ;;
    124) bad "$name" "not done in the time it had" ;;
    *) grep -q $'\tFAILED$' "$build/out" && failed=1 || bad "$name" "ended with exit code $status" ;;
  esac
  say "$name: $((SECONDS - start)) s"
}
# sanitize TOOL: the cases under compute-sanitizer
sanitize() {
  local tool=$1 status=0 name="compute-sanitizer $1 over the cases"
  within "$sanitizer" --tool "$tool" --error-exitcode 9 "$check" cases "$device" >"$build/$tool.log" 2>&1 || status=$?
  local said
  said=$(grep -o 'ERROR SUMMARY.*\|RACECHECK SUMMARY.*' "$build/$tool.log" | tail -n 1)
  if [ "$status" -eq 0 ] && [ -n "$said" ]; then row "$name" "$said" "0 errors" ok
  elif [ "$status" -eq 124 ]; then bad "$name" "not done in the time it had"
  else bad "$name" "${said:-ended with exit code $status}"; tail -n 15 "$build/$tool.log" >&2
  fi
}

: >"$rows"
status=0
within "$check" facts "$device" >"$build/out" || status=$?
if [ "$status" -eq 7 ]; then
  say "the CUDA backend is built and nothing of it was run: the cases, the losses, compute-sanitizer and the timings need a GPU"
  exit 7
elif [ "$status" -ne 0 ]; then
  say "$check does not start: exit code $status"
  exit 1
fi
cat "$build/out" >>"$rows"

kinds=("$device") speed=speed-small
[ "$device" = cpu ] || kinds=("$device" "$device:dtype=bf16") speed=speed
for kind in "${kinds[@]}"; do part "verify $kind" "$check" verify "$kind"; done
[ "$device" = cpu ] || part "verify $device, one product an expert" "$check" verify "$device:dtype=bf16,grouped=0"
for kind in "${kinds[@]}"; do
  part "same bytes $kind" "$check" same "$kind"
  part "ten steps $kind" "$check" steps "$kind"
done
part speed "$check" "$speed" "${kinds[-1]}"
python=${PYTHON:-python3}
if "$python" -c "import torch; assert '$device' == 'cpu' or torch.cuda.is_available()" 2>/dev/null; then
  within "$python" tests/peers/expert_layer_torch.py --device "$device" >"$build/out" || row "PyTorch" "ended with exit code $?" '' ''  # says nothing against us
  grep $'^row\t' "$build/out" >>"$rows"
else
  row "PyTorch beside it" "not here" '' ''
fi
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
if [ "$device" != cpu ] && [ -n "$sanitizer" ]; then
  device=$device:dtype=bf16
  sanitize memcheck
  sanitize racecheck
else
  row "compute-sanitizer" "not here" '' ''
fi

took=$((SECONDS - began))
if [ "$took" -le "$total" ]; then row "whole check" "$took s" "<= $total s" ok; else bad "whole check" "$took s, more than $total"; fi
echo
awk -F'\t' '{ printf "%-52s %-44s %-14s %s\n", $2, $3, $4, $5 }' "$rows"
exit "$failed"
