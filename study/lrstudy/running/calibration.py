"""Calibrated cost: how long an update takes alone on the device, by kind of update, measured once and kept in the memo.

Recorded times depend on what else ran: a trial that shared a GPU with an idle neighbour was fast, but must not look cheap.
So reports price trials, those of tuning too, by how long their updates take when nothing else runs. The last update of an
epoch is often smaller than the others, and then a kind of its own.

What is measured is bounded. All that confirm trials trained with is; of what only tuning trials did, `MOST_SIZES` batch
sizes for each recipe, and the others are priced between these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from hashlib import blake2b
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lrstudy.memo.memo import Memo
from lrstudy.memo.records import Record
from lrstudy.running.trials import Trial
from lrstudy.settings import OPTIMIZER_CONSTANTS, Recipe, Settings, canonical_json
from lrstudy.workload.workload import Workload

if TYPE_CHECKING:
    from lrstudy.training.trainer import Trainer

MOST_SIZES = 5
"""How many batch sizes are measured of a recipe that tuning trials used: an update costs nearly linearly more with its size."""
_STRETCH_S = 0.2


@dataclass(frozen=True)
class UpdateKind:
    """What decides how long an update takes: the batch size, and the recipe without what only changes values."""

    batch_size: int
    recipe: Recipe

    @staticmethod
    def of(settings: Settings) -> UpdateKind:
        """The kind of the updates in an epoch with these settings, but for a last one of another size."""
        return _kind(settings.batch_size, settings.recipe)

    @staticmethod
    def of_tail(settings: Settings, num_examples: int) -> UpdateKind | None:
        """The kind of an epoch's last update on `num_examples`, if its size is not that of the others, else None."""
        size = num_examples - (settings.num_updates - 1) * settings.batch_size
        is_full = settings.recipe.tail == "drop" or size == settings.batch_size
        return None if is_full else _kind(size, settings.recipe)

    @cached_property
    def digest(self) -> str:
        """The name of the kind, 16 hexadecimal digits."""
        return _digest([self.batch_size, asdict(self.recipe)])


@dataclass(frozen=True)
class UpdateCost:
    """Device-seconds of an update of a kind, of an epoch in addition to its updates, and of an evaluation.

    `source` is ``measured``, or ``interpolated`` between measured batch sizes of the same recipe.
    """

    kind: UpdateKind
    device_kind: str
    device_s_per_update: float
    device_s_per_epoch: float
    device_s_per_evaluation: float
    source: Literal["measured", "interpolated"] = "measured"


class Kinds:
    """The kinds of update in the epochs of trials; remembers those of settings that it has met.

    Args:
        num_examples: The size of the training part.
    """

    def __init__(self, num_examples: int) -> None:
        self._num_examples = num_examples
        self._of_settings: dict[str, tuple[UpdateKind, ...]] = {}

    def used(self, trials: Iterable[Trial]) -> list[UpdateKind]:
        """The kinds of all recorded epochs of `trials`, in order of batch size."""
        met = {record.settings for trial in trials for record in self._known(trial)}
        return _in_order({kind for settings in met for kind in self._of_settings[settings]})

    def to_measure(self, trials: Iterable[Trial]) -> list[UpdateKind]:
        """The kinds that are to be measured, so that all of `trials` have a price; in order of batch size."""
        trials = list(trials)
        confirmed = set(self.used(trial for trial in trials if trial.phase == "confirm"))
        by_recipe: dict[Recipe, list[UpdateKind]] = {}
        for kind in self.used(trials):
            by_recipe.setdefault(kind.recipe, []).append(kind)
        return _in_order(confirmed.union(*map(_spread, by_recipe.values())))

    def _known(self, trial: Trial) -> list[Record]:
        """The records of a trial, the kinds of whose settings are known now."""
        if any(record.settings not in self._of_settings for record in trial.records):
            policy, history = trial.spec.build_policy(), [record.metrics for record in trial.records]
            for epoch, record in enumerate(trial.records):
                if record.settings not in self._of_settings:
                    settings = policy.settings(epoch, history[:epoch], trial.spec.run)
                    self._of_settings[record.settings] = _kinds_in(settings, self._num_examples)
        return trial.records


def prices(memo: Memo, workload: Workload, kinds: Iterable[UpdateKind]) -> list[UpdateCost]:
    """The costs of `kinds`: as measured, else between measured ones of their recipe; others are left out."""
    wanted = list(kinds)
    measured = [cost for kind in wanted if (cost := update_cost(memo, workload, kind)) is not None]
    missing = [kind for kind in wanted if kind not in {cost.kind for cost in measured}]
    between = (_between(kind, [cost for cost in measured if cost.kind.recipe == kind.recipe]) for kind in missing)
    return measured + [cost for cost in between if cost is not None]


