"""Calibrated cost: how long an update takes alone on the device, by kind of update, measured once and kept in the memo.

Recorded times depend on what else ran: a trial that shared a GPU with an idle neighbour was fast, but must not look cheap.
So reports price the confirmed trials by how long their updates take when nothing else runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

from lrstudy.memo.memo import Memo
from lrstudy.running.protocol import Trial
from lrstudy.settings import Recipe, Settings, canonical_json
from lrstudy.workload.workload import Workload

if TYPE_CHECKING:
    from lrstudy.training.trainer import Trainer

_STRETCH_S = 0.2


@dataclass(frozen=True)
class UpdateKind:
    """What decides how long an update takes: the batch size, and the recipe without what only changes values."""

    batch_size: int
    recipe: Recipe

    @staticmethod
    def of(settings: Settings) -> UpdateKind:
        """The kind of the updates in an epoch with these settings."""
        return _kind(settings.batch_size, settings.recipe)

    @cached_property
    def digest(self) -> str:
        """The name of the kind, 16 hexadecimal digits."""
        return _digest([self.batch_size, asdict(self.recipe)])


@dataclass(frozen=True)
class UpdateCost:
    """Device-seconds of an update of a kind, of an epoch in addition to its updates, and of an evaluation."""

    kind: UpdateKind
    device_kind: str
    device_s_per_update: float
    device_s_per_epoch: float
    device_s_per_evaluation: float


def kinds_of(trials: Iterable[Trial]) -> list[UpdateKind]:
    """The kinds of update in the epochs of the confirmed trials, whose costs are compared; sorted."""
    kinds: set[UpdateKind] = set()
    seen: set[str] = set()
    for trial in trials:
        if trial.phase == "confirm":
            policy, history = trial.spec.build_policy(), [record.metrics for record in trial.records]
            for epoch, record in enumerate(trial.records):
                if record.settings not in seen:
                    seen.add(record.settings)
                    kinds.add(UpdateKind.of(policy.settings(epoch, history[:epoch], trial.spec.run)))
    return sorted(kinds, key=lambda kind: (kind.batch_size, kind.digest))


def update_cost(memo: Memo, workload: Workload, kind: UpdateKind) -> UpdateCost | None:
    """The measured cost of a kind of update on this kind of device, or None if it has not been measured."""
    stored = memo.measurement(_path(workload, kind))
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


@lru_cache(maxsize=1024)
def _kind(batch_size: int, recipe: Recipe) -> UpdateKind:
    clipped = None if recipe.clip_norm is None else 1.0
    return UpdateKind(
        batch_size, replace(recipe, weight_decay=0.0, clip_norm=clipped, reset_optimizer=False, tail="keep")
    )


def _path(workload: Workload, kind: UpdateKind) -> str:
    """The memo path of a measurement, made of all that it depends on; the values of pixels do not matter."""
    root = workload.root(seed=0)
    depends = [root.model, root.numerics, root.source, workload.channels, workload.size, list(workload.counts[:2])]
    return f"calibrations/{_digest(depends)}-{kind.digest}"


def _digest(value: object) -> str:
    return blake2b(canonical_json(value), digest_size=8, person=b"lrstudy-price").hexdigest()
