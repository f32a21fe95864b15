"""A study's workload, resolved: the data found and split, device and numerics known; plain values to send to workers.

Nothing here imports torch, so a study whose training is all recorded never pays for that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrstudy import user_code
from lrstudy.config import StudyFile
from lrstudy.config.sections import WorkloadConfig
from lrstudy.data.cache import DamagedError, DataSet, opened, prepare
from lrstudy.data.normalise import Constants, for_channels, normalisation
from lrstudy.data.open_source import open_source
from lrstudy.data.spec import DataSpec
from lrstudy.data.splits import Splits, split
from lrstudy.data.statistics import Statistics
from lrstudy.errors import Fault, InputError, faults_of
from lrstudy.lineage import Root
from lrstudy.models.catalogue import SMALL_IMAGE, Stem, describe, stem_of
from lrstudy.models.image_size import Size, sides
from lrstudy.settings import Recipe, canonical_json
from lrstudy.storage.place import Storage
from lrstudy.tasks.kinds import Task
from lrstudy.workload import copies, numerics, user_files, weights
from lrstudy.workload.chosen_numerics import chosen
from lrstudy.workload.devices import Resources
from lrstudy.workload.learning import augmentation, check_metrics, recipe_of, task_of
from lrstudy.workload.machine import Machine, ThisMachine
from lrstudy.workload.numerics import PLAIN, NumericsSpec
from lrstudy.workload.seen import OurData
from lrstudy.workload.weights import Weights

if TYPE_CHECKING:
    from lrstudy.models.build import Model

_HERE = ThisMachine()


@dataclass(frozen=True)
class Workload:
    """Data, model and device of a study.

    Attributes:
        data: Where the data is and how it is read, split and prepared.
        storage: The storage; a worker finds the decoded data in it.
        data_key: The name of the decoded data in its cache.
        data_digest: Digest of the decoded data that the driver saw; workers compare theirs.
        split_digest: Digest of the split that the driver made; workers compare theirs.
        classes: Names of the classes (of the labels, if an example may have several), in the order of the logits.
        counts: Number of examples of the train, validation and test parts.
        statistics: Number of examples of each class in these parts.
        constants: Mean and standard deviation of each channel, for normalisation.
        task: Kind of task and number of classes.
        recipe: What the settings of every epoch take from the workload: loss, class weights, augmentation.
        model: Name of a model, or the reference to the user's own, with an absolute path.
        user_references: References to the user's code, with absolute paths, by role: model, augment, train_step.
        source_digests: Digests of the source behind these references, by role; `files` is that of `user_files`.
        channels: Number of image channels, 1 or 3.
        size: The image size in pixels.
        stem: How the first layers of the model are.
        device: ``cuda`` or ``cpu``.
        threads: Number of CPU cores that compute for a trial.
        device_share: Number of devices that a trial occupies: GPUs, or CPU cores where there is none.
        numerics: All numerics, those of the machine and the chosen ones; workers compare theirs.
        numerics_spec: The numerics that the study chooses.
        user_files: The files that the user's code may read, by what the study file calls them.
        weights: What training begins with.
    """

    data: DataSpec
    storage: Storage
    data_key: str
    data_digest: str
    split_digest: str
    classes: tuple[str, ...]
    counts: tuple[int, int, int]
    statistics: Statistics
    constants: Constants
    task: Task
    recipe: Recipe
    model: str
    user_references: Mapping[str, str]
    source_digests: Mapping[str, str]
    channels: int
    size: Size
    stem: Stem
    device: str
    threads: int
    device_share: float
    numerics: dict[str, object]
    numerics_spec: NumericsSpec = PLAIN
    user_files: Mapping[str, Path] = field(default_factory=dict)
    weights: Weights = weights.NONE

    @property
    def resources(self) -> Resources:
        """What a trial occupies."""
        return Resources(self.device, self.threads, self.device_share)

    def root(self, seed: int) -> Root:
        """The root of a trial with this seed."""
        image = self.data.image
        return Root(
            data=self.data_digest,
            split=self.split_digest,
            preprocessing={"normalize": image.normalize, "constants": [list(c) for c in self.constants]},
            model=describe(self.model, len(self.classes), self.channels, self.size, self.stem),
            weights=self.weights.digest,
            seed=seed,
            numerics=self.numerics,
            task=self.task.kind,
            source=_source(self.source_digests),
        )

    def user_function(self, role: str) -> Any:
        """The user's function for a role, or None if the study names none.

        Raises InputError if it cannot be loaded, or if its source is no longer the one that states are named with.
        """
        reference = self.user_references.get(role)
        return None if reference is None else user_code.load(reference, role, self.source_digests[role])

    def only_named_files(self) -> AbstractContextManager[None]:
        """Within it, the user's code may read the files that `workload.files` names; InputError if it reads others."""
        return user_files.only_named(self.user_references, self.source_digests, self.user_files, self.storage.ours)