def update_cost(memo: Memo, workload: Workload, kind: UpdateKind) -> UpdateCost | None:
    """The measured cost of a kind of update on this kind of device, or None if it has not been measured."""
    stored = memo.measurement(_path(workload, kind), "update_s", "epoch_s", "evaluation_s")
    if stored is None:
        return None
    # A trial that runs alone has the whole GPU; on a CPU it has as many cores as threads.
    devices = 1.0 if workload.device == "cuda" else workload.device_share
    seconds = (devices * stored[name] for name in ("update_s", "epoch_s", "evaluation_s"))
    return UpdateCost(kind, workload.root(seed=0).device_kind, *seconds)


def unpriced(memo: Memo, workload: Workload, kinds: Iterable[UpdateKind]) -> list[UpdateKind]:
    """Those of `kinds` that have not been measured yet."""
    return [kind for kind in kinds if update_cost(memo, workload, kind) is None]


def measure(trainer: Trainer, memo: Memo, kinds: Iterable[UpdateKind]) -> None:
    """Measure kinds of update and store the results in the memo. Nothing else may run on the device meanwhile."""
    from lrstudy.training.timing import time_updates

    for kind in kinds:
        trainer.start(seed=0)  # anew, as kinds differ in their optimizers
        timed = time_updates(trainer, kind.batch_size, kind.recipe, _STRETCH_S)
        memo.put_measurement(_path(trainer.workload, kind), asdict(timed))


def _kinds_in(settings: Settings, num_examples: int) -> tuple[UpdateKind, ...]:
    """The kinds of update in an epoch: that of its full batches, if it has any, and that of its last one."""
    tail = UpdateKind.of_tail(settings, num_examples)
    full = settings.num_updates - (tail is not None)
    return (*([UpdateKind.of(settings)] if full else []), *([tail] if tail else []))


def _spread(kinds: Sequence[UpdateKind]) -> list[UpdateKind]:
    """At most MOST_SIZES of the kinds of one recipe, in order of size: the ends, and others at even ratios between."""
    if len(kinds) <= MOST_SIZES:
        return list(kinds)
    sizes = np.log([kind.batch_size for kind in kinds])
    wanted = np.linspace(sizes[0], sizes[-1], MOST_SIZES)
    return [kinds[k] for k in sorted({int(np.abs(sizes - size).argmin()) for size in wanted})]


def _between(kind: UpdateKind, measured: Sequence[UpdateCost]) -> UpdateCost | None:
    """The cost of a kind whose batch size lies between those of `measured` ones of its recipe; None if it does not."""
    known = sorted(measured, key=lambda cost: cost.kind.batch_size)
    sizes = [cost.kind.batch_size for cost in known]
    if not sizes or not sizes[0] <= kind.batch_size <= sizes[-1]:
        return None
    update_s = float(np.interp(kind.batch_size, sizes, [cost.device_s_per_update for cost in known]))
    epoch_s, evaluation_s = (
        median(getattr(cost, name) for cost in known) for name in ("device_s_per_epoch", "device_s_per_evaluation")
    )
    return UpdateCost(kind, known[0].device_kind, update_s, epoch_s, evaluation_s, "interpolated")


def _in_order(kinds: Iterable[UpdateKind]) -> list[UpdateKind]:
    return sorted(kinds, key=lambda kind: (kind.batch_size, kind.digest))


@lru_cache(maxsize=1024)
def _kind(batch_size: int, recipe: Recipe) -> UpdateKind:
    constants: dict[str, Any] = dict(OPTIMIZER_CONSTANTS[recipe.optimizer])
    clipped = None if recipe.clip_norm is None else 1.0
    return UpdateKind(
        batch_size,
        replace(recipe, weight_decay=0.0, clip_norm=clipped, reset_optimizer=False, tail="keep", **constants),
    )


def _path(workload: Workload, kind: UpdateKind) -> str:
    """The memo path of a measurement, made of all that it depends on; the values of pixels do not matter."""
    root = workload.root(seed=0)
    depends = [root.model, root.numerics, root.source, workload.channels, workload.size, list(workload.counts[:2])]
    return f"calibrations/{_digest(depends)}-{kind.digest}"


def _digest(value: object) -> str:
    return blake2b(canonical_json(value), digest_size=8, person=b"lrstudy-price").hexdigest()
