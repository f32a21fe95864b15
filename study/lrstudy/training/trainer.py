"""A trainer: one process's data and model, and the state it currently holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lrstudy import user_code
from lrstudy.data.batches import Part, part_of
from lrstudy.data.reading import fits
from lrstudy.models.build import build_model
from lrstudy.settings import Settings
from lrstudy.training import device_memory, host_memory
from lrstudy.training.compiling import compile_for
from lrstudy.training.epoch import Evaluation, Own, evaluate, train_epoch
from lrstudy.training.randomness import seed_for
from lrstudy.training.state import State
from lrstudy.workload import numerics
from lrstudy.workload.workload import Workload, load


@dataclass(frozen=True)
class Trained:
    """What one epoch gave: its mean training loss, its evaluation on validation data, seconds of each."""

    train_loss: float
    validation: Evaluation
    train_s: float
    eval_s: float


class Trainer:
    """Trains one workload in this process; data is opened on construction.

    Raises RuntimeError if this process would compute other numbers than the study's lineages say.
    """

    def __init__(self, workload: Workload) -> None:
        numerics_spec = workload.numerics_spec
        found = numerics.describe(numerics_spec, numerics.measure(workload.device, workload.threads))
        if found != workload.numerics:
            differing = {k for k in found.keys() | workload.numerics.keys() if found.get(k) != workload.numerics.get(k)}
            detail = "; ".join(
                f"{k}: expected {workload.numerics.get(k)!r}, here {found.get(k)!r}" for k in sorted(differing)
            )
            raise RuntimeError(f"this worker computes with other numerics than its study was named with ({detail})")
        numerics.configure(workload.device, workload.threads, numerics_spec)
        host_memory.keep_freed()
        self.workload = workload
        self.device = device_memory.device_of(workload.device)
        device_memory.limit_to_share(self.device, workload.device_share)
        self._state: State | None = None
        self._test: Part | None = None
        self._compiled: set[tuple[object, ...]] = set()
        self._load()

    def _load(self) -> None:
        self._data, self._splits = load(self.workload.data, Path(self.workload.cache))
        if (self._data.digest, self._splits.digest) != (
            self.workload.data_digest,
            self.workload.split_digest,
        ):
            raise RuntimeError("this worker sees other data than the driver: the source changed while the study ran")
        num_bytes = sum(self.workload.counts) * self._data.images[0].nbytes
        self._resident = fits(num_bytes, self.device, self.workload.device_share)
        self._own = Own(self._owned("augment"), self._owned("train_step"))
        self.train_part = self._part(self._splits.train)
        self.validation_part = self._part(self._splits.validation)

    def _owned(self, role: str) -> Any:
        """The user's function for a role, if the study names one."""
        reference = self.workload.own.get(role)
        return None if reference is None else user_code.load(reference, role)

    def _part(self, index: np.ndarray) -> Part:
        w = self.workload
        return part_of(
            self._data.images, self._data.labels, index, self.device, w.constants, self._resident,
            w.numerics_spec.memory_format,
        )  # fmt: skip

    @property
    def state(self) -> State:
        """The state held; `start` or `restore` comes first."""
        assert self._state is not None, "no state yet"
        return self._state

    def start(self, seed: int) -> None:
        """Hold the state before the first epoch: weights drawn from `seed`."""
        w = self.workload
        builder = self._owned("model")
        model = build_model(w.model, len(w.classes), w.channels, w.size, seed_for(seed, "init"), builder)
        if self._state is not None and w.numerics_spec.compile:
            self._state.begin_again(model.module)  # what is compiled belongs to a module
        else:
            self._state = State.of(model, self.device, w.numerics_spec)

    def restore(self, data: bytes) -> None:
        """Hold a stored state."""
        if self._state is None:
            self.start(seed=0)
        self.state.restore(data)

    def make_ready(self, settings: Settings) -> None:
        """Have the network compiled for the batches of these settings, if the study asks for it: no epoch's time has it in."""
        if not self.workload.numerics_spec.compile:
            return
        recipe = settings.recipe
        shapes = (settings.batch_size, settings.num_updates, recipe.tail, recipe.micro_batch, recipe.norm_batch)
        if shapes not in self._compiled:
            compile_for(self.state, settings, self.train_part, self._own)
            evaluate(self.state, self.validation_part, self.workload.task.kind)
            self._compiled.add(shapes)

    def train(self, settings: Settings, seed: int, epoch: int) -> Trained:
        """Train one epoch from the state held and evaluate; both timed apart, the device synchronised."""
        begin = self._now()
        loss = train_epoch(self.state, settings, self.train_part, seed, epoch, self._own)
        middle = self._now()
        evaluation = evaluate(self.state, self.validation_part, self.workload.task.kind)
        return Trained(loss, evaluation, middle - begin, self._now() - middle)

    def capture(self) -> bytes:
        """The state held, as bytes."""
        return self.state.capture()

    def snapshot(self) -> Callable[[], bytes]:
        """The state held, copied; the result gives its bytes."""
        return self.state.snapshot()

    def explain(self, error: Exception) -> str | None:
        """What to say of an error if this trial did not fit the memory, else None."""
        return device_memory.explain(error, self.device, self.workload.device_share)

    def test(self) -> tuple[Evaluation, Part]:
        """Evaluate on the test part, with logits."""
        if self._test is None:
            self._test = self._part(self._splits.test)
        kind = self.workload.task.kind
        return evaluate(self.state, self._test, kind, keep_logits=True), self._test

    def test_groups(self) -> list[str] | None:
        """The group of each example of the test part, if the data has groups."""
        group, names = self._data.group, self._data.groups
        return None if group is None else [names[k] for k in group[self._splits.test].tolist()]

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.monotonic()