def resolve(
    study: StudyFile,
    base: Path,
    storage: Storage,
    before_decoding: Callable[[], None] | None = None,
    machine: Machine = _HERE,
    earlier: Mapping[str, Any] | None = None,
) -> Workload:
    """Find, decode and split the data of a study, and measure the numerics of the device that will train.

    Args:
        study: The checked study file.
        base: The folder that relative paths and references start at.
        storage: The study's storage, which keeps the decoded data.
        before_decoding: Called before the data is decoded, which takes a while; not called if it is decoded already.
        machine: What the trials will run on.
        earlier: The numerics of the study's earlier runs, if there were any.

    Returns:
        The workload, ready to be sent to workers.

    Raises:
        InputError: If data, split, task, metric, weights or numerics do not fit together, the user's code cannot be
            loaded, or the decoded data cannot be written.
        StorageError: If the disk is full.
        ClusterError: If a cluster does not give a device to measure.
        RuntimeError: If torch cannot use the device.
    """
    config, resources = study.workload, machine.resources(study.resources)
    spec, references, files = (
        config.data_spec(base),
        user_references(config, base),
        user_files.named(config.files, base),
    )
    source = weights_source(config, base, storage, config.download)
    with ThreadPoolExecutor(1) as pool:  # the first time both take seconds, each on a core of its own
        measuring = pool.submit(machine.numerics, resources, storage.numerics, earlier)
        data, parts = load(spec, storage, before_decoding)
    _require_accelerator(study, measuring.result())
    task = task_of(config, data)
    check_metrics(study, task, data, parts)
    numerics_spec = chosen(config, resources.device, data.channels * prod(sides(data.size)))
    begin = initial_weights(source, config, base, storage, data, parts)
    return Workload(
        data=spec,
        storage=storage,
        data_key=data.key,
        data_digest=data.digest,
        split_digest=parts.digest,
        classes=tuple(data.classes),
        counts=(len(parts.train), len(parts.validation), len(parts.test)),
        statistics=copies.statistics(data, parts, storage.memo),
        constants=_constants(config, begin, data, parts),
        task=task,
        recipe=recipe_of(config, data, parts, task),
        model=references.get("model", config.model),
        user_references=references,
        source_digests=_digests(references, files),
        channels=data.channels,
        size=data.size,
        stem=_stem(config, data.size, source),
        device=resources.device,
        threads=resources.threads,
        device_share=resources.device_share,
        numerics=numerics.describe(numerics_spec, measuring.result()),
        numerics_spec=numerics_spec,
        user_files=files,
        weights=begin,
    )


def weights_source(config: WorkloadConfig, base: Path, storage: Storage, may_download: bool) -> weights.Source | None:
    """Where a study's weights come from, made sure to be here; None for random ones. Raises InputError and StorageError."""
    try:
        return weights.locate(config.weights, config.model, base, storage, may_download)
    except InputError as error:
        raise error.within("workload") from None


def initial_weights(
    source: weights.Source | None,
    config: WorkloadConfig,
    base: Path,
    storage: Storage,
    data: DataSet,
    parts: Splits,
) -> Weights:
    """What training begins with, fitted to the model and kept in the memo.

    Raises InputError if the weights do not fit the model or have seen the test part, StorageError if the storage fails.
    """
    if source is None:
        return weights.NONE
    references, files = user_references(config, base), user_files.named(config.files, base)
    digests, size = _digests(references, files), (len(data.classes), data.channels, data.size)
    stem = _stem(config, data.size, source)

    def build() -> Model:
        from lrstudy.models.build import build_model

        builder: Any = user_code.load(references["model"], "model", digests["model"]) if "model" in references else None
        with user_files.only_named(references, digests, files, storage.ours):
            return build_model(references.get("model", config.model), *size, 0, builder, stem)

    network = weights.Network(config.model, describe(config.model, *size, stem), digests, build)
    try:
        return weights.fitted(config.weights, source, network, storage, OurData(data, parts, config.data_spec(base)))
    except InputError as error:
        raise error.within("workload") from None


def _stem(config: WorkloadConfig, size: Size, source: weights.Source | None) -> Stem:
    """How the first layers of the model are: as the study says, else as the state was trained that it begins with."""
    if config.stem == "auto" and source is not None and source.stem is not None:
        return source.stem
    return stem_of(config.model, size, config.stem, is_random=source is None)


