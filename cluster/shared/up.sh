#!/usr/bin/env bash
# Starts the cluster of cluster.yaml, if it is not there yet, and hands it the study. Run it again to go on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
export PATH={{ bin | sh }}:$PATH RAY_USAGE_STATS_ENABLED=0
if [ ! -s token ]; then
  (umask 077 && head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >token)
fi
{% if is_local %}
# With autoscaler v2, `ray up` starts no worker on given hosts (ray#57153).
export RAY_UP_enable_autoscaler_v2=0
{% endif %}
ray up --yes --no-config-cache cluster.yaml
ray exec --no-config-cache cluster.yaml {{ ("bash " ~ folder ~ "/node.sh submit") | sh }}
