#!/usr/bin/env bash
# Ends the study's Ray on every host, and nothing else there. `ray down` would end every Ray of the head's host, and
# leave the workers' running.
set -uo pipefail
{% for host in hosts[1:] + hosts[:1] %}
ssh -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR {% if ssh_key %}-i {{ ssh_key | sh }} {% endif %}{{ (ssh_user ~ "@" ~ host) | sh }} {{ ("bash " ~ folder ~ "/node.sh stop") | sh }} || echo "{{ host }} could not be stopped" >&2
{% endfor %}
