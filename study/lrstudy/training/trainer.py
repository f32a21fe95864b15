"""A trainer: one process's data and model, and the state it currently holds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lrstudy.data.batches import Part, part_of
from lrstudy.data.reading import fits
from lrstudy.models.fitting import begin_with
from lrstudy.settings import Recipe, Settings
from lrstudy.training import device_memory, features, host_memory
from lrstudy.training.compiling import compile_for
from lrstudy.training.epoch import Evaluation, UserFunctions, evaluate, train_epoch
from lrstudy.training.modes import ALL
from lrstudy.training.precise_norm import gathering_layers, precise_norm
from lrstudy.training.randomness import seed_for
from lrstudy.training.range_test import Ramp, ramp
from lrstudy.training.state import State
from lrstudy.training.tally import Tally
from lrstudy.training.workload_model import build
from lrstudy.workload import numerics
from lrstudy.workload.numerics import BatchNorm
from lrstudy.workload.weights import stored
from lrstudy.workload.workload import Workload, opened_data


@dataclass(frozen=True)
class Trained:
    """The result of one epoch: mean training loss, evaluation on the validation part, and the seconds that each took.

    `train_metrics` are those that training itself counts, `accuracy` and for several labels `exact_match`; none if the
    epoch diverged or a user's train step trained it.
    """

    train_loss: float
    validation: Evaluation
    train_s: float
    eval_s: float
    train_metrics: Mapping[str, float] = field(default_factory=dict)


class Trainer:
    """Trains one workload in this process; the data is opened on construction.

    `clock` gives the seconds that it times epochs with. Raises RuntimeError if this process would compute with other
    numerics than those in the names of the study's states, or reads other data than the driver did.
    """

    def __init__(self, workload: Workload, clock: Callable[[], float] = time.monotonic) -> None:
        _require_same_numerics(workload)
        self._clock = clock
        numerics.configure(workload.device, workload.threads, workload.numerics_spec)
        host_memory.keep_freed()
        self.workload = workload
        self.device = device_memory.device_of(workload.device)
        device_memory.limit_to_share(self.device, workload.device_share)
        device_memory.require_room(self.device, workload.device_share)
        self._state: State | None = None
        self._test: Part | None = None
        self._compiled: set[tuple[object, ...]] = set()
        self._features: tuple[str, Part, Part] | None = None  # their name, and both parts with them
        self._load()

    def _load(self) -> None:
        w = self.workload
        self._data, self._splits = opened_data(w)
        if (self._data.digest, self._splits.digest) != (w.data_digest, w.split_digest):
            raise RuntimeError("this worker sees other data than the driver: the source changed while the study ran")
        num_bytes = sum(w.counts) * self._data.images[0].nbytes
        self._is_resident = fits(num_bytes, self.device, w.device_share)
        self._user_functions = UserFunctions(w.user_function("augment"), w.user_function("train_step"))
        self._weights = stored(w.weights, w.storage)
        self.train_part = self._part(self._splits.train)
        self.validation_part = self._part(self._splits.validation)

    def _part(self, index: np.ndarray) -> Part:
        w = self.workload
        return part_of(
            self._data.images, self._data.labels, index, self.device, w.constants, self._is_resident,
            w.numerics_spec.memory_format,
        )  # fmt: skip

    @property
    def state(self) -> State:
        """The state held; call `start` or `restore` first."""
        assert self._state is not None, "no state yet"
        return self._state

    def start(self, seed: int) -> None:
        """Hold the state before the first epoch: the study's weights, and drawn from `seed` what these leave open."""
        w = self.workload
        with w.only_named_files():
            model = build(w, seed_for(seed, "init"))
        if self._weights is not None:
            begin_with(model.module, self._weights, w.weights.anew)
        if self._state is not None and w.numerics_spec.compile:
            self._state.begin_again(model.module)  # compiled code belongs to a module, which is kept
        else:
            self._state = State.of(model, self.device, w.numerics_spec)

    def restore(self, data: bytes) -> None:
        """Hold a stored state."""
        if self._state is None:
            self.start(seed=0)
        self.state.restore(data)

    def make_ready(self, settings: Settings) -> None:
        """Compile the network for the batches of these settings, if the study asks for that, so that no epoch's time includes it."""
        recipe = settings.recipe
        if not self.workload.numerics_spec.compile or recipe.input == "features":
            return
        modes = (recipe.trainable, recipe.batchnorm)
        key = (settings.batch_size, settings.num_updates, recipe.tail, recipe.micro_batch, recipe.norm_batch, modes)
        if key not in self._compiled:
            compile_for(self.state, settings, self.train_part, self._user_functions)
            evaluate(self.state, self.validation_part, self.workload.task.kind)
            self._compiled.add(key)

    def train(self, settings: Settings, seed: int, epoch: int) -> Trained:
        """Train one epoch from the state held, then evaluate; each is timed on its own, with the device synchronised.

        Raises InputError if the user's code has read a file that the study does not name.
        """
        begin, tally, recipe = self._now(), Tally(self.device), settings.recipe
        train_part, validation_part = self._parts(recipe)
        with self.workload.only_named_files():
            loss = train_epoch(self.state, settings, train_part, seed, epoch, self._user_functions, tally)
        counted = tally.metrics() if math.isfinite(loss) else {}
        middle = self._now()
        evaluation = self._evaluated(validation_part, self.workload.numerics_spec.batchnorm, recipe)
        return Trained(loss, evaluation, middle - begin, self._now() - middle, counted)

    def range_test(
        self, passes: Sequence[Settings], seed: int, epoch: int, measures_accuracy: bool
    ) -> tuple[Ramp, float]:
        """Run a range test from the state held, which stays as it is; returns what it met, and its wall seconds.

        Raises InputError if the user's code has read a file that the study does not name.
        """
        begin, train_part = self._now(), self._parts(passes[0].recipe)[0]
        with self.workload.only_named_files():
            accuracy = partial(self._accuracy, passes[0].recipe) if measures_accuracy else None
            met = ramp(self.state, passes, train_part, seed, epoch, self._user_functions, accuracy)
        return met, self._now() - begin

    def _accuracy(self, recipe: Recipe) -> float:
        """The accuracy on the validation part of the state held, trained with this recipe; 0 if a logit is not finite."""
        evaluation = self._evaluated(self._parts(recipe)[1], self.workload.numerics_spec.batchnorm, recipe)
        return evaluation.metrics.get("accuracy", 0.0)

    def _parts(self, recipe: Recipe) -> tuple[Part, Part]:
        """The training and validation data that a recipe trains on."""
        if recipe.input == "images":
            return self.train_part, self.validation_part
        assert self._features is not None, "no features yet"
        return self._features[1:]

    def has_features(self, name: str) -> bool:
        """Whether it has the features of this name in memory; of those that it had, it keeps the last."""
        return self._features is not None and self._features[0] == name

    def take_features(self, name: str, data: bytes) -> None:
        """Have the features that `compute_features` returned. Raises ValueError for bytes that are none."""
        self._hold(name, *features.from_bytes(data, self.workload.counts[:2]))

    def compute_features(self, name: str) -> tuple[bytes, int]:
        """Compute what the backbone of the state held makes of training and validation data, and have it.

        Returns it as bytes, and the number of examples.
        """
        with self.workload.only_named_files():
            train, validation = (features.compute(self.state, part) for part in (self.train_part, self.validation_part))
        self._hold(name, train, validation)
        return features.to_bytes(train, validation), len(train) + len(validation)

    def imagine_features(self) -> None:
        """Have features of the right shape and of no meaning, to time epochs with."""
        counts = self.workload.counts
        (_, images, _) = next(iter(self.train_part.batches(None, [(0, min(2, counts[0]))])))
        shape = features.entering(self.state, self.train_part.normalised(images)).shape[1:]
        self._hold("", torch.zeros(counts[0], *shape), torch.zeros(counts[1], *shape))

    def _hold(self, name: str, train: Tensor, validation: Tensor) -> None:
        num_bytes = (len(train) + len(validation)) * train[0].numel() * train.element_size()
        is_resident = fits(num_bytes, self.device, self.workload.device_share)
        train_part = features.feature_part(self.train_part, train, is_resident)
        self._features = name, train_part, features.feature_part(self.validation_part, validation, is_resident)

    def capture(self) -> bytes:
        """The state held, as bytes."""
        return self.state.capture()

    def snapshot(self) -> Callable[[], bytes]:
        """A copy of the state held; call the result for its bytes."""
        return self.state.snapshot()

    def explain(self, error: Exception) -> str | None:
        """The explanation of an error if this trial did not fit in memory, else None."""
        return device_memory.explain(error, self.device, self.workload.device_share)

    def test(self, recipe: Recipe = ALL) -> tuple[Evaluation, Part]:
        """Evaluate the state held, whose last epoch had this recipe, on the test part; returns that part too.

        The evaluation keeps the logits.
        """
        batchnorm = self.workload.numerics_spec.batchnorm
        return self._evaluated(self._test_part, batchnorm, recipe, keep_logits=True), self._test_part

    def evaluate_training(self, recipe: Recipe = ALL) -> Evaluation:
        """Evaluate the state held, whose last epoch had this recipe, on the training part, as on the test part."""
        return self._evaluated(self.train_part, self.workload.numerics_spec.batchnorm, recipe)

    def test_otherwise(self, recipe: Recipe = ALL) -> tuple[BatchNorm, Evaluation] | None:
        """Evaluate on the test part with the statistics of BatchNorm that the study does not use.

        Returns which statistics these are, and the evaluation; None without BatchNorm, or where the last epoch kept all
        statistics frozen.
        """
        if not gathering_layers(self.state, recipe):
            return None
        other: BatchNorm = "running" if self.workload.numerics_spec.batchnorm == "precise" else "precise"
        return other, self._evaluated(self._test_part, other, recipe)

    @property
    def _test_part(self) -> Part:
        """The test part, made when it is first read."""
        if self._test is None:
            self._test = self._part(self._splits.test)
        return self._test

    def _evaluated(self, part: Part, batchnorm: BatchNorm, recipe: Recipe, keep_logits: bool = False) -> Evaluation:
        """The evaluation of the state held, whose last epoch had this recipe, on `part`."""
        with precise_norm(self.state, self.train_part, recipe) if batchnorm == "precise" else nullcontext():
            return evaluate(self.state, part, self.workload.task.kind, keep_logits)

    def test_groups(self) -> list[str] | None:
        """The group of each example of the test part, if the data has groups."""
        return self._data.groups_of(self._splits.test)

    def test_sources(self) -> list[str] | None:
        """The file or row in the source of each example of the test part, if that is known."""
        return self._data.sources_of(self._splits.test)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self._clock()


def _require_same_numerics(workload: Workload) -> None:
    """Raise RuntimeError if this process computes with other numerics than those that the study's states are named with."""
    expected = workload.numerics
    here = numerics.describe(workload.numerics_spec, numerics.measure(workload.device, workload.threads))
    if here != expected:
        differing = sorted(key for key in here.keys() | expected.keys() if here.get(key) != expected.get(key))
        detail = "; ".join(f"{key}: expected {expected.get(key)!r}, here {here.get(key)!r}" for key in differing)
        raise RuntimeError(f"this worker computes with other numerics than its study was named with ({detail})")
