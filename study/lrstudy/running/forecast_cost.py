"""What the training that is forecast costs: seconds per update and evaluation, from earlier epochs or from a probe.

Also the noise of confirmed results, which decides how small a difference a study can detect.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np

from lrstudy.memo.memo import Memo
from lrstudy.memo.records import Record
from lrstudy.planning import study_lock
from lrstudy.planning.plan import Plan
from lrstudy.running.counting_noise import counting_deviation
from lrstudy.running.forecast import Work
from lrstudy.settings import Effort
from lrstudy.study_folder import of_workloads

_ROOT_FAMILY = ("data", "split", "preprocessing", "model", "augment")
"""What two studies must have in common for their epochs to take as long, besides the numerics."""
_MOST_LOOKED_AT = 100
_NOTHING: Mapping[str, Effort] = MappingProxyType({})


@dataclass(frozen=True)
class Timing:
    """Seconds of one trial: per update by batch size, per epoch beyond its updates, and per evaluation.

    `source` says whether these are medians over recorded epochs or come from a probe; `count` is the number of epochs,
    or of batch sizes that were probed. A probe also knows in which fraction of the time it was running (`running`, 1 if it
    was alone; on one core only that time counts), whether another program had memory of the GPU (`has_neighbours`), and the
    size of a state in bytes. `partial_s` has seconds per update for epochs that train on features, or some sections alone.
    """

    per_update_s: Mapping[int, float]
    evaluation_s: float
    source: Literal["recorded", "measured"]
    count: int
    epoch_s: float = 0.0
    running: float = 1.0
    has_neighbours: bool = False
    state_bytes: int | None = None
    partial_s: Mapping[Effort, Mapping[int, float]] = field(default_factory=dict)

    def update_s(self, batch_size: int, effort: Effort = "all") -> float:
        """Seconds per update: as timed, or interpolated between the nearest batch sizes that were.

        Above the largest of them an update takes longer in proportion; below the smallest it is taken to be no faster. One
        that was not timed of its `effort` takes as long as one of the whole network, or of whatever was.
        """
        timed = self.partial_s.get(effort) or self.per_update_s or next(iter(self.partial_s.values()))
        known = sorted(timed)
        if batch_size > known[-1]:
            return timed[known[-1]] * batch_size / known[-1]
        return float(np.interp(batch_size, known, [timed[size] for size in known]))

    def seconds(self, work: Work, passes_s: float = 0.0) -> float:
        """Seconds that `work` takes if one trial is trained after the other, start-up aside, and computing features besides.

        Evaluating features costs next to nothing, and is left out.
        """
        epochs_s = (
            count
            * (
                kind.updates * self.update_s(kind.batch_size, kind.effort)
                + self.epoch_s
                + (self.evaluation_s if kind.effort != "features" else 0.0)
            )
            for kind, count in work.items()
        )
        return sum(epochs_s, passes_s)


@dataclass(frozen=True)
class Noise:
    """Standard deviation of an arm's difference to the control over seeds, on the test part.

    `low` and `high` are the same where it was measured, over `pairs` pairs; else the range that is assumed.
    """

    low: float
    high: float
    pairs: int
    assumption: str = ""


def recorded_timing(
    plan: Plan, storage: Path, records: Sequence[Record], efforts: Mapping[str, Effort] = _NOTHING
) -> Timing | None:
    """The timing of the epochs of the same workload and kind of device in this storage; None if there are none.

    `records` are those of the study itself, whose settings have these `efforts` where they do not train the whole network;
    the tables of the storage's studies add theirs.
    """
    rows = {record.lineage: _Row.of(record, efforts.get(record.settings, "all")) for record in records}
    for folder, lock in _relatives(plan, storage):
        if lock.get("numerics") == plan.workload.numerics:
            rows |= _epoch_rows(folder / "epochs.parquet")
    if not rows:
        return None
    times: dict[Effort, dict[int, list[float]]] = {}
    for row in rows.values():
        times.setdefault(row.effort, {}).setdefault(row.batch_size, []).append(row.train_s / max(1, row.updates))
    medians = {kind: {batch: median(each) for batch, each in of.items()} for kind, of in times.items()}
    whole = [row.eval_s for row in rows.values() if row.effort != "features"]
    evaluation = median(whole or [row.eval_s for row in rows.values()])
    return Timing(medians.pop("all", {}), evaluation, "recorded", len(rows), partial_s=medians)


def recorded_state_bytes(memo: Memo, records: Sequence[Record]) -> int | None:
    """The size in bytes of the largest stored state after the last few of these epochs; None if none is stored."""
    sizes = memo.state_sizes()
    digests = {digest for record in records[-_MOST_LOOKED_AT:] for digest in memo.digests_of(record)}
    return max((sizes[digest] for digest in digests if digest in sizes), default=None)


def noise(plan: Plan, storage: Path) -> Noise:
    """How much results vary with the seed: by the confirmed trials of this workload in the storage, or as assumed."""
    spreads = [
        spread
        for folder, lock in _relatives(plan, storage)
        if lock.get("metric") == plan.study.metric
        for spread in _spreads(folder / "trials.parquet", lock.get("control"))
    ]
    if spreads:
        freedom = sum(df for df, _ in spreads)
        sd = math.sqrt(sum(df * variance for df, variance in spreads) / freedom)
        return Noise(sd, sd, freedom + len(spreads))
    return _assumed(plan)


def _assumed(plan: Plan) -> Noise:
    """Noise in proportion to the deviation that the metric has by counting: over the examples of each class in the test part.

    Seeds alone scatter by about 0.6 of the binomial deviation on CIFAR-10 (Jordan 2023, arXiv 2304.01910: 0.15 points
    at 94% of 10,000); small training sets and averages over rare classes scatter more.
    """
    statistics, metric = plan.workload.statistics, plan.study.metric
    counts, total = statistics.counts["test"], plan.workload.counts[2]
    value = min(plan.study.target.value or 0.9, 0.999)
    counting = counting_deviation(metric, value, counts, total, statistics.is_multilabel)
    low, high = (factor * counting * math.sqrt(2) for factor in (0.5, 1.5))
    smallest = ""
    if metric != "accuracy" and metric != "exact_match":
        least, name = min(
            (count, name) for count, name in zip(counts, statistics.classes, strict=True) if count or not any(counts)
        )
        smallest = f", of which {least} have the smallest class, {name},"
    words = (
        f"nothing is recorded to measure the noise with; assumed: {metric} near {value:g}, whose counting noise over "
        f"{total} test examples{smallest} is {counting:.4f}, seeds that scatter by 0.5 to 1.5 of that, and arms that do so "
        "independently"
    )
    return Noise(low, high, 0, words)


def _relatives(plan: Plan, storage: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The studies of a storage with this workload, and their locks."""
    mine = study_lock.identity(plan)
    for path in (folder / "study.lock.json" for folder in of_workloads.folders(storage)):
        try:
            lock = json.loads(path.read_text(encoding="utf-8"))
            identity = lock["identity"]
            if all(identity[name] == mine[name] for name in _ROOT_FAMILY):
                yield path.parent, lock
        except (OSError, ValueError, KeyError, TypeError):
            continue  # of another version, or being written


