"""A probe: what the updates and evaluations of a study take on this device, by training for a moment.

Whatever else computes meanwhile makes every update seem slow: four probes of one study said 4.6 hours, 73 minutes, 5.3 hours
and 79 minutes, two of them beside other programs. So the fastest of several tries counts, tried until two agree. On one core it
is timed by a clock that stands still while another program runs: beside one to four others, an update that takes 8.3 ms alone took
13 to 84 ms by the clock on the wall, and 8.4 to 9.7 ms by this one (of a ResNet-18 1.04 to 1.08 s, 1.01 s alone). Threads of
several cores spin while they wait for each other, which such a clock counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from lrstudy.planning.plan import Plan
from lrstudy.running.forecast import Work
from lrstudy.running.forecast_cost import Timing
from lrstudy.settings import Effort

if TYPE_CHECKING:
    from lrstudy.training.timing import Timed

_MOST_PROBED = 6
_MOST_TRIES = 6
_AGREE = 0.05
"""Two tries agree if the slower one takes at most this fraction longer."""
_LONG_S = 20.0
"""No further try of a batch size begins after this long."""

_PARTIAL: Mapping[Effort, dict[str, Any]] = {
    "all": {},
    "some": {"trainable": (False, True, True), "batchnorm": "eval"},
    "features": {"trainable": (False, False, True), "batchnorm": "eval", "input": "features", "augment": "none"},
}
"""What of the recipe makes an effort; of frozen sections the least that is frozen, which costs most."""

Tell = Callable[[str], None]


def probe(plan: Plan, work: Work, tell: Tell = lambda text: None) -> Timing:
    """Time a few updates of the batch sizes of `work` on the study's device and data. Imports torch.

    Args:
        plan: The plan of the study.
        work: The epochs that are to be trained. At most six of their batch sizes are timed, those of most updates.
        tell: Is told what is being timed, a line each.

    Returns:
        For every batch size the fastest of several tries; on one core in seconds for which the thread was running.
    """
    from lrstudy.training.device_memory import has_neighbours
    from lrstudy.training.timing import time_updates
    from lrstudy.training.trainer import Trainer

    tell(f"opening the data and building {plan.study.workload.model}")
    is_cpu = plan.workload.device == "cpu"
    trainer = Trainer(plan.workload, clock=time.thread_time if runs_on_one_core(plan) else time.monotonic)
    trainer.start(seed=0)
    sizes: dict[tuple[Effort, int], int] = {}
    for (batch, updates, effort), count in work.items():
        sizes[effort, batch] = sizes.get((effort, batch), 0) + updates * count
    arm = next(iter(plan.arms.values()))
    recipe = replace(plan.run(arm, arm.space.default()).recipe, norm_batch=None, micro_batch=None)
    most = sorted(sizes, key=lambda size: -sizes[size])[:_MOST_PROBED]
    tries: dict[tuple[Effort, int], tuple[Timed, float]] = {}
    for number, (effort, batch) in enumerate(most, 1):
        of = {"all": "", "some": " with frozen sections", "features": " of features"}[effort]
        tell(f"timing updates of {batch} examples{of} ({number} of {len(most)})")
        tries[effort, batch] = _fastest(partial(time_updates, trainer, batch, replace(recipe, **_PARTIAL[effort])))
    times: dict[Effort, dict[int, float]] = {}
    for (effort, batch), (timed, _) in tries.items():
        times.setdefault(effort, {})[batch] = timed.update_s
    evaluations_s = [timed.evaluation_s for (effort, _), (timed, _) in tries.items() if effort != "features"]
    return Timing(
        times.pop("all", {}),
        min(evaluations_s or (timed.evaluation_s for timed, _ in tries.values())),
        "measured",
        len(tries),
        min(timed.epoch_s for timed, _ in tries.values()),
        min(running for _, running in tries.values()) if is_cpu else 1.0,  # this thread may sleep while a GPU works
        has_neighbours(trainer.device),
        len(trainer.capture()),
        times,
    )


def runs_on_one_core(plan: Plan) -> bool:
    """Whether a trial occupies one CPU core; the time for which another program had it then does not count in a probe."""
    return plan.workload.device == "cpu" and plan.workload.threads == 1


def _fastest(measure: Callable[[], Timed]) -> tuple[Timed, float]:
    """The fastest of several tries, and in which fraction of that one's time this thread was running."""
    tries: list[tuple[Timed, float]] = []
    begin = time.monotonic()
    while len(tries) < _MOST_TRIES and not _two_agree(tries) and (not tries or time.monotonic() - begin < _LONG_S):
        started, ran = time.monotonic(), time.thread_time()
        timed = measure()
        tries.append((timed, min(1.0, (time.thread_time() - ran) / (time.monotonic() - started))))
    return min(tries, key=lambda one: one[0].update_s)


def _two_agree(tries: list[tuple[Timed, float]]) -> bool:
    """Whether the two fastest tries took about as long."""
    fastest = sorted(timed.update_s for timed, _ in tries)[:2]
    return len(fastest) == 2 and fastest[1] <= fastest[0] * (1 + _AGREE)
