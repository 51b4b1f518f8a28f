#!/usr/bin/env bash
# Is the CUDA backend right and how fast is it? One command on a machine with an NVIDIA GPU, a C++ compiler, CMake and the CUDA
# toolkit 13; no network, no other library. Builds moe_gpu_check, holds every operation to the definition, looks for bad memory
# accesses and races, times the expert layer beside dense cuBLAS (and PyTorch, where it is), and prints one table last.
#   scripts/gpu-check.sh [--build-only | --compile-only]      (--compile-only: the CUDA sources alone, for machines without a GPU)
# Exit code 0: all passed; 1: something failed or was too slow; 7: built, but there is no device here, so nothing was run.
# BUILD: the folder to build in (build/gpu-check); ARCH: what to compile for (90); LIMIT: seconds for each part (240).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build=${BUILD:-build/gpu-check} arch=${ARCH:-90} limit=${LIMIT:-240}
began=$SECONDS failed=0
say() { echo "gpu-check: $*" >&2; }

nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null)
[ -n "$nvcc" ] || { say "there is no nvcc here, so the CUDA backend cannot be built; it comes with the CUDA toolkit 13"; exit 7; }
target=moe_gpu_check
case "${1:-}" in
  '' | --build-only) ;;
  --compile-only) target=moe_cuda ;;
  *) say "there is no option '$1'; try --build-only or --compile-only"; exit 2 ;;
esac
mkdir -p "$build"
say "building for sm_$arch with $nvcc"
if ! { cmake -S . -B "$build" -DCMAKE_CUDA_COMPILER="$nvcc" -DMOE_CUDA=ON -DMOE_ONLY_GPU_CHECK=ON -DCMAKE_BUILD_TYPE=Release -DCMAKE_CUDA_ARCHITECTURES="$arch" &&
       cmake --build "$build" --target "$target" -j "$(nproc)"; } >"$build/build.log" 2>&1; then
  tail -n 40 "$build/build.log" >&2
  say "the build failed; its whole output is in $build/build.log"
  exit 1
fi
say "$target built in $((SECONDS - began)) s"
[ -n "${1:-}" ] && exit 0
check=$build/tests/gpu/moe_gpu_check rows=$build/rows.tsv
: >"$rows"

# part NAME COMMAND...: its rows go to the table, the rest to stderr; what a part that was stopped did not say is a failure
part() {
  local name=$1 status=0; shift
  local start=$SECONDS
  timeout "$limit" "$@" >"$build/out" || status=$?
  grep $'^row\t' "$build/out" >>"$rows"
  [ "$status" -eq 0 ] || failed=1
  [ "$status" -le 1 ] || printf 'row\t%s\tstopped with exit code %s\t\tFAILED\n' "$name" "$status" >>"$rows"
  say "$name: $((SECONDS - start)) s"
}
"$check" facts >>"$rows"
status=$?
if [ "$status" -eq 7 ]; then
  say "the CUDA backend is built and nothing of it was run: the cases, the losses, compute-sanitizer and the timings need a GPU"
  exit 7
elif [ "$status" -ne 0 ]; then
  exit 1
fi

for device in cuda cuda:dtype=bf16 cuda:dtype=bf16,grouped=0; do
  part "verify $device" "$check" verify "$device"
done
for device in cuda cuda:dtype=bf16; do
  part "same bytes $device" "$check" same "$device"
  part "ten steps $device" "$check" steps "$device"
done
part speed "$check" speed cuda:dtype=bf16

sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
if [ -n "$sanitizer" ]; then
  for tool in memcheck racecheck; do
    status=0
    timeout "$limit" "$sanitizer" --tool "$tool" --error-exitcode 9 "$check" cases cuda:dtype=bf16 >"$build/$tool.log" 2>&1 || status=$?
    result=ok
    [ "$status" -eq 0 ] || { result=FAILED; failed=1; tail -n 15 "$build/$tool.log" >&2; }
    printf 'row\tcompute-sanitizer %s over the cases\t%s\t0 errors\t%s\n' "$tool" "$(grep -o 'ERROR SUMMARY.*\|RACECHECK SUMMARY.*' "$build/$tool.log" | tail -n 1 || true)" "$result" >>"$rows"
  done
else
  printf 'row\tcompute-sanitizer\tnot here\t\t\n' >>"$rows"
fi
if python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
  part "PyTorch" python3 tests/peers/expert_layer_torch.py
else
  printf 'row\tPyTorch beside it\tnot here\t\t\n' >>"$rows"
fi

printf 'row\twhole check\t%s s\t<= 600 s\t%s\n' "$((SECONDS - began))" "$([ $((SECONDS - began)) -le 600 ] && echo ok || echo slow)" >>"$rows"
echo
awk -F'\t' '{ printf "%-52s %-44s %-14s %s\n", $2, $3, $4, $5 }' "$rows"
exit "$failed"