def _constants(config: WorkloadConfig, begin: Weights, data: DataSet, parts: Splits) -> Constants:
    """What images are normalised with. Raises InputError if the weights shall say it, and do not."""
    if config.normalize != "weights":
        return normalisation(config.normalize, data.images, parts.train)
    if begin.constants is None:
        expected = "imagenet, data or none, as these weights do not say what images were normalised with for them"
        raise InputError(Fault("workload.image.normalize", expected=expected))
    return for_channels(begin.constants, data.channels)


def load(spec: DataSpec, storage: Storage, before_decoding: Callable[[], None] | None = None) -> tuple[DataSet, Splits]:
    """The data set and its parts: from the cache, or fetched or decoded into it.

    Raises InputError, and StorageError for a full disk or a bucket that fails.
    """
    data = prepare(spec, storage.data_cache, before_decoding=before_decoding, origin=storage.data_origin)
    return data, _split(spec, data)


def opened_data(workload: Workload) -> tuple[DataSet, Splits]:
    """The data set and its parts as the driver prepared them, on any node: the source need not be there.

    Only if the cache has lost them they are prepared anew. Raises InputError and StorageError.
    """
    storage = workload.storage
    try:
        data = opened(storage.data_cache, workload.data_key, storage.data_origin)
    except DamagedError:
        return load(workload.data, storage)
    return data, _split(workload.data, data)


def _split(spec: DataSpec, data: DataSet) -> Splits:
    return split(data.labels, data.part, spec.split, spec.subset, data.classes, data.group, data.groups)


def with_copies(workload: Workload) -> Workload:
    """The workload with copies counted among its test examples, however long that takes."""
    data, parts = opened_data(workload)
    return replace(workload, statistics=copies.statistics(data, parts, workload.storage.memo, is_always=True))


def check_without_data(study: StudyFile, base: Path) -> None:
    """Check what can be checked of a workload before its data is read. Raises InputError with every fault."""
    config = study.workload
    checks = (
        lambda: open_source(config.data_spec(base)),
        lambda: _files(config, base),
        lambda: stem_of(config.model, SMALL_IMAGE, config.stem),
        lambda: augmentation(config),
        lambda: weights.check(config.weights, config.model, base),
        lambda: _normalisation(config),
    )
    faults = [fault for check in checks for fault in faults_of(check)]
    if faults:
        raise InputError(faults)


def _normalisation(config: WorkloadConfig) -> None:
    """Raise InputError if weights that are drawn from a seed shall say how images are normalised."""
    if (config.weights, config.normalize) == (weights.RANDOM, "weights"):
        raise InputError(Fault("image.normalize", expected="imagenet, data or none with random weights", got="weights"))


def _files(config: WorkloadConfig, base: Path) -> None:
    """Check the references to the user's code, and the files that it may read. Raises InputError."""
    references = user_references(config, base)
    if config.files and not references:
        raise InputError(
            Fault("files", expected="it only beside code of yours that reads them (model, augment, train_step)")
        )
    user_files.named(config.files, base)


def user_references(config: WorkloadConfig, base: Path) -> dict[str, str]:
    """References to the user's code by role, with absolute paths. Raises InputError if one cannot be loaded or called."""
    references: dict[str, str] = {}
    by_role = {"model": config.model, "augment": config.augment, "train_step": config.train_step}
    for role, text in by_role.items():
        if user_code.is_reference(text):
            references[role] = user_code.resolve(str(text), base, role)
            if not callable(user_code.load(references[role], role)):
                raise InputError(Fault(role, expected=f"{text} to be a function; it is none"))
        elif role == "train_step" and text is not None:
            raise InputError(Fault("train_step", expected="a reference such as ./mine.py:train_step", got=f"{text!r}"))
    return references


def _digests(references: Mapping[str, str], files: Mapping[str, Path]) -> dict[str, str]:
    """The digests of the user's code by role, and that of the files it may read, if there are any."""
    digests = {role: user_code.digest(reference, role) for role, reference in references.items()}
    return digests | ({"files": user_files.digest(files)} if files else {})


def _source(digests: Mapping[str, str]) -> str:
    """One digest of all the user's code that shapes training; empty if there is none."""
    if not digests:
        return ""
    return blake2b(canonical_json(dict(digests)), digest_size=16, person=b"lrstudy-source").hexdigest()


def _require_accelerator(study: StudyFile, measured: Mapping[str, object]) -> None:
    """Raise InputError if the device is of another kind than the study names."""
    kind, model = study.resources.accelerator, str(measured["device_model"])
    if kind is not None and (measured["device"] != "cuda" or kind.lower() not in model.lower()):
        raise InputError(Fault("resources.accelerator", expected=f"a GPU of the kind {kind}", got=model))
