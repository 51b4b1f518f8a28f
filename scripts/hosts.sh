#!/usr/bin/env bash
# Hosts on one machine: network namespaces with names of their own, between which Open MPI speaks TCP.
# Runs PROGRAM with a rank on each and takes everything away again, whatever happens.
#   scripts/hosts.sh N RATE PROGRAM ARGUMENT...       RATE: 1gbit, 100mbit, ... or full
# Needs root, ip and tc (iproute2) and mpirun.openmpi; says so and ends with 77 where one is missing.
set -euo pipefail
if [ $# -lt 3 ]; then
  sed -n '2,6p' "$0" >&2
  exit 2
fi
hosts=$1 rate=$2
shift 2
missing() {
  echo "skipped: $1" >&2
  exit 77
}
[ "$(id -u)" -eq 0 ] || missing "hosts as network namespaces need root"
for tool in ip tc mpirun.openmpi; do
  command -v "$tool" >/dev/null || missing "$tool is missing: apt-get install iproute2 openmpi-bin"
done
id=$((RANDOM % 1000)) # two of these scripts may run at once
bridge=moebr$id net=10.77.$((id % 250))
clean() {
  for ((i = 0; i < hosts; ++i)); do ip netns del "moe${id}h$i" 2>/dev/null || true; done
  ip link del "$bridge" 2>/dev/null || true
  rm -rf "$tmp" "${etc[@]}"
}
tmp=$(mktemp -d) etc=()
trap clean EXIT
ip link add "$bridge" type bridge 2>/dev/null || missing "this kernel, or this container, makes no network bridge"
ip addr add "$net.1/24" dev "$bridge"
ip link set "$bridge" up
for ((i = 0; i < hosts; ++i)); do
  ns=moe${id}h$i
  ip netns add "$ns"
  ip link add "mv${id}_$i" type veth peer name eth0 netns "$ns"
  ip link set "mv${id}_$i" master "$bridge" up
  ip netns exec "$ns" ip addr add "$net.$((10 + i))/24" dev eth0
  ip netns exec "$ns" ip link set eth0 up
  ip netns exec "$ns" ip link set lo up
  # seconds, not a quarter of an hour, until the launcher hears that what it sent to a host that is
  # cut off was not taken
  ip netns exec "$ns" sh -c 'echo 3 >/proc/sys/net/ipv4/tcp_retries2'
  mkdir -p "/etc/netns/$ns"
  etc+=("/etc/netns/$ns")
  for ((j = 0; j < hosts; ++j)); do echo "$net.$((10 + j)) moe${id}h$j"; done >"/etc/netns/$ns/hosts"
  echo "127.0.0.1 localhost" >>"/etc/netns/$ns/hosts"
  if [ "$rate" != full ]; then
    tc qdisc add dev "mv${id}_$i" root tbf rate "$rate" burst 256kb latency 50ms
    ip netns exec "$ns" tc qdisc add dev eth0 root tbf rate "$rate" burst 256kb latency 50ms
  fi
done
# what mpirun takes for ssh
cat >"$tmp/enter" <<'END'
#!/bin/sh
host=$1
shift
exec ip netns exec "$host" unshare --uts sh -c "hostname $host; cd '$PWD'; $*"
END
chmod +x "$tmp/enter"
names=$(for ((i = 0; i < hosts; ++i)); do printf '%smoe%sh%s:1' "$([ "$i" -gt 0 ] && echo ,)" "$id" "$i"; done)
ip netns exec "moe${id}h0" unshare --uts sh -c "hostname moe${id}h0; exec \"\$@\"" sh \
  mpirun.openmpi --allow-run-as-root --mca plm_rsh_agent "$tmp/enter" --mca btl tcp,self --mca btl_tcp_if_include eth0 \
  --mca oob_tcp_if_include eth0 --mca oob_tcp_keepalive_time 5 --mca oob_tcp_keepalive_intvl 2 --mca oob_tcp_keepalive_probes 3 \
  --bind-to none --mca mpi_yield_when_idle 1 -x OMP_WAIT_POLICY=passive -np "$hosts" -H "$names" "$@"
