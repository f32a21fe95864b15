#!/usr/bin/env bash
# This cluster's own Ray on a node, and the study's job on the head. Nothing here touches another Ray of the host.
#   node.sh head | worker | stop        start the head, join the head at $RAY_HEAD_IP, end this node
#   node.sh submit | follow | cancel    the study's job, on the head
set -euo pipefail
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
{% for line in setup %}
{{ line }}
{% endfor %}
chmod 600 "$folder/token"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$folder/token
export RAY_USAGE_STATS_ENABLED=0
# A lost node is noticed after 15 s instead of a minute; a drained one has 20 s to end its epoch.
export RAY_health_check_period_ms=2000 RAY_health_check_timeout_ms=5000 RAY_health_check_failure_threshold=3
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=20
# The driver has this long to save what it knows when it is stopped.
export RAY_JOB_STOP_WAIT_TIME_S=60

# Hosts may share this folder.
own=$folder/$(hostname)
job=(--address "http://127.0.0.1:{{ dashboard_port }}")

is_running() {
  [ -s "$own.pid" ] && grep -qsz '^start$' "/proc/$(cat "$own.pid")/cmdline"
}

start() {
  if is_running; then
    echo "Ray is running here already."
    return
  fi
  ulimit -n 65536 2>/dev/null || true
  # A second Ray on a host cannot have the agent's usual port too, and no job starts without an agent.
  setsid nohup ray start --block --dashboard-agent-listen-port=0 "$@" >"$own.log" 2>&1 </dev/null &
  echo $! >"$own.pid"
  for _ in $(seq 120); do
    if grep -q "Ray runtime started" "$own.log"; then
      return
    fi
    is_running || break
    sleep 0.5
  done
  cat "$own.log" >&2
  echo "Ray does not start here." >&2
  exit 1
}

case "$1" in
  head)
    start --head --port={{ port }} --dashboard-host=127.0.0.1 --dashboard-port={{ dashboard_port }} \
      {% if head_ip %}--node-ip-address={{ head_ip }} {% endif %}{% if not head_works %}--num-cpus=0 --num-gpus=0 {% endif %}--autoscaling-config="$HOME/ray_bootstrap_config.yaml"
    ;;
  worker)
    start --address="$RAY_HEAD_IP:{{ port }}"
    {% if watches_spot %}
    # Two minutes before a spot instance is taken, the cloud says so here. SIGTERM drains the node: trials save and move.
    setsid nohup bash "$folder/spot.sh" "$(cat "$own.pid")" >/dev/null 2>&1 </dev/null &
    {% endif %}
    ;;
  stop)
    if is_running; then
      kill -TERM "$(cat "$own.pid")"
      for _ in $(seq 80); do
        is_running || break
        sleep 0.5
      done
      if is_running; then
        kill -KILL -- "-$(cat "$own.pid")"
      fi
    fi
    rm -f "$own.pid"
    ;;
  submit)
    # A job of the same name is refused while it runs; one that has ended makes room.
    ray job delete "${job[@]}" {{ identity | sh }} >/dev/null 2>&1 || true
    # A head that has just begun may not have an agent yet that starts jobs.
    for _ in $(seq 30); do
      if said=$(ray job submit "${job[@]}" --no-wait --submission-id {{ identity | sh }} -- \
        bash "$folder/study/driver.sh" 2>&1); then
        echo "$said"
        exit
      fi
      grep -q "No available agent" <<<"$said" || break
      sleep 2
    done
    echo "$said" >&2
    exit 1
    ;;
  follow) ray job logs "${job[@]}" --follow {{ identity | sh }} ;;
  cancel) ray job stop "${job[@]}" {{ identity | sh }} ;;
  *)
    echo "node.sh: there is no $1" >&2
    exit 2
    ;;
esac
