#!/usr/bin/env bash
# The driver of a study: runs on the cluster's head, in the folder with the study file.
# Run again, it goes on where it stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
export RAY_AUTH_MODE=token
{% for line in setup %}
{{ line }}
{% endfor %}
exec lrstudy run study.yaml --address auto
{%- if slots is not none %} --slots {{ slots }}{% endif %}
{%- for override in overrides %} {{ override | sh }}{% endfor %}
{%- if name %} "name={{ name }}{{ name_suffix }}"{% endif %}

