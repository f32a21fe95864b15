# Read by job.sh and node.sh: the environment that lrstudy and Ray run in. `run` begins every command of theirs.
# shellcheck shell=bash disable=SC2016,SC2034,SC2154
{% if not container %}
export PATH={{ programs | sh }}:$PATH
{% endif %}
{% for line in setup %}
{{ line }}
{% endfor %}
{% if container %}
run=(apptainer exec{{ ' --nv' if gpus else '' }} {% for bind in binds %}--bind {{ bind | sh }} {% endfor %}--bind "$here" {{ container | sh }})
{% else %}
run=(env)
{% endif %}
# Node-local, and short: Ray's sockets lie below it, whose paths may have 107 characters.
temp={{ temp | sh }}/lrs-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}
