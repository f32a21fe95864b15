#!/usr/bin/env bash
# Drains this node's Ray, process $1, when AWS announces that it takes the spot instance back.
set -u
metadata=${LRSTUDY_METADATA:-http://169.254.169.254}/latest
while kill -0 "$1" 2>/dev/null; do
  session=$(curl -sf -m 2 -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 300" "$metadata/api/token")
  if curl -sf -m 2 -o /dev/null -H "X-aws-ec2-metadata-token: $session" "$metadata/meta-data/spot/instance-action"; then
    kill -TERM "$1"
    exit
  fi
  sleep 5
done
