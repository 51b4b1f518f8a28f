#!/usr/bin/env bash
# Makes the Debian package, installs it in a fresh Debian 12 that debootstrap builds in a temporary
# folder, and tries there what a user would: train, trace, report, a page, a manual page, a
# completion. Says "skipped" in a sentence where it needs root, debootstrap or a mirror that are not
# there. Takes about 400 MB in /tmp and some minutes.
#   scripts/package-check.sh [--build build/release] [--mirror http://deb.debian.org/debian]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

build=build/release
mirror=http://deb.debian.org/debian
while [ $# -gt 0 ]; do
  case $1 in
    --build) build=$2 ;;
    --mirror) mirror=$2 ;;
    *) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
  shift 2
done
skip() {
  echo "skipped: $1"
  exit 0
}
[ "$(id -u)" -eq 0 ] || skip "a Debian in a folder needs root, and this is user $(id -un)"
command -v debootstrap >/dev/null || skip "no debootstrap (apt-get install debootstrap)"
command -v dpkg-shlibdeps >/dev/null ||
  skip "no dpkg-shlibdeps, which names what the package depends on (apt-get install dpkg-dev)"

work=$(mktemp -d)
root=$work/debian
clean_up() {
  if mountpoint -q "$root/proc"; then umount "$root/proc"; fi
  rm -rf --one-file-system "$work"
}
trap clean_up EXIT
[ -d "$build" ] || cmake --preset release >/dev/null
cmake --build "$build" --target moe | tail -1
(cd "$build" && cpack -G DEB -B "$work/package" >"$work/cpack.log") || {
  tail -20 "$work/cpack.log" >&2
  exit 1
}
for package in "$work"/package/*.deb; do
  echo "package: $(basename "$package"), $(du -k "$package" | cut -f1) KiB"
  echo "  depends: $(dpkg-deb -f "$package" Depends)"
done
if grep -q '^MOE_CUDA:BOOL=ON' "$build/CMakeCache.txt"; then
  if [ -e "$build/apps/moe_nccl.so" ]; then
    dpkg-deb -c "$work"/package/moe-nccl_*.deb | grep -q '/moe/moe_nccl\.so$' || {
      echo "package-check: moe-nccl lacks moe_nccl.so" >&2
      exit 1
    }
  fi
  skip "packages of a build with CUDA were made; they need NVIDIA's libraries, which Debian lacks"
fi
package=$(ls "$work"/package/moe_*.deb)
openmpi=$(ls "$work"/package/moe-openmpi_*.deb)

debootstrap --variant=minbase bookworm "$root" "$mirror" >"$work/debootstrap.log" 2>&1 || {
  tail -3 "$work/debootstrap.log"
  skip "debootstrap got no Debian 12 from $mirror"
}
mount -t proc proc "$root/proc" ||
  skip "a Debian in a folder needs /proc, and it could not be mounted"
cp "$package" "$root/tmp/moe.deb"
cp "$openmpi" "$root/tmp/moe-openmpi.deb"
in_debian() {
  env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
    DEBIAN_FRONTEND=noninteractive ${http_proxy:+http_proxy=$http_proxy} chroot "$root" "$@"
}
in_debian sh -ec '
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends man-db bash-completion /tmp/moe.deb
' >"$work/apt.log" 2>&1 || {
  tail -20 "$work/apt.log" >&2
  echo "package-check: the package does not install" >&2
  exit 1
}

in_debian bash -ec '
  cd /root
  moe --version
  moe train --data "text:path=/usr/share/common-licenses" --model nano --steps 8 --batch 2 --length 64 --eval-tokens 256 -o runs/a 2>/dev/null
  moe-trace runs/a --data "text:path=/usr/share/common-licenses,split=valid" --tokens 1000 -o a.moetrace.h5 2>/dev/null
  moe-report a.moetrace.h5 --bootstrap 0 | head -12
  moe report a.moetrace.h5 --bootstrap 0 -o a.html 2>/dev/null
  grep -q "<svg" a.html
  man -l /usr/share/man/man1/moe-train.1* 2>/dev/null | grep -q -- --steps
  source /usr/share/bash-completion/bash_completion
  source /usr/share/bash-completion/completions/moe
  COMP_WORDS=(moe trai) COMP_CWORD=1 COMP_LINE="moe trai" COMP_POINT=8
  function_of=$(complete -p moe | sed "s/.*-F \([^ ]*\).*/\1/")
  "$function_of" moe trai moe
  [[ " ${COMPREPLY[*]} " == *" train "* ]] || { echo "no completion of trai: ${COMPREPLY[*]}" >&2; exit 1; }
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  dpkg -l | grep -q libopenmpi3 && { echo "moe alone brought an MPI" >&2; exit 1; }
  apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 openmpi-bin /tmp/moe-openmpi.deb >/dev/null 2>&1
  mpirun --oversubscribe -np 2 moe train --data "text:path=/usr/share/common-licenses" --model nano --steps 2 --batch 2 --length 64 --eval-tokens 256 -o runs/ranks 2>/dev/null
  moe show runs/ranks | head -3
  apt-get remove -y -qq -o Dpkg::Use-Pty=0 moe-openmpi moe >/dev/null || { echo "the packages cannot be removed" >&2; exit 1; }
  hash -r
  ! command -v moe >/dev/null
'
echo "package-check: installed, trained, traced, reported, read and removed in a fresh Debian $(cat "$root/etc/debian_version")"
