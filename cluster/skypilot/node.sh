#!/usr/bin/env bash
# Runs on every node of the job: starts the study's own Ray, beside SkyPilot's, and on the first node the driver.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
{% for line in setup %}
{{ line }}
{% endfor %}
: "${RAY_AUTH_TOKEN:?the job was launched without its token: use launch.sh}"
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
# A lost node is noticed after 15 s instead of a minute; a drained one has 20 s to end its epoch.
export RAY_health_check_period_ms=2000 RAY_health_check_timeout_ms=5000 RAY_health_check_failure_threshold=3
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=20
# SkyPilot's own Ray has the ports 6380 and 8266, and may have the agents' usual ones.
ports=(--dashboard-agent-listen-port=0 --runtime-env-agent-port=0)
head=$(head -n 1 <<<"$SKYPILOT_NODE_IPS")
# The driver must not take SkyPilot's Ray for the study's.
export RAY_ADDRESS=$head:6379

if [ "$SKYPILOT_NODE_RANK" != 0 ]; then
  until timeout 10 ray health-check --address "$RAY_ADDRESS" >/dev/null 2>&1; do
    sleep 2
  done
  # It ends when the head does, which is when the study ends; Ray's own patience is a minute.
  export RAY_gcs_rpc_server_reconnect_timeout_s=10
  ray start --block --address="$RAY_ADDRESS" "${ports[@]}" || echo "The head has gone."
  exit 0
fi

log=$(mktemp)
# Without RAY_ADDRESS, which a head may not have.
env -u RAY_ADDRESS ray start --block --head --port=6379 --node-ip-address="$head" --dashboard-host=127.0.0.1 \
  "${ports[@]}" >"$log" 2>&1 &
ray=$!
driver=
# shellcheck disable=SC2317,SC2329  # the traps call it
finish() {
  trap - EXIT TERM INT
  # Whatever they end with, the code of this script is the driver's.
  for process in $driver $ray; do
    kill -TERM "$process" 2>/dev/null || true
    wait "$process" || true
  done
}
trap 'finish; exit 143' TERM INT
trap finish EXIT
until grep -q "Ray runtime started" "$log"; do
  kill -0 "$ray" 2>/dev/null || { cat "$log" >&2; exit 1; }
  sleep 0.5
done
bash driver.sh &
driver=$!
code=0
wait "$driver" || code=$?
driver=
exit "$code"
