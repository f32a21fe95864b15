#!/usr/bin/env bash
# Runs on every node of the job, started by srun: holds one Ray node, and ends only that.
here=$1 job=$2
# shellcheck source=setup.sh
source "$here/setup.sh"
set -uo pipefail

say() { printf 'lrstudy: %s: %s\n' "$(hostname)" "$*"; }
runs() { kill -0 "$1" 2>/dev/null; }
# Whether a file lies in the job's folder. Listing it makes NFS look anew; asking for the file may be answered from a cache.
has() { [ -n "$(find "$job" -maxdepth 1 -name "$1")" ]; }
is_over() { [ ! -d "$job" ] || has stop || ((SECONDS >= give_up)); }
a_second() { sleep 1 & wait $!; } # which a signal cuts short
address_of() { scontrol show node -o "$1" | sed -n 's/.* NodeAddr=\([^ ]*\).*/\1/p'; }

# When the node is taken away, all its processes are told first, and the job's script long after. It sees the flag, ends the
# driver while Ray still runs, and says stop; it must not take longer than what KillWait leaves, 30 s by default.
give_up=1000000000
trap 'touch "$job/leave" 2>/dev/null; ((give_up < 1000000000)) || give_up=$((SECONDS + {{ hold_s }}))' TERM

ray='' block=''
family() { for child in $(ps -o pid= --ppid "$1"); do echo "$child" && family "$child"; done; }
# Ray's agents outlive it by up to a minute, if they are not ended too.
end_ray() {
  [ -z "$block" ] || kill -TERM "$block" 2>/dev/null
  [ -n "$ray" ] || return 0
  local processes
  mapfile -t processes < <(family "$ray")
  kill -TERM "$ray" 2>/dev/null
  for ((i = 0; i < 50; i++)); do runs "$ray" && sleep 0.2; done
  kill -KILL "$ray" "${processes[@]}" 2>/dev/null
}
mkdir -m 700 "$temp" || { say "cannot make $temp for Ray"; exit 1; } # Ray opens its own folder in it to everybody
clean() {
  end_ray
{% if mps %}
  echo quit | nvidia-cuda-mps-control >/dev/null
{% endif %}
  rm -rf "$temp" || { sleep 1; rm -rf "$temp"; }
  rm -f "$job/node-$SLURM_PROCID" # which the job's script waits for
}
trap clean EXIT
touch "$job/node-$SLURM_PROCID"

cpus={{ cpus }} gpus=${SLURM_GPUS_ON_NODE:-0}
[ "$gpus" != 0 ] || export CUDA_VISIBLE_DEVICES= # some sites set NoDevFiles, which is no list of numbers
{% if mps %}
# Trials that share a GPU run side by side in it, instead of taking turns.
export CUDA_MPS_PIPE_DIRECTORY=$temp/mps CUDA_MPS_LOG_DIRECTORY=$temp/mps
mkdir "$temp/mps" && nvidia-cuda-mps-control -d
{% endif %}

mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
if [ "$SLURM_PROCID" = 0 ]; then
  peer=$(address_of "${hosts[-1]}")
else
  peer=$(address_of "${hosts[0]}")
  until has address || is_over; do a_second; done
  ! is_over || exit 0
fi

# One Ray node: 9 fixed ports and one per worker process, of which Ray starts one per core and keeps some idle.
start_ray() {
  local workers=$((2 * cpus + 32)) ip first role
  exec {network}< <(exec "${run[@]}" python3 -P -m lrstudy_cluster.node_network --count $((10 + workers)) --peer "$peer"{% if interface %} --interface {{ interface | sh }}{% endif %})
  block=$!
  read -r -u "$network" ip first || { say "no address and ports for Ray"; return 1; }
  exec {network}<&-
  if [ "$SLURM_PROCID" = 0 ]; then
    role=(--head --port "$first" --ray-client-server-port $((first + 1)) --dashboard-port $((first + 2)) --include-dashboard=false --no-monitor)
  else
    role=(--address "$(<"$job/address")")
  fi
  "${run[@]}" ray start "${role[@]}" --block --disable-usage-stats --node-ip-address "$ip" --temp-dir "$temp/r" \
    --num-cpus "$cpus" --num-gpus "$gpus" --object-store-memory {{ object_store_bytes }} --include-log-monitor=false \
    --node-manager-port $((first + 3)) --object-manager-port $((first + 4)) --runtime-env-agent-port $((first + 5)) \
    --dashboard-agent-grpc-port $((first + 6)) --dashboard-agent-listen-port $((first + 7)) \
    --metrics-export-port $((first + 8)) --min-worker-port $((first + 10)) --max-worker-port $((first + 9 + workers)) \
    >"$temp/start.log" 2>&1 </dev/null &
  ray=$!
  until grep -q 'Ray runtime started' "$temp/start.log"; do
    if is_over || ! runs "$ray"; then
      tail -n 20 "$temp/start.log"
      end_ray
      return 1
    fi
    sleep 0.2
  done
  if [ "$SLURM_PROCID" = 0 ]; then (umask 077 && echo "$ip:$first" >"$job/.address" && mv "$job/.address" "$job/address"); fi
  touch "$job/up-$SLURM_PROCID"
}

# A slow file system may take the first start beyond Ray's own limits; the second one finds its files in memory.
for attempt in 1 2 3; do
  if start_ray; then
    until is_over || ! runs "$ray"; do a_second; done
    break
  fi
  ! is_over || break
  say "Ray did not start (attempt $attempt of 3)"
done
! is_over || exit 0
tail -n 20 "$temp/start.log"
if [ "$SLURM_PROCID" = 0 ]; then say "Ray has ended on the first node, and with it the job"; exit 1; fi
say "Ray has ended on this node; the study goes on with the others"
