"""The walk of a trial along its lineage.

A trial walks its lineage. Epochs that have a record are recalled. The others are trained from the deepest stored
state, evaluated and committed one by one, so a trial can stop after any epoch and be continued by any process.
This module imports no torch: the trainer comes from outside, and a walk that only recalls needs none.
"""

from __future__ import annotations

import logging
import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from lrstudy.lineage import extend
from lrstudy.memo.memo import Memo
from lrstudy.memo.records import Record
from lrstudy.memo.state_writer import StateWriter
from lrstudy.policies.run import Run
from lrstudy.settings import Recipe, Settings
from lrstudy.study_folder.ledger import Category, Span
from lrstudy.trial.feature_walk import FeatureWalk
from lrstudy.trial.spec import TrialSpec
from lrstudy.trial.trainer import TrainedLike, TrainerLike

log = logging.getLogger(__name__)

_HOST = platform.node()
_NOTICEABLE_S = 1e-3  # getting ready in less than this gets no span of its own

FOLLOWS = "follows"
"""What a record's origin says under `state` if the state is written after the record, while the next epoch trains."""
PATIENCE_S = 30.0
"""How long after such a record was made its state is waited for."""


class RecomputedDifferentlyError(RuntimeError):
    """An epoch retrained on a CPU gave another loss than its record: the lineage does not name all that matters."""


@dataclass(frozen=True)
class TrialEpoch:
    """One epoch of a walk: its settings and record, whether it was recalled, and where the time went.

    `features` is the record of the features that were computed or fetched before it.
    """

    settings: Settings
    record: Record
    recalled: bool
    spans: tuple[Span, ...] = ()
    features: Record | None = None

    @property
    def records(self) -> tuple[Record, ...]:
        """What the driver is to learn of: the record of the features, if there are any, and that of the epoch."""
        return (self.record,) if self.features is None else (self.features, self.record)


@dataclass(frozen=True)
class _Kept:
    """How the state after an epoch is kept: stored under `digest`, written later from `snapshot`, or not at all."""

    digest: str | None = None
    snapshot: Callable[[], bytes] | None = None


