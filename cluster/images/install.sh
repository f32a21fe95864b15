#!/usr/bin/env bash
# Installs lrstudy from a checkout, with the versions of constraints.txt, into an environment of its own, and looks
# whether it is whole: install.sh CHECKOUT ENVIRONMENT. The Dockerfile and the Apptainer definition run this.
set -euo pipefail
checkout=$1 environment=$2
python3 -m venv "$environment"
"$environment/bin/python" -m pip install --disable-pip-version-check --no-cache-dir --quiet \
  --constraint "$checkout/constraints.txt" "$checkout"
# From another folder, so that nothing is imported from the checkout.
cd /
"$environment/bin/lrstudy" --version
"$environment/bin/lrstudy" launch list
"$environment/bin/python" - <<'PYTHON'
import importlib, pathlib
for name in ("lrstudy.study", "lrstudy.ray_tune", "lrstudy_reports", "ray", "torch", "torchvision"):
    importlib.import_module(name)
from lrstudy_cluster import catalogue, templates
missing = [name for name in catalogue.names() if not list(pathlib.Path(templates.folder(), name).glob("*"))]
assert not missing, f"no templates of {missing}"
PYTHON
