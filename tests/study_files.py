"""Plans of small studies of the digits, without measuring this machine's numerics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from lrstudy.planning import plan as plan_module
from lrstudy.planning import study_lock
from lrstudy.planning.arm_checks import check_against_data
from lrstudy.planning.plan import Plan, default_cohort, default_outstanding, make_plan
from lrstudy.storage.place import Storage
from lrstudy.workload.workload import resolve

SMALL = """
lrstudy: 1
name: small
workload: {data: digits, subset: 120, split: {test: 0.5, validation: 40}}
budget: {epochs: 4}
common: {lr: {log: [1e-2, 1], steps: 7}, batch_size: 20}
arms: [constant, step, clr]
search: {method: random, trials: 4}
"""
NUMERICS = {"device": "cpu", "device_model": "a test's", "torch": "none"}


def plan_of(*overrides: str, text: str = SMALL, lock: Mapping[str, object] | None = None, slots: int = 2) -> Plan:
    """The plan of a study file as a run makes it; `lock` is what an earlier run left."""
    study = plan_module.read(text, overrides)
    lock = lock or {}
    with mock.patch("lrstudy.workload.numerics.probe", return_value=NUMERICS):
        workload = resolve(study, _storage(), Storage(str(_storage())))
    cohort, outstanding = lock.get("cohort", default_cohort(study)), default_outstanding(study, slots)
    plan = make_plan(
        study, workload, cohort, lock.get("outstanding", outstanding), lock.get("search_seed", study.search.seed)
    )  # type: ignore[arg-type]
    check_against_data(plan)
    return plan


def lock_of(plan: Plan) -> dict[str, object]:
    """What a run of `plan` leaves in study.lock.json."""
    return dict(json.loads(study_lock.render(plan, (), is_complete=True, versions={})))


@cache
def _directory() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="lrstudy-tests-")


def _storage() -> Path:
    return Path(_directory().name)
