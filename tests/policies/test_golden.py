"""Every policy against trajectories of torch and of closed forms; meta and source stand in the file itself."""

from __future__ import annotations

import numpy as np
import pytest

from golden_cases import CASES, LEFT_OUT, canonical, canonical_words, rows
from lrstudy.policies import build
from lrstudy.policies.run import Run
from lrstudy.settings import Recipe

TABLE = canonical()


def test_every_case_has_its_row_in_the_docs() -> None:
    assert set(TABLE) == set(CASES) - LEFT_OUT
    assert {case: words for _, _, words, case in rows()} == {case: canonical_words(CASES[case]) for case in TABLE}


@pytest.mark.parametrize("case_id", TABLE)
def test_a_policy_reproduces_its_golden_trajectory(case_id: str) -> None:
    case, (name, parameters) = CASES[case_id], dict(TABLE)[case_id]
    tail = parameters.pop("tail", "keep") if "tail" in parameters else "keep"
    policy = build(name, {"batch_size": 32, **parameters})
    sections = len(case.get("lr_per_step_groups", [1]))
    epochs = len(case["batch_size_per_epoch"])
    run = Run(case["params"]["N"], epochs, sections, Recipe(tail=tail))
    metric = getattr(policy, "metric", "val_loss")
    history = [{metric: value} for value in case.get("metric_per_epoch", [])]
    settings = [policy.settings(epoch, history[:epoch], run) for epoch in range(epochs)]
    assert [s.batch_size for s in settings] == case["batch_size_per_epoch"]
    assert [s.num_updates for s in settings] == case["steps_per_epoch"]
    tolerance = case["tolerance"]
    lr = np.concatenate([s.unrounded_lr for s in settings])
    # What is applied is rounded to 9 digits; half a unit in the ninth is 5e-9 relative.
    np.testing.assert_allclose(np.concatenate([s.lr for s in settings]), lr, rtol=5.1e-9, atol=1e-300)
    if "lr_per_step_groups" in case:
        np.testing.assert_allclose(lr, np.array(list(case["lr_per_step_groups"].values())).T, **tolerance)
    elif "lr_per_step" in case:
        np.testing.assert_allclose(lr[:, 0], case["lr_per_step"], **tolerance)
    else:
        np.testing.assert_allclose([s.unrounded_lr[0, 0] for s in settings], case["lr_per_epoch"], **tolerance)
    if "momentum_per_step" in case:
        momentum = np.concatenate([s.momentum for s in settings])[:, 0]
        np.testing.assert_allclose(momentum, case["momentum_per_step"], **tolerance)
