#!/usr/bin/env bash
# Runs a study on this machine, on all its GPUs (or all cores where there is none).
# Run it again after a crash or a reboot: it goes on where it stopped.
set -euo pipefail
{% for line in setup %}
{{ line }}
{% endfor %}
{% if mps %}

# Trials that share a GPU run side by side in it, instead of taking turns. The daemon ends with this script.
CUDA_MPS_PIPE_DIRECTORY=$(mktemp -d)
export CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY=$CUDA_MPS_PIPE_DIRECTORY
nvidia-cuda-mps-control -d
trap 'echo quit | nvidia-cuda-mps-control; rm -rf "$CUDA_MPS_PIPE_DIRECTORY"' EXIT
{% endif %}

{{ lrstudy | sh }} run {{ ([study] + overrides) | map('sh') | join(' ') }}
