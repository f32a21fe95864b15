"""A trial, the whole idea without Ray: policy + memo + train + record.

A trial walks its lineage. Epochs with a record are recalled; from the deepest stored state the rest is
trained, evaluated and committed, epoch by epoch, so a trial can stop anywhere and go on anywhere.
This module imports no torch: the trainer comes from outside, and a walk that only recalls needs none.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lrstudy.lineage import Root, chain, extend
from lrstudy.memo.memo import Memo
from lrstudy.memo.records import Record
from lrstudy.memo.state_writer import StateWriter
from lrstudy.policies import build
from lrstudy.policies.base import Policy
from lrstudy.policies.run import History, Run
from lrstudy.settings import Settings
from lrstudy.study_folder.ledger import Category, Span

_HOST = platform.node()
_NOTICEABLE_S = 1e-3

FOLLOWS = "follows"
"""What a record's origin says under `state` if the state is written behind training and comes soon."""
PATIENCE_S = 30.0
"""How old such a record may be for somebody who needs its state to wait for it."""


class EvaluationLike(Protocol):
    """Mean loss and metrics over a part of the data."""

    @property
    def loss(self) -> float:
        """Mean loss per example."""

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics by name."""


class TrainedLike(Protocol):
    """What training one epoch gave."""

    @property
    def train_loss(self) -> float:
        """Mean training loss per example."""

    @property
    def validation(self) -> EvaluationLike:
        """The evaluation on validation data after the epoch."""

    @property
    def train_s(self) -> float:
        """Seconds of training."""

    @property
    def eval_s(self) -> float:
        """Seconds of evaluation."""


class TrainerLike(Protocol):
    """What a walk needs of a trainer (training/trainer.py says what each does)."""

    def start(self, seed: int) -> None:
        """Hold the state before the first epoch."""

    def restore(self, data: bytes) -> None:
        """Hold a stored state."""

    def make_ready(self, settings: Settings) -> None:
        """Do what has to be done once in this process before such an epoch, and is no part of its cost."""

    def train(self, settings: Settings, seed: int, epoch: int) -> TrainedLike:
        """Train one epoch from the state held, and evaluate."""

    def capture(self) -> bytes:
        """The state held, as bytes."""

    def snapshot(self) -> Callable[[], bytes]:
        """The state held, copied; the bytes are made when asked for, which another thread may do."""


class RecomputedDifferentlyError(RuntimeError):
    """An epoch retrained on a CPU gave another loss than its record: the lineage does not name all that matters."""


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """One configuration of one arm with one seed; plain values, picklable.

    `run` holds the budget, the size of the training set, sections and recipe. `store_at` are epochs
    (numbers of finished epochs) whose state other trials wait for. `share` is the number of devices
    (CPU cores on a CPU) that one trial occupies. `read_test`: evaluate the test part at the end.
    """

    trial_id: str
    policy: str
    parameters: Mapping[str, Any]
    run: Run
    root: Root
    share: float
    read_test: bool = False
    store_at: frozenset[int] = frozenset()
    origin: Mapping[str, Any] = field(default_factory=dict)

    def build_policy(self) -> Policy:
        """The policy with its parameters."""
        return build(self.policy, self.parameters)

    def chain(self, names: Sequence[str] = (), history: History = ()) -> list[str]:
        """name(1) ... name(E), beginning with `names`, which are known, and given the metrics of the first epochs.

        The chain of a reactive policy is the one it follows if nothing triggers in epochs without metrics.
        """
        policy = self.build_policy()
        epochs = (policy.settings(epoch, history, self.run) for epoch in range(len(names), self.run.num_epochs))
        return [*names, *chain(names[-1] if names else self.root.name(), epochs)]

    def bent(self, names: list[str], history: History) -> list[str]:
        """The chain `names`, as the metrics of its first epochs bend it: a reactive policy may answer otherwise now."""
        reached = len(history)
        policy = self.build_policy()
        if not policy.reactive or reached == self.run.num_epochs:
            return names
        following = extend(names[reached - 1], policy.settings(reached, history, self.run))
        return names if following == names[reached] else self.chain([*names[:reached], following], history)


@dataclass(frozen=True)
class Step:
    """One epoch of a walk: its settings and record, whether it was recalled, and where the time went."""

    settings: Settings
    record: Record
    recalled: bool
    spans: tuple[Span, ...] = ()


class Walk:
    """The walk of one trial along its lineage; iterate over it for its `Step`s.

    `trainer` is called when the first epoch has to be trained. After the last step `bring_to_end` makes the
    trainer hold the final state. Raises StorageError, and whatever training raises; what was committed stays.
    """

    def __init__(self, spec: TrialSpec, memo: Memo, trainer: Callable[[], TrainerLike]) -> None:
        self.spec = spec
        self.memo = memo
        self._make_trainer = trainer
        self._trainer: TrainerLike | None = None
        self._held: int | None = None  # the trainer holds the state after so many epochs of this walk
        self._settings: list[Settings] = []
        self._records: list[Record] = []
        self._spans: list[Span] = []
        self._writer = StateWriter(memo)

    def __iter__(self) -> Iterator[Step]:
        try:
            yield from self._advance()
        finally:
            self._writer.close()

    def _advance(self) -> Iterator[Step]:
        spec = self.spec
        policy, name = spec.build_policy(), spec.root.name()
        history: list[Mapping[str, float]] = []
        for epoch in range(spec.run.num_epochs):
            settings = policy.settings(epoch, history, spec.run)
            self._settings.append(settings)
            child = extend(name, settings)
            record = self.memo.find(child)
            recalled = record is not None
            if record is None:
                self._bring_to(epoch)
                record = self._train(child, name, epoch)
            self._records.append(record)
            history.append(record.metrics)
            spans, self._spans = tuple(self._spans), []
            yield Step(settings, record, recalled, spans)
            if record.diverged:
                return
            name = child

    def bring_to_end(self) -> tuple[TrainerLike, tuple[Span, ...]]:
        """Make the trainer hold the state after the last epoch; returns it and where the time went."""
        self._bring_to(len(self._records))
        spans, self._spans = tuple(self._spans), []
        assert self._trainer is not None
        return self._trainer, spans

    def _bring_to(self, depth: int) -> None:
        """Hold the state after `depth` epochs: from the deepest stored one, retraining what lies between."""
        if self._trainer is None:
            with_data = time.monotonic()
            self._trainer = self._make_trainer()
            self._span(with_data, "data")
        if self._held == depth:
            return
        begin = time.monotonic()
        for reached in range(depth, -1, -1):
            if reached == 0:
                self._trainer.start(self.spec.root.seed)
            elif (data := self._state_of(self._records[reached - 1], waits=reached == depth)) is not None:
                self._trainer.restore(data)
            else:
                continue
            break
        self._span(begin, "state")
        self._writer.begin_from_stored()
        for epoch in range(reached, depth):
            self._recompute(epoch, is_target=epoch + 1 == depth)
        self._held = depth

    def _state_of(self, record: Record, waits: bool) -> bytes | None:
        """A stored state; `waits`: for one that is being written by whoever trained it."""
        self._writer.finish()
        while (data := self.memo.state_of(record)) is None:
            is_coming = record.origin.get("state") == FOLLOWS and time.time() - record.created_at < PATIENCE_S
            if not (waits and is_coming):
                return None
            time.sleep(0.1)
        return data

    def _recompute(self, epoch: int, is_target: bool) -> None:
        """Retrain a recorded epoch whose state is not stored."""
        assert self._trainer is not None
        begin, record = time.monotonic(), self._records[epoch]
        self._trainer.make_ready(self._settings[epoch])
        trained = self._trainer.train(self._settings[epoch], self.spec.root.seed, epoch)
        self._span(begin, "recompute")
        if self.spec.root.numerics.get("device") == "cpu" and not record.diverged:
            expected = (record.metrics["train_loss"], record.metrics["val_loss"])
            if (trained.train_loss, trained.validation.loss) != expected:
                raise RecomputedDifferentlyError(
                    f"epoch {epoch} of lineage {record.lineage} was recomputed with losses "
                    f"{trained.train_loss!r}, {trained.validation.loss!r}; its record says {expected}. Something that "
                    "changes results is missing from its name: remove the record, and please report this."
                )
        self._writer.trained(trained.train_s)
        if is_target or self._wants_state(epoch + 1):
            begin = time.monotonic()
            self._writer.anchor(record.lineage, self._trainer.capture())
            self._span(begin, "state")

    def _train(self, lineage: str, parent: str, epoch: int) -> Record:
        """Train, evaluate and commit one epoch from the state held."""
        assert self._trainer is not None
        spec, settings = self.spec, self._settings[epoch]
        begin = time.monotonic()
        self._trainer.make_ready(settings)
        if time.monotonic() - begin > _NOTICEABLE_S:
            self._span(begin, "setup")
        begin = time.monotonic()
        trained = self._trainer.train(settings, spec.root.seed, epoch)
        self._spans.append(Span(begin, trained.train_s, "train", spec.trial_id))
        self._span(begin + trained.train_s, "evaluate")
        metrics = {"train_loss": trained.train_loss, "val_loss": trained.validation.loss}
        metrics |= {f"val_{name}": value for name, value in trained.validation.metrics.items()}
        diverged = not (math.isfinite(trained.train_loss) and math.isfinite(trained.validation.loss))
        metrics = {name: value for name, value in metrics.items() if math.isfinite(value)}
        self._writer.trained(trained.train_s)
        begin, digest, snapshot = time.monotonic(), None, None
        origin = dict(spec.origin) | {"trial": spec.trial_id}
        if not diverged and self._wants_state(epoch + 1):
            if self._writer.writes_behind and not self._is_awaited(epoch + 1):
                self._writer.finish()  # of two copies in memory one is enough
                snapshot, origin = self._trainer.snapshot(), origin | {"state": FOLLOWS}
            else:
                digest = self._writer.put(self._trainer.capture())
        state_s = time.monotonic() - begin
        record = Record(
            lineage=lineage, parent=parent, root=spec.root.name(), epoch=epoch, settings=settings.digest,
            state=digest, diverged=diverged, metrics=metrics, batch_size=settings.batch_size,
            updates=settings.num_updates, examples=_trained_on(settings, spec.run), train_s=trained.train_s,
            eval_s=trained.eval_s, state_s=state_s, device_kind=spec.root.device_kind, device_share=spec.share,
            device_s=spec.share * (trained.train_s + trained.eval_s + state_s), host=_HOST,
            created_at=time.time(), origin=origin,
        )  # fmt: skip
        winner = self.memo.commit(record)
        # If another process was first, its state may differ from ours (on a GPU): go on from what it stores.
        is_theirs = winner != record and winner.origin.get("state") == FOLLOWS
        if snapshot is not None and winner.state is None and not is_theirs:
            self._writer.anchor_behind(lineage, snapshot)
        self._span(begin, "state")
        is_same = winner.state in (None, digest) and not (is_theirs and spec.root.numerics.get("device") != "cpu")
        self._held = epoch + 1 if is_same else None
        return winner

    def _wants_state(self, depth: int) -> bool:
        return self._is_awaited(depth) or self._writer.is_due

    def _is_awaited(self, depth: int) -> bool:
        """Whether others are known to go on from here: they must find the state with the record."""
        return depth == self.spec.run.num_epochs or depth in self.spec.store_at

    def _span(self, begin: float, category: Category) -> None:
        self._spans.append(Span(begin, time.monotonic() - begin, category, self.spec.trial_id))


def _trained_on(settings: Settings, run: Run) -> int:
    """How many examples an epoch trains on."""
    return settings.num_updates * settings.batch_size if settings.recipe.tail == "drop" else run.num_examples
