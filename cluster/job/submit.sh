#!/usr/bin/env bash
# Hands a study to a Ray cluster that is there already. The folder `study` beside this file is uploaded to it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH={{ token_file | sh }}
# A cluster that has just begun may not have an agent yet that starts jobs.
for _ in $(seq 30); do
  if said=$({{ ray | sh }} job submit --no-wait --address {{ address | sh }} --submission-id {{ identity | sh }} \
    --working-dir study -- bash driver.sh 2>&1); then
    echo "$said"
    exit
  fi
  grep -q "No available agent" <<<"$said" || break
  sleep 2
done
echo "$said" >&2
exit 1