class Walk:
    """The walk of one trial along its lineage; iterate over it for its `TrialEpoch`s.

    `trainer` is called when the first epoch has to be trained. After the last epoch `bring_to_selected` makes the
    trainer hold the state of the epoch that is selected. Raises StorageError, and whatever training raises; what is
    committed stays.
    """

    def __init__(self, spec: TrialSpec, memo: Memo, trainer: Callable[[], TrainerLike]) -> None:
        self.spec = spec
        self.memo = memo
        self._make_trainer = trainer
        self._trainer: TrainerLike | None = None
        self._held: int | None = None  # the trainer holds the state after this many epochs
        self._names = [spec.root.name()]
        self._settings: list[Settings] = []
        self._records: list[Record] = []
        self._spans: list[Span] = []
        self._writer = StateWriter(memo)
        self._features = FeatureWalk(spec, memo, self._measured)
        self._told_features: Record | None = None
        self._selected: tuple[int, Callable[[], bytes]] | None = None  # a depth, and a copy of the state there

    def __iter__(self) -> Iterator[TrialEpoch]:
        try:
            yield from self._advance()
        finally:
            with self._measured("state"):
                self._writer.close()

    def bring_to_selected(self) -> tuple[TrainerLike, Record, tuple[Span, ...]]:
        """Make the trainer hold the state of the selected epoch, which is stored if it was not.

        Returns the trainer, the record of that epoch, and where the time went.
        """
        epoch = self.spec.selected(self._records)
        if self._selected is not None and self._selected[0] == epoch + 1:
            self._restore_copy(*self._selected)
        return self._trainer_at(epoch + 1), self._records[epoch], self.take_spans()

    @property
    def selected_recipe(self) -> Recipe:
        """What the selected epoch was trained with, beside rates and batch size."""
        return self._settings[self.spec.selected(self._records)].recipe

    def bring_to(self, depth: int, recipe: Recipe) -> TrainerLike:
        """The trainer, holding the state after the first `depth` epochs, and what a recipe trains on there.

        So many epochs must have been iterated over.
        """
        trainer = self._trainer_at(depth)
        if recipe.input == "features":
            self._features.bring(trainer, depth, self._names)
        return trainer

    def _advance(self) -> Iterator[TrialEpoch]:
        with self._measured("between"):
            policy, run = self.spec.build_policy(), self.spec.run
        history: list[Mapping[str, float]] = []
        for epoch in range(run.num_epochs):
            with self._measured("between"):
                settings = policy.settings(epoch, history, run)
                self._settings.append(settings)
                self._names.append(extend(self._names[epoch], settings))
                recalled = self.memo.find(self._names[-1])
            record = self._train(epoch) if recalled is None else recalled
            self._records.append(record)
            self._copy_selected(epoch)
            history.append(record.metrics)
            features, self._told_features = self._told_features, None
            yield TrialEpoch(settings, record, recalled is not None, self.take_spans(), features)
            if record.diverged or self.spec.ends_with(record.metrics):
                return

    # A state to train from: the deepest one that is stored, and the recorded epochs after it once more

    def _trainer_at(self, depth: int) -> TrainerLike:
        """The trainer, holding the state after `depth` epochs."""
        trainer = self._get_trainer()
        if self._held != depth:
            for epoch in range(self._restore_deepest(trainer, depth), depth):
                self._recompute(trainer, epoch, is_target=epoch + 1 == depth)
            self._held = depth
        return trainer

    def _get_trainer(self) -> TrainerLike:
        if self._trainer is None:
            with self._measured("data"):
                self._trainer = self._make_trainer()
        return self._trainer

    def _restore_deepest(self, trainer: TrainerLike, depth: int) -> int:
        """Restore the deepest stored state within the first `depth` epochs, or start; returns its depth."""
        begin = time.monotonic()
        for reached in range(depth, 0, -1):
            state = self._state_of(self._records[reached - 1], waits=reached == depth)
            if state is not None and self._is_restored(trainer, state, self._records[reached - 1]):
                break
        else:
            reached = 0
            trainer.start(self.spec.root.seed)
        self._span(begin, "state")
        self._writer.begin_from_stored()
        return reached

    def _is_restored(self, trainer: TrainerLike, state: bytes, record: Record) -> bool:
        """Let the trainer hold a stored state. False if the bytes are no state of this training: they are set aside."""
        try:
            trainer.restore(state)
        except ValueError as error:
            log.warning(
                f"The state after epoch {record.epoch} of {self.spec.trial_id} is set aside, and trained anew: {error}"
            )
            self.memo.refuse_state(record)
            return False
        return True

    def _state_of(self, record: Record, waits: bool) -> bytes | None:
        """The state after a recorded epoch, if it is stored; `waits`: for one that is still being written."""
        self._writer.finish()
        while (state := self.memo.state_of(record)) is None:
            is_coming = _follows(record) and time.time() - record.created_at < PATIENCE_S
            if not (waits and is_coming):
                return None
            time.sleep(0.1)
        return state

    def _recompute(self, trainer: TrainerLike, epoch: int, is_target: bool) -> None:
        """Retrain a recorded epoch whose state is not stored."""
        record, settings = self._records[epoch], self._settings[epoch]
        self._bring_features(trainer, epoch)
        with self._measured("recompute"):
            trainer.make_ready(settings)
            trained = trainer.train(settings, self.spec.root.seed, epoch)
        if self._is_exact and not record.diverged:
            _require_same_losses(trained, record)
        self._writer.trained(trained.train_s)
        if is_target or self._wants_state(epoch + 1):
            begin = time.monotonic()
            self._writer.anchor(record.lineage, trainer.capture())
            self._span(begin, "state")

    def _bring_features(self, trainer: TrainerLike, epoch: int) -> None:
        """Let the trainer have the features that an epoch trains on, if it is one that does."""
        if self._settings[epoch].recipe.input == "features":
            self._told_features = self._features.bring(trainer, epoch, self._names) or self._told_features

    # The state that will be tested, if it may be another one than the last

    def _copy_selected(self, epoch: int) -> None:
        """Copy the state of an epoch that is selected so far, unless it is stored or was not trained here.

        A copy in memory takes milliseconds, and of all these states one is needed in the end.
        """
        is_judged = self.spec.read_test and self.spec.selection.select != "final"
        if not is_judged or self._held != epoch + 1 or self.spec.selected(self._records) != epoch:
            return
        record, begin = self._records[epoch], time.monotonic()
        self._selected = None
        if record.state is None and not _follows(record) and not record.diverged:
            self._selected = epoch + 1, self._get_trainer().snapshot()
            self._span(begin, "state")

    def _restore_copy(self, depth: int, copy: Callable[[], bytes]) -> None:
        """Make the trainer hold a state that was copied, and store it: retention keeps what was tested."""
        begin, state = time.monotonic(), copy()
        self._writer.anchor(self._records[depth - 1].lineage, state)
        self._get_trainer().restore(state)
        self._held = depth
        self._span(begin, "state")

    # A new epoch: train and evaluate, keep the state, then commit the record

    def _train(self, epoch: int) -> Record:
        """Train, evaluate and commit one epoch; returns the record that holds."""
        trainer = self._trainer_at(epoch)
        trained = self._timed(trainer, epoch)
        self._writer.trained(trained.train_s)
        begin = time.monotonic()
        kept = _Kept() if _is_diverged(trained) else self._keep_state(trainer, epoch + 1, _metrics(trained))
        record = self._record(epoch, trained, kept, state_s=time.monotonic() - begin)
        winner = self.memo.commit(record)
        self._go_on_from(winner, record, kept)
        self._span(begin, "state")
        return winner

    def _timed(self, trainer: TrainerLike, epoch: int) -> TrainedLike:
        """Train and evaluate one epoch, and note the time of each."""
        self._bring_features(trainer, epoch)
        settings, begin = self._settings[epoch], time.monotonic()
        trainer.make_ready(settings)
        if time.monotonic() - begin > _NOTICEABLE_S:
            self._span(begin, "setup")
        begin = time.monotonic()
        try:
            trained = trainer.train(settings, self.spec.root.seed, epoch)
        except Exception:
            self._span(begin, "train")
            raise
        self._spans.append(Span(begin, trained.train_s, "train", self.spec.trial_id))
        self._span(begin + trained.train_s, "evaluate")
        return trained

    def _keep_state(self, trainer: TrainerLike, depth: int, metrics: Mapping[str, float]) -> _Kept:
        """Store the state after `depth` epochs, or copy it to be written during the next one, if it is due at all.

        The last of them gave these `metrics`, with which the trial may end.
        """
        is_awaited = self._is_awaited(depth) or self.spec.ends_with(metrics)
        if not (is_awaited or self._writer.is_due):
            return _Kept()
        if self._writer.writes_behind and not is_awaited:
            self._writer.finish()  # of two copies in memory one is enough
            return _Kept(snapshot=trainer.snapshot())
        return _Kept(digest=self._writer.put(trainer.capture()))

    def _wants_state(self, depth: int) -> bool:
        return self._is_awaited(depth) or self._writer.is_due

    def _is_awaited(self, depth: int) -> bool:
        """Whether other trials go on from here, now or later: they must find the state as soon as they find the record."""
        return depth == self.spec.run.num_epochs or depth in self.spec.store_at or depth in self.spec.stage_starts

    def _record(self, epoch: int, trained: TrainedLike, kept: _Kept, state_s: float) -> Record:
        spec, settings = self.spec, self._settings[epoch]
        origin = dict(spec.origin) | {"trial": spec.trial_id}
        return Record(
            lineage=self._names[epoch + 1], parent=self._names[epoch], root=self._names[0], epoch=epoch,
            settings=settings.digest, state=kept.digest, diverged=_is_diverged(trained), metrics=_metrics(trained),
            batch_size=settings.batch_size, updates=settings.num_updates, examples=_trained_on(settings, spec.run),
            train_s=trained.train_s, eval_s=trained.eval_s, state_s=state_s, device_kind=spec.root.device_kind,
            device_share=spec.device_share, device_s=spec.device_share * (trained.train_s + trained.eval_s + state_s), host=_HOST,
            created_at=time.time(), origin=origin if kept.snapshot is None else origin | {"state": FOLLOWS},
        )  # fmt: skip

    def _go_on_from(self, winner: Record, ours: Record, kept: _Kept) -> None:
        """Go on from the state that belongs to `winner`: on a GPU, another process's may differ from the one held."""
        is_being_written = winner != ours and _follows(winner)
        if kept.snapshot is not None and winner.state is None and not is_being_written:
            self._writer.anchor_behind(winner.lineage, kept.snapshot)
        is_ours = self._is_exact if is_being_written else winner.state in (None, kept.digest)
        self._held = ours.epoch + 1 if is_ours else None

    @property
    def _is_exact(self) -> bool:
        """Whether training an epoch twice gives the same numbers."""
        return self.spec.root.numerics.get("device") == "cpu"

    @contextmanager
    def _measured(self, category: Category) -> Iterator[None]:
        """Note the time within this context, however it ends."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self._span(begin, category)

    def _span(self, begin: float, category: Category) -> None:
        self._spans.append(Span(begin, time.monotonic() - begin, category, self.spec.trial_id))

    def take_spans(self) -> tuple[Span, ...]:
        """What was measured since the last call, and since the last epoch was handed over."""
        spans, self._spans = tuple(self._spans), []
        return spans


def _follows(record: Record) -> bool:
    """Whether the state of a recorded epoch is written after the record."""
    return record.origin.get("state") == FOLLOWS


def _is_diverged(trained: TrainedLike) -> bool:
    return not (math.isfinite(trained.train_loss) and math.isfinite(trained.validation.loss))


def _metrics(trained: TrainedLike) -> dict[str, float]:
    """The metrics of a record: those that are finite."""
    metrics = {"train_loss": trained.train_loss, "val_loss": trained.validation.loss}
    metrics |= {f"train_{name}": value for name, value in trained.train_metrics.items()}
    metrics |= {f"val_{name}": value for name, value in trained.validation.metrics.items()}
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _require_same_losses(trained: TrainedLike, record: Record) -> None:
    """Raise RecomputedDifferentlyError if an epoch was retrained with other losses than its record has."""
    expected = (record.metrics["train_loss"], record.metrics["val_loss"])
    if (trained.train_loss, trained.validation.loss) != expected:
        raise RecomputedDifferentlyError(
            f"epoch {record.epoch} of lineage {record.lineage} was recomputed with losses "
            f"{trained.train_loss!r}, {trained.validation.loss!r}; its record says {expected}. Something that "
            "changes results is missing from its name: remove the record, and please report this."
        )


def _trained_on(settings: Settings, run: Run) -> int:
    """How many examples an epoch trains on."""
    return settings.num_updates * settings.batch_size if settings.recipe.tail == "drop" else run.num_examples
