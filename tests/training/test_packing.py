"""`resources.gpu: auto`: one trial is measured, and as many share a GPU as fit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lrstudy import child_process
from lrstudy.planning.plan import largest_batch
from lrstudy.study import Study
from lrstudy.training import packing
from lrstudy.training.packing import Probe
from lrstudy.workload.machine import ThisMachine
from serial import SMALL, study

GIB = 2**30
MEASURED = {"total_bytes": 24 * GIB, "tensors_bytes": 5 * GIB, "context_bytes": GIB // 2}


class OneGpu(ThisMachine):
    """A machine with a GPU by its own account: torch on this one has none."""

    def resources(self, config):
        return replace(super().resources(config), device="cuda", device_share=1.0)

    def numerics(self, resources, cache, earlier):
        return super().numerics(replace(resources, device="cpu"), cache, earlier) | {"device": "cuda"}

    def cores_per_gpu(self):
        return 16


def packed(ours: Study, measure=None) -> float:
    plan, _ = ours.plan(machine=OneGpu(), measure_gpu=measure)
    assert {
        spec.device_share
        for spec in [plan.spec("t", arm, arm.space.default(), 0, False, {}) for arm in plan.arms.values()]
    } == {plan.workload.device_share}
    return plan.workload.device_share


def test_one_trial_is_measured_once_and_as_many_share_a_gpu_as_fit(tmp_path):
    ours, asked = study(tmp_path, SMALL, "resources.gpu=auto"), []

    def measure(probe: Probe) -> dict[str, int]:
        asked.append((probe.batch_size, probe.workload.device_share))
        return MEASURED

    assert packed(ours) == 1.0, "nothing is measured for a plan alone"
    assert packed(ours, measure) == pytest.approx(1 / 3)
    assert packed(ours, measure) == packed(ours) == pytest.approx(1 / 3)
    assert asked == [(20, 1.0)]


def test_a_share_that_the_study_names_is_not_measured(tmp_path):
    assert packed(study(tmp_path, SMALL, "resources.gpu=1"), lambda probe: 1 / 0) == 1.0


def test_a_machine_without_a_gpu_trains_on_its_cores(tmp_path):
    plan, _ = study(tmp_path, SMALL, "resources.gpu=auto").plan()
    assert (plan.workload.device, plan.workload.device_share) == ("cpu", 1.0)


def test_the_batch_that_is_measured_is_the_largest_of_the_cohort(tmp_path):
    growing = SMALL.replace("[constant, step, clr]", "{constant: , batch_increase: {factor: 2, every: [1, 2]}}")
    plan, _ = study(tmp_path, growing.replace("every: [1, 2]", "milestones: [1, 2]")).plan()
    batches = {name: max(s.batch_size for c in plan.cohort[name] for s in plan.spec("", arm, c, 0, False, {}).untriggered())
               for name, arm in plan.arms.items()}  # fmt: skip
    assert batches["batch_increase"] > batches["constant"] == 20
    assert largest_batch(plan) == batches["batch_increase"]


@pytest.mark.slow
def test_a_first_trial_that_fails_says_why(tmp_path):
    plan, _ = study(tmp_path).plan()
    with pytest.raises(RuntimeError, match=r"resources\.gpu: auto, and a first trial on a whole GPU fails: \S+"):
        packing.measure_in_child(Probe(plan.workload, 20, plan.workload.recipe))
    assert (
        child_process.run_python(
            ["-c", "import lrstudy.training.packing, sys; assert 'torch' not in sys.modules"]
        ).returncode
        == 0
    )
