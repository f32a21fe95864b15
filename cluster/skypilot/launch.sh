#!/usr/bin/env bash
# Hands the job to SkyPilot. The token goes through the environment: arguments can be read by everybody on this machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n')
export RAY_AUTH_TOKEN
exec sky jobs launch --yes --detach-run --secret RAY_AUTH_TOKEN job.yaml
