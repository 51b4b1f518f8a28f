#!/usr/bin/env bash
# Installs what building and testing moe needs on Debian 12, and nothing that is there already. Says so before it does.
set -euo pipefail

packages=(g++ cmake ninja-build ccache clang-format git ca-certificates
  libcli11-dev libeigen3-dev libhdf5-dev libfmt-dev catch2 libdnnl-dev nlohmann-json3-dev
  libtomlplusplus-dev libxxhash-dev librapidcheck-dev libpcre2-dev
  libpng-dev libjpeg-dev libsndfile1-dev libfreetype-dev libgif-dev fonts-dejavu-core
  zlib1g-dev libdeflate-dev libzstd-dev python3 python3-h5py python3-pandas python3-xarray
  python3-h5netcdf python3-netcdf4
  libopenmpi-dev openmpi-bin)
# Thrust comes with the CUDA toolkit; Debian's older one must not be mixed with it.
command -v nvcc >/dev/null 2>&1 || packages+=(libthrust-dev)

missing=()
for p in "${packages[@]}"; do
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
done
if [ ${#missing[@]} -eq 0 ]; then
  echo "install-deps: everything needed is installed"
  exit 0
fi

sudo=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null 2>&1 || { echo "install-deps: not root and no sudo; ask an administrator for: apt-get install ${missing[*]}" >&2; exit 7; }
  sudo=(sudo)
fi
command -v apt-get >/dev/null 2>&1 || { echo "install-deps: no apt-get here; install the equivalents of: ${missing[*]}" >&2; exit 7; }
echo "install-deps: installing with apt: ${missing[*]}"
log=$(mktemp)
if ! { "${sudo[@]}" apt-get update -qq && "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "install-deps: apt failed; its whole output is in $log" >&2
  exit 7
fi
rm -f "$log"
