"""What a workload learns: the kind of task, loss, class weights, augmentation and metrics, checked against the data."""

from __future__ import annotations

from lrstudy import user_code
from lrstudy.config import StudyFile, claims
from lrstudy.config.sections import WorkloadConfig
from lrstudy.data.cache import DataSet
from lrstudy.data.labels import class_counts
from lrstudy.data.spec import AUGMENTATIONS
from lrstudy.data.splits import Splits
from lrstudy.errors import Fault, InputError, unknown
from lrstudy.settings import Recipe
from lrstudy.tasks.kinds import Kind, Task, balanced_weights


def task_of(config: WorkloadConfig, data: DataSet) -> Task:
    """The task that the labels imply. Raises InputError if the study file says another one."""
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


def recipe_of(config: WorkloadConfig, data: DataSet, parts: Splits, task: Task) -> Recipe:
    """What the settings of every epoch take from the workload. Raises InputError for weights that do not fit the classes."""
    weights = _class_weights(config, data, parts, task)
    return Recipe(loss=task.loss, class_weights=weights, augment=augmentation(config))


def _class_weights(config: WorkloadConfig, data: DataSet, parts: Splits, task: Task) -> tuple[float, ...] | None:
    """One weight per class, 1 for a class that the study file does not mention; None without weights."""
    weights = config.task.class_weights
    if weights == "balanced":
        return balanced_weights(data.labels[parts.train], task.num_classes)
    if not isinstance(weights, dict):
        return None
    unknown_names = [name for name in weights if name not in data.classes]
    if unknown_names:
        raise InputError(
            [unknown("workload.task.class_weights", "class", name, data.classes) for name in unknown_names]
        )
    return tuple(float(weights.get(name, 1.0)) for name in data.classes)


def augmentation(config: WorkloadConfig) -> str:
    """The augmentation as settings name it: a list as canonical JSON, a user's function by its file's name, without folder."""
    augment = config.augment
    if isinstance(augment, list):
        from lrstudy.data.augment import canonical

        return canonical(augment)
    if user_code.is_reference(augment):
        return augment.rpartition("/")[2]
    if augment not in AUGMENTATIONS:
        raise InputError(
            unknown("augment", "augmentation", augment, (*AUGMENTATIONS, "a list of transforms", "./mine.py:augment"))
        )
    return augment


def check_metrics(study: StudyFile, task: Task, data: DataSet, parts: Splits) -> None:
    """Raise InputError for a metric that the task does not have, or that cannot be computed on a part that is read."""
    faults = [
        Fault(where, expected=f"a metric of a {task.kind} task", got=name, valid=task.metrics, name=name)
        for where, name in [("metric", study.metric), *(("report_metrics", name) for name in study.report_metrics)]
        if name not in task.metrics
    ]
    faults += claims.faults_with_data(study, task.kind, task.metrics, data.classes)
    if study.metric in ("auroc", "average_precision"):
        faults += _undefined_metric(study, task, data, parts)
    if faults:
        raise InputError(faults)


def _undefined_metric(study: StudyFile, task: Task, data: DataSet, parts: Splits) -> list[Fault]:
    """The parts on which the study's ranking metric is undefined; the test part counts only if trials are confirmed."""
    read = {"validation": parts.validation} | ({"test": parts.test} if study.confirm.top else {})
    faults = []
    for part, index in read.items():
        counts = class_counts(data.labels[index], task.num_classes)
        if not ((counts > 0) & (counts < len(index))).any():
            problem = f"{study.metric} is undefined: no class of the {part} part has positives and negatives"
            faults.append(Fault("metric", problem))
    return faults
