# Read by job.sh and node.sh: the environment that lrstudy and Ray run in. `run` begins every command of theirs.
# shellcheck shell=bash disable=SC2016,SC2034,SC2154
{% if container %}
run=(apptainer exec{{ ' --nv' if gpus else '' }} {% for bind in binds %}--bind {{ bind | sh }} {% endfor %}--bind "$here" {{ container | sh }})
{% else %}
export PATH={{ programs | sh }}:$PATH
run=(env)
{% endif %}
{% for line in setup %}
{{ line }}
{% endfor %}
