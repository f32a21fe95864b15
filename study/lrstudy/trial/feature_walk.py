"""The features that the epochs of a walk train on: fetched from the memo, or computed and committed like an epoch."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from lrstudy.memo.memo import Memo
from lrstudy.memo.records import Record
from lrstudy.study_folder.ledger import Category
from lrstudy.trial.spec import TrialSpec
from lrstudy.trial.trainer import TrainerLike

log = logging.getLogger(__name__)

_HOST = platform.node()


class FeatureWalk:
    """Brings features to the trainer of one walk; `measured` notes the time within a context under a category.

    They are stored as a state is, and told of by a record of the kind ``features``: what holds for the states and records
    of epochs (races, damage, deletion) holds for them.
    """

    def __init__(
        self, spec: TrialSpec, memo: Memo, measured: Callable[[Category], AbstractContextManager[None]]
    ) -> None:
        self._spec, self._memo, self._measured = spec, memo, measured

    def bring(self, trainer: TrainerLike, epoch: int, names: Sequence[str]) -> Record | None:
        """Let the trainer have the features that an epoch trains on; it holds the state before the epoch.

        `names` are those of the states so far, name(0) first. Returns the record of the features; None if the trainer has
        them already.
        """
        start, name = max((start, of) for start, of in self._spec.features(names[1:]).items() if start <= epoch)
        if trainer.has_features(name):
            return None
        known = self._memo.find(name)
        with self._measured("state"):
            is_fetched = known is not None and self._are_fetched(trainer, known)
        return known if is_fetched else self._computed(trainer, name, start, names, known)

    def _are_fetched(self, trainer: TrainerLike, record: Record) -> bool:
        """Let the trainer have stored features. False if they are not stored, or are none: then they are set aside."""
        data = self._memo.state_of(record)
        if data is None:
            return False
        try:
            trainer.take_features(record.lineage, data)
        except ValueError as error:
            log.warning(f"The features of {self._spec.trial_id} are set aside, and computed anew: {error}")
            self._memo.refuse_state(record)
            return False
        return True

    def _computed(
        self, trainer: TrainerLike, name: str, start: int, names: Sequence[str], known: Record | None
    ) -> Record:
        """Compute features and store them; returns the record that holds, which is the `known` one if there is one."""
        begin = time.monotonic()
        with self._measured("features"):
            data, num_examples = trainer.compute_features(name)
        compute_s = time.monotonic() - begin
        with self._measured("state"):
            if known is not None:  # what it recorded was deleted since, or damaged
                self._memo.anchor(name, data)
                return known
            begin = time.monotonic()
            digest = self._memo.put_state(data)
            state_s, spec = time.monotonic() - begin, self._spec
            record = Record(
                lineage=name, parent=names[start], root=names[0], epoch=start, settings="", state=digest, diverged=False,
                metrics={}, batch_size=0, updates=0, examples=num_examples, train_s=compute_s, eval_s=0.0, state_s=state_s,
                device_kind=spec.root.device_kind, device_share=spec.device_share,
                device_s=spec.device_share * (compute_s + state_s), host=_HOST, created_at=time.time(),
                origin=dict(spec.origin) | {"trial": spec.trial_id}, kind="features",
            )  # fmt: skip
            winner = self._memo.commit(record)
            if winner.state != digest:  # another process was first; on a GPU its features may differ from ours
                self._are_fetched(trainer, winner)
        return winner
