"""A workload, resolved: data found and split, device and numerics known; plain values that a worker takes.

Nothing here imports torch, so a study whose training is all recorded never pays for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from lrstudy import user_code
from lrstudy.config import StudyFile
from lrstudy.config.sections import NumericsConfig, WorkloadConfig
from lrstudy.data.cache import DataSet, prepare
from lrstudy.data.labels import class_counts
from lrstudy.data.normalise import Constants, normalisation
from lrstudy.data.open_source import open_source
from lrstudy.data.spec import AUGMENTATIONS, DataSpec
from lrstudy.data.splits import Splits, split
from lrstudy.data.statistics import Statistics
from lrstudy.errors import Fault, InputError, faults_of, unknown
from lrstudy.lineage import Root
from lrstudy.models.catalogue import describe, family_of
from lrstudy.settings import Recipe, canonical_json
from lrstudy.tasks.kinds import Kind, Task, balanced_weights
from lrstudy.workload import numerics
from lrstudy.workload.devices import Resources
from lrstudy.workload.numerics import PLAIN, NumericsSpec


@dataclass(frozen=True)
class Workload:
    """Data, model and device of a study.

    `cache` is the folder of decoded data. `data_digest` and `split_digest` are what the driver found; a
    worker checks them, and `numerics` too, of which `numerics_spec` is what can be chosen. `constants` are mean and deviation per channel. `counts` are the examples of train, validation
    and test, `statistics` those of each class in them. `recipe` holds what every epoch's settings take from the workload:
    loss, class weights, augmentation. `own` are the references to
    the user's code by role (model, augment, train_step), with absolute paths, and `sources` the digests of what lies behind
    them. `device_share` is the number of devices that a trial occupies: GPUs, or CPU cores where there
    is none.
    """

    data: DataSpec
    cache: str
    data_digest: str
    split_digest: str
    classes: tuple[str, ...]
    counts: tuple[int, int, int]
    statistics: Statistics
    constants: Constants
    task: Task
    recipe: Recipe
    model: str
    own: Mapping[str, str]
    sources: Mapping[str, str]
    channels: int
    size: int
    device: str
    threads: int
    device_share: float
    numerics: dict[str, object]
    numerics_spec: NumericsSpec = PLAIN

    @property
    def num_slots(self) -> int:
        """How many trials this machine can run at once; at least 1."""
        return Resources(self.device, self.threads, self.device_share).num_slots

    def root(self, seed: int) -> Root:
        """The root of a trial with this seed."""
        image = self.data.image
        return Root(
            data=self.data_digest,
            split=self.split_digest,
            preprocessing={"normalize": image.normalize, "constants": [list(c) for c in self.constants]},
            model=describe(self.model, len(self.classes), self.channels, self.size),
            weights="random",
            seed=seed,
            numerics=self.numerics,
            task=self.task.kind,
            source=_source(self.sources),
        )


def resolve(study: StudyFile, base: Path, storage: Path, before_decoding: Callable[[], None] | None = None) -> Workload:
    """Find, decode and split the data, and measure the numerics of the device that will train.

    `before_decoding` is called if the data has to be decoded, which takes its time.
    Raises InputError if the data or the split does not do, or if the decoded data cannot be kept.
    """
    config = study.workload
    spec, owned = config.data_spec(base), own_code(config, base)
    cache = storage / "memo" / "data"
    resources = Resources.of(study.resources)
    device, threads = resources.device, resources.threads
    with ThreadPoolExecutor(1) as pool:  # the first time both take seconds, each on a core of its own
        measuring = pool.submit(numerics.probe, device, threads, storage / "memo" / "numerics")
        data, parts = load(spec, cache, before_decoding)
    task = _task(config, data)
    _check_metric(study, task, data, parts)
    numerics_spec = _numerics_spec(config.numerics, device, data.channels * data.size**2)
    return Workload(
        data=spec,
        cache=str(cache),
        data_digest=data.digest,
        split_digest=parts.digest,
        classes=tuple(data.classes),
        counts=(len(parts.train), len(parts.validation), len(parts.test)),
        statistics=Statistics.of(data, parts),
        constants=normalisation(spec.image.normalize, data.images, parts.train),
        task=task,
        recipe=_recipe(config, data, parts, task),
        model=owned.get("model", config.model),
        own=owned,
        sources={role: user_code.digest(reference, role) for role, reference in owned.items()},
        channels=data.channels,
        size=data.size,
        device=device,
        threads=threads,
        device_share=resources.device_share,
        numerics=numerics.describe(numerics_spec, measuring.result()),
        numerics_spec=numerics_spec,
    )


_EVALUATED_AT_ONCE = {"cpu": 2**19, "cuda": 2**25}
"""Elements of the images of one evaluation batch: a CPU is up to twice as fast while activations stay in its cache."""


def _numerics_spec(config: NumericsConfig, device: str, image_elements: int) -> NumericsSpec:
    """What a study's `numerics` come to. Raises InputError for what the device cannot do.

    On a CPU channels_last trained 11 networks 1.0 to 1.7 times as fast; that a GPU needs it for its tensor
    cores, and is slower with it elsewhere, is NVIDIA's word and was not measured.
    """
    if config.precision == "fp16" and device == "cpu":
        raise InputError(
            Fault(
                "workload.numerics.precision",
                "fp16 needs a GPU, as a CPU computes it many times slower than fp32; expected fp32 or bf16",
            )
        )
    if config.tf32 and device == "cpu":
        raise InputError(Fault("workload.numerics.tf32", "only NVIDIA GPUs have TF32; expected false on a CPU"))
    uses_tensor_cores = config.precision != "fp32" or config.tf32
    best = "channels_last" if device == "cpu" or uses_tensor_cores else "contiguous"
    fitting = max(1, _EVALUATED_AT_ONCE[device] // image_elements)
    return NumericsSpec(
        precision=config.precision,
        tf32=config.tf32,
        memory_format=best if config.memory_format == "auto" else config.memory_format,
        compile=config.compile,
        # Unfused, an optimizer asks the device after every update whether a scaled gradient overflowed.
        fused=config.precision == "fp16" if config.fused == "auto" else config.fused,
        eval_batch=min(1024, 2 ** (fitting.bit_length() - 1)) if config.eval_batch == "auto" else config.eval_batch,
    )


def load(spec: DataSpec, cache: Path, before_decoding: Callable[[], None] | None = None) -> tuple[DataSet, Splits]:
    """The data set and its parts: from the cache, or decoded into it. Raises InputError."""
    data = prepare(spec, cache, before_decoding=before_decoding)
    return data, split(data.labels, data.part, spec.split, spec.subset, data.classes, data.group, data.groups)


def check_without_data(study: StudyFile, base: Path) -> None:
    """What can be said of a workload before its data is looked at. Raises InputError with every fault."""
    config = study.workload
    checks = (
        lambda: open_source(config.data_spec(base)),
        lambda: own_code(config, base),
        lambda: family_of(config.model),
        lambda: _augmentation(config),
    )
    faults = [fault for check in checks for fault in faults_of(check)]
    if faults:
        raise InputError(faults)


def own_code(config: WorkloadConfig, base: Path) -> dict[str, str]:
    """References to a user's code by role, with absolute paths. Raises InputError if it cannot be loaded or called."""
    found: dict[str, str] = {}
    given = {"model": config.model, "augment": config.augment, "train_step": config.train_step}
    for role, text in given.items():
        if user_code.is_reference(text):
            found[role] = user_code.resolve(str(text), base, role)
            if not callable(user_code.load(found[role], role)):
                raise InputError(Fault(role, expected=f"{text} to be a function; it is none"))
        elif role == "train_step" and text is not None:
            raise InputError(Fault("train_step", expected="a reference such as ./mine.py:train_step", got=f"{text!r}"))
    return found