class _Row(NamedTuple):
    """What a recorded epoch says of time."""

    batch_size: int
    updates: int
    train_s: float
    eval_s: float
    effort: Effort

    @staticmethod
    def of(record: Record, effort: Effort) -> _Row:
        return _Row(record.batch_size, record.updates, record.train_s, record.eval_s, effort)


def _epoch_rows(path: Path) -> dict[str, _Row]:
    columns = _columns(path, ("lineage", "batch_size", "updates", "train_s", "eval_s", "kind", "settings"))
    if columns is None:
        return {}
    efforts = _efforts(path.with_name("settings.parquet"))
    return {
        lineage: _Row(batch, updates, train_s, eval_s, efforts.get(settings, "all"))
        for lineage, batch, updates, train_s, eval_s, kind, settings in zip(*columns, strict=True)
        if kind == "train" and None not in (lineage, batch, updates, train_s, eval_s)
    }


def _efforts(path: Path) -> dict[str, Effort]:
    """The efforts of a study's settings, by their digests, where they are not that of the whole network."""
    found: dict[str, Effort] = {}
    for settings, text in zip(*(_columns(path, ("settings", "recipe")) or ([], [])), strict=True):
        recipe = json.loads(text)
        if recipe.get("input") == "features" or recipe.get("trainable"):
            found[settings] = "features" if recipe.get("input") == "features" else "some"
    return found


def _spreads(path: Path, control: object) -> list[tuple[int, float]]:
    """Of each arm's best configuration: degrees of freedom and variance, over seeds, of its difference to the control."""
    by_arm: dict[str, dict[int, float]] = {}
    for arm, seed, value, rank in _confirmed(path):
        if rank == 1 and value is not None:
            by_arm.setdefault(arm, {}).setdefault(seed, value)
    base = by_arm.pop(str(control), {})
    spreads = []
    for values in by_arm.values():
        differences = [value - base[seed] for seed, value in values.items() if seed in base]
        if len(differences) >= 2:
            spreads.append((len(differences) - 1, float(np.var(differences, ddof=1))))
    return spreads if any(variance > 0 for _, variance in spreads) else []


def _confirmed(path: Path) -> Iterator[tuple[str, int, float | None, int]]:
    """Arm, seed, test value and rank of the confirm trials of a study's table."""
    names = ("phase", "arm", "seed", "test_metric")
    columns = _columns(path, (*names, "rank"))
    if columns is None and (older := _columns(path, (*names, "trial_id"))) is not None:
        *others, ids = older
        columns = [*others, [int(name.rsplit("-", 2)[1]) if "-confirm-" in name else None for name in ids]]
    for phase, arm, seed, value, rank in zip(*columns or (), strict=True):
        if phase == "confirm":
            yield arm, seed, value, rank


def _columns(path: Path, names: Sequence[str]) -> list[list[Any]] | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=list(names))
        return [table[name].to_pylist() for name in names]
    except (OSError, pa.ArrowException, KeyError):
        return None
