#!/usr/bin/env bash
#SBATCH --job-name={{ name }}
#SBATCH --output=%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@{{ notice_s }}
#SBATCH --nodes={{ nodes }}
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task={{ cpus }}
{% if gpus %}
#SBATCH --gres=gpu:{{ gpu_type + ':' if gpu_type else '' }}{{ gpus }}
{% endif %}
{% for option in ('partition', 'account', 'qos', 'constraint', 'time') if options[option] is not none %}
#SBATCH --{{ option }}={{ options[option] }}
{% endfor %}
{% if memory %}
#SBATCH --mem={{ memory }}
{% endif %}
{% if exclusive %}
#SBATCH --exclusive
{% endif %}
{% for line in sbatch %}
#SBATCH {{ line }}
{% endfor %}
#
# Runs a study: one Ray node on every node of the job (node.sh), the driver here. Submit it from this folder: sbatch job.sh
# Preempted, out of time or on a node that failed, it is queued again and the study goes on from its records.
here=$PWD
# shellcheck disable=SC2016 # a $ in a path or an override is no variable
study=({{ ([study] + overrides) | map('sh') | join(' ') }})

say() { printf 'lrstudy: %s\n' "$*"; }
fail() { say "$*" && exit 1; }
runs() { kill -0 "$1" 2>/dev/null; }
# Whether a file lies in the job's folder. Listing it makes NFS look anew; asking for the file may be answered from a cache.
has() { [ -n "$(find "$job" -maxdepth 1 -name "$1")" ]; }
a_second() { sleep 1 & wait $!; } # which a signal cuts short

# shellcheck source=setup.sh
source "$here/setup.sh"
set -uo pipefail
{% if not container %}
for program in lrstudy ray; do
  command -v "$program" >/dev/null || fail "there is no $program on the PATH that the set-up lines leave: $PATH"
done
{% endif %}

# The job's own folder: the token without which nobody talks to its Ray, and where that is. For its owner alone.
job=$here/job-$SLURM_JOB_ID
rm -rf "$job" # from before a failed node had the job queued again
mkdir -m 700 "$job" || fail "cannot make $job"
(umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$job/token")
if [ "$(stat -c %a "$job" "$job/token" | tr '\n' ' ')" != "700 600 " ] || [ "$(stat -c %s "$job/token")" != 64 ]; then
  rm -rf "$job"
  fail "$here cannot keep a file for its owner alone, so others could read the token of this job's Ray"
fi
unset RAY_AUTH_TOKEN RAY_ADDRESS
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$job/token
export RAY_USAGE_STATS_ENABLED=0
# A node that is cut off is given up after some 20 s, instead of a minute.
export RAY_health_check_period_ms=2000 RAY_health_check_timeout_ms=5000 RAY_health_check_failure_threshold=3
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 # node.sh holds Ray itself, until the driver has ended

nodes='' driver='' told='' lost=''
# Ends the driver, which has everything recorded at any time, then Ray on every node, and removes the job's folder.
finish() {
  [ -d "$job" ] || return 0
  end "$driver"
  touch "$job/stop"
  for ((i = 0; i < 15; i++)); do has 'node-*' && a_second; done
  end "$nodes"
  # A node.sh that was killed, as SLURM does when its srun is, has removed nothing.
  if has 'node-*'; then timeout 20 srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --overlap rm -rf "$temp"; fi
  rm -rf "$job"
}
end() {
  [ -n "$1" ] || return 0
  kill -TERM "$1" 2>/dev/null
  for ((i = 0; i < 12; i++)); do runs "$1" && a_second; done
  kill -KILL "$1" 2>/dev/null
}
trap 'told=time' USR1  # {{ notice_s }} s before the time limit
trap 'told=${told:-term}' TERM # cancelled, or the grace time of a preemption is over
trap finish EXIT
leaving() { [ -n "$told" ] || [ -e "$job/leave" ]; } # node.sh leaves this flag when its node is taken away

# srun does not inherit --cpus-per-task. One node's failure must not wait for the others' end.
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task={{ cpus }} --kill-on-bad-exit=1 --wait=0 \
  bash "$here/node.sh" "$here" "$job" &
nodes=$!

wait_for_nodes() {
  local limit=$((SECONDS + {{ wait_s }})) up=0
  until has address && ((up == SLURM_JOB_NUM_NODES)); do
    ! leaving || return 0
    runs "$nodes" || fail "Ray did not start; srun says why above"
    if ((SECONDS >= limit)); then
      has address || fail "Ray did not start on the first node within {{ wait_s }} s"
      say "going on with $up of $SLURM_JOB_NUM_NODES nodes: the others were not up within {{ wait_s }} s; they join when they are"
      return 0
    fi
    a_second
    up=$(find "$job" -maxdepth 1 -name 'up-*' | wc -l)
  done
  say "Ray is up on all $up nodes"
}
wait_for_nodes

code=130
if ! leaving; then
  "${run[@]}" lrstudy run "${study[@]}" --address "$(<"$job/address")" &
  driver=$!
  while runs "$driver" && runs "$nodes" && ! leaving; do a_second; done
  if runs "$driver"; then
    leaving || lost="Ray has ended on the nodes of this job before the study has; srun says why above"
    end "$driver"
  fi
  wait "$driver"
  code=$?
  [ -z "$lost" ] || fail "$lost"
fi
# A study that ended, or that is wrong, is not run again, whatever happened to the job meanwhile.
if ! leaving || [[ " 0 2 3 " == *" $code "* ]]; then exit "$code"; fi

finish
# A job that was cancelled is no longer running; one that was requeued by SLURM itself is not either.
state=$(scontrol show job -o "$SLURM_JOB_ID" | sed -n 's/.* JobState=\([A-Z_]*\).*/\1/p')
[ "$state" = RUNNING ] || exit 130
say "the job gives up its nodes and waits in the queue again; the study goes on from its records"
scontrol requeue "$SLURM_JOB_ID" || fail "the job cannot be requeued; submit it again, and the study goes on from its records"
sleep 60 & wait # SLURM ends this script: ending by itself, the job would count as failed