def _source(digests: Mapping[str, str]) -> str:
    """One digest of all the user's code that shapes training; empty if there is none."""
    if not digests:
        return ""
    return blake2b(canonical_json(dict(digests)), digest_size=16, person=b"lrstudy-source").hexdigest()


def _task(config: WorkloadConfig, data: DataSet) -> Task:
    """The kind of task that the labels ask for. Raises InputError if the study says another."""
    is_multilabel = data.labels.ndim == 2
    kind: Kind = "multilabel" if is_multilabel else "binary" if len(data.classes) == 2 else "multiclass"
    if config.task.kind == "multiclass" and kind == "binary":
        kind = "multiclass"
    task = Task(kind, len(data.classes))
    faults = []
    if config.task.kind not in ("auto", kind):
        labels = "several labels each" if is_multilabel else f"{len(data.classes)} classes"
        expected = f"{kind}, as the examples have {labels}"
        faults.append(Fault("workload.task.kind", expected=expected, got=config.task.kind))
    if config.task.loss not in ("auto", task.loss):
        expected = f"{task.loss}, the loss of a {kind} task"
        faults.append(Fault("workload.task.loss", expected=expected, got=config.task.loss))
    if faults:
        raise InputError(faults)
    return task


def _recipe(config: WorkloadConfig, data: DataSet, parts: Splits, task: Task) -> Recipe:
    """What every epoch's settings take from the workload. Raises InputError for weights that do not fit the classes."""
    given = config.task.class_weights
    weights: tuple[float, ...] | None = None
    if given == "balanced":
        weights = balanced_weights(data.labels[parts.train], task.num_classes)
    elif isinstance(given, dict):
        unknown_names = [name for name in given if name not in data.classes]
        if unknown_names:
            raise InputError(
                [unknown("workload.task.class_weights", "class", name, data.classes) for name in unknown_names]
            )
        weights = tuple(float(given.get(name, 1.0)) for name in data.classes)
    return Recipe(loss=task.loss, class_weights=weights, augment=_augmentation(config))


def _augmentation(config: WorkloadConfig) -> str:
    """How settings name the augmentation: a list as canonical JSON, a user's function without the path."""
    given = config.augment
    if isinstance(given, list):
        from lrstudy.data.augment import canonical

        return canonical(given)
    if user_code.is_reference(given):
        return given.rpartition("/")[2]
    if given not in AUGMENTATIONS:
        raise InputError(
            unknown("augment", "augmentation", given, (*AUGMENTATIONS, "a list of transforms", "./mine.py:augment"))
        )
    return given


def _check_metric(study: StudyFile, task: Task, data: DataSet, parts: Splits) -> None:
    """A metric that the task does not have, or that is undefined on the validation part, cannot tune anything."""
    faults = [
        Fault(where, expected=f"a metric of a {task.kind} task", got=name, valid=task.metrics, name=name)
        for where, name in [("metric", study.metric), *(("report_metrics", name) for name in study.report_metrics)]
        if name not in task.metrics
    ]
    read = {"validation": parts.validation} | ({"test": parts.test} if study.confirm.top else {})
    for part, index in read.items() if study.metric in ("auroc", "average_precision") else ():
        counts = class_counts(data.labels[index], task.num_classes)
        if not ((counts > 0) & (counts < len(index))).any():
            problem = f"{study.metric} is undefined: no class of the {part} part has positives and negatives"
            faults.append(Fault("metric", problem))
    if faults:
        raise InputError(faults)
