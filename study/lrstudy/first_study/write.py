"""Writes a first study file for a user's data: YAML whose comments give the reason for each choice."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from lrstudy import user_code
from lrstudy.data.labels import class_counts
from lrstudy.first_study.image_sample import ImageSample
from lrstudy.first_study.look import DataSummary, find_sources, look

_LEAST_SIZE = 8
"""Pixels on both sides; models do not take smaller images."""
SIZES = (32, 64, 96, 128, 224)
"""Pixels on both sides that images are resized to."""
_IMBALANCED = 1.5
"""From this ratio of the largest class to the smallest, accuracy noticeably rewards guessing the larger one."""
_MOST_CLASSES_SHOWN = 12
_CPU_EXAMPLES = 5000
"""The subset that is proposed where there is no GPU, if the data has more than twice as many."""


def first_study(data: str, out: Path, *, has_gpu: bool) -> str:
    """The text of a study file for `data`: a folder, a file, or a source as study files name it.

    Paths below the folder of `out`, where the study file will be, are relative to it. Labels are read, and a sample of
    the images is opened. Raises InputError if nothing usable is found.
    """
    source, *others = find_sources(data)
    return "\n".join(_lines(look(source), others, out, _name(source), has_gpu)) + "\n"


def _as_written(source: str, out: Path) -> str:
    """A source as the study file at `out` names it, with a relative path if it is below that file's folder."""
    kind, colon, path = source.partition(":")
    if user_code.is_reference(source):
        kind, colon, path = "", "", source
    if not path:
        return source
    folder = out.resolve().parent
    if Path(path).is_relative_to(folder):
        path = f"./{Path(path).relative_to(folder)}"
    return f"{kind}{colon}{path}"


def _storage(data: DataSummary, out: Path) -> str:
    """The path for runs: beside the study file, but not in a folder of classes, where it would be another class."""
    kind, _, path = data.source.partition(":")
    folder = out.resolve().parent
    if kind == "folder" and folder.is_relative_to(path):
        return _yaml(f"{'../' * (len(folder.relative_to(path).parts) + 1)}{Path(path).name}-runs")
    return "runs"


def _name(source: str) -> str:
    """A name for the study, made from the name of the data."""
    path = Path(source.partition(":")[2] or source)
    if user_code.is_reference(source):
        path = user_code.Reference.parse(source).path
    stem = path.stem if path.suffix else path.name
    stem = path.parent.name if stem.lower() in ("index", "labels", "train", "data", "metadata") else stem
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", stem)[:100].strip("-._")
    return name if name and name[0].isalnum() and name.lower() != "memo" else "study"


def _lines(data: DataSummary, others: Sequence[str], out: Path, name: str, has_gpu: bool) -> Iterator[str]:
    """The study file, line by line."""
    num_train = len(data.division.splits.train)
    yield "# A first study, written by `lrstudy init` after a look at the data. Every line may be changed."
    yield "# lrstudy validate FILE checks it, lrstudy plan FILE --probe forecasts what it costs, lrstudy run FILE runs it."
    yield "lrstudy: 1"
    yield f"name: {_yaml(name)}"
    yield "workload:"
    yield from (f"  # {line}" for line in _class_lines(data))
    yield f"  data: {_data(data, out)}"
    if others:
        yield f"  # Also there: {', '.join(_comment(_as_written(other, out)) for other in others)}"
    yield _split_line(data)
    yield from _subset_lines(num_train, has_gpu)
    yield _image_line(data, has_gpu)
    yield _augment_line(data)
    yield _model_line(data, has_gpu)
    yield _task_line(data)
    yield from _metric_lines(data)
    yield from _protocol_lines(num_train if has_gpu else min(num_train, _CPU_EXAMPLES), has_gpu, _storage(data, out))


def _class_lines(data: DataSummary) -> Iterator[str]:
    """Counts of examples by class and part, largest classes first."""
    counts = {part: class_counts(data.labels[index], len(data.classes)) for part, index in data.parts.items()}
    order = np.argsort(-counts["train"], kind="stable")[:_MOST_CLASSES_SHOWN].tolist()
    shown = [_comment(data.classes[k]) for k in order]
    width = max(12, *(len(name) for name in shown))
    yield f"{'examples':{width}}" + "".join(f"{part:>12}" for part in counts)
    for k, name in zip(order, shown, strict=True):
        yield f"{name:{width}}" + "".join(f"{count[k]:>12}" for count in counts.values())
    if len(data.classes) > len(order):
        yield f"... and {len(data.classes) - len(order)} smaller classes"
    yield f"{'all':{width}}" + "".join(f"{len(index):>12}" for index in data.parts.values())
    for part in ("validation", "test"):
        absent = [_comment(data.classes[k]) for k in np.flatnonzero(counts[part] == 0).tolist()]
        if absent:
            more = ", ..." if len(absent) > 5 else ""
            yield f"No example in the {part} part: {', '.join(absent[:5])}{more}; means over classes leave them out."


def _data(data: DataSummary, out: Path) -> str:
    """The value of `data`: the source, and those columns and folders that differ from the defaults."""
    source = _as_written(data.source, out)
    columns = {"image": data.image_column, "label": data.label_column, "group": data.group_column}
    defaults = {"image": "image", "label": "label", "group": None}
    named = {key: name for key, name in columns.items() if name is not None and name != defaults[key]}
    if data.root is not None:
        named["root"] = _as_written(f"csv:{data.root}", out).removeprefix("csv:")
    if not named:
        return _yaml(source)
    entries = "".join(f", {key}: {_yaml(name)}" for key, name in named.items())
    note = f"   # {data.num_groups} groups" if data.group_column else ""
    return f"{{source: {_yaml(source)}{entries}}}{note}"


def _split_line(data: DataSummary) -> str:
    """The split, and why: parts that the data gives are used, and groups are kept together where a part is drawn."""
    division = data.division
    given = [part for part, has in (("test", division.has_test), ("validation", division.has_validation)) if has]
    by_group = data.group_column is not None and len(given) < 2
    if division.leak:
        reasons = "the parts that the data gives have groups in common"
    elif given:
        reasons = f"the data gives its {' and '.join(given)} part{'s' if len(given) > 1 else ''}"
    else:
        reasons = "no part is given by the data"
    if by_group:
        reasons += f"; a {_comment(str(data.group_column))} is never in two parts"
    test = "given" if division.has_test else "0.2"
    validation = "given" if division.has_validation else "0.15"
    by = "group" if by_group else "stratified"
    return f"  split: {{test: {test}, validation: {validation}, by: {by}}}   # {reasons}"


def _subset_lines(num_train: int, has_gpu: bool) -> Iterator[str]:
    if not has_gpu and num_train > 2 * _CPU_EXAMPLES:
        yield f"  subset: {_CPU_EXAMPLES}                   # of {num_train}, for a CPU; remove it for the whole set"


def _image_line(data: DataSummary, has_gpu: bool) -> str:
    sample = data.sample
    size, _ = _size(sample, has_gpu)
    widths, heights = zip(*sample.sizes, strict=True)
    is_one_size = len(set(sample.sizes)) == 1
    if is_one_size:
        reasons = f"images are {widths[0]} x {heights[0]}"
    else:
        reasons = f"images are {min(widths)}-{max(widths)} x {min(heights)}-{max(heights)}"
    if sample.is_grey != sample.is_stored_grey:
        reasons += "; stored in colour, but they show none"
    entries = [f"channels: {'grey' if sample.is_grey else 'rgb'}"]
    if size:
        entries = [f"size: {size}", *([] if is_one_size else ["resize: crop"]), *entries]
        reasons += "; larger is slower" + ("" if has_gpu else ", and this is a CPU")
    return f"  image: {{{', '.join(entries)}}}   # {reasons}"


def _size(sample: ImageSample, has_gpu: bool) -> tuple[int | None, int]:
    """The `image.size` to write (None: keep the stored size), and the side that images then have, in pixels."""
    most = 224 if has_gpu else 64
    width, height = sample.sizes[0]
    if len(set(sample.sizes)) == 1 and width == height and _LEAST_SIZE <= width <= most:
        return (None if sample.is_uniform else width), width
    side = int(median(min(size) for size in sample.sizes))
    size = max((s for s in SIZES if s <= min(side, most)), default=SIZES[0])
    return size, size


def _augment_line(data: DataSummary) -> str:
    if data.classes and all(re.fullmatch(r"\d+", name) for name in data.classes):
        return "  augment: none                  # flip or crop_flip, if a mirrored image still has its label"
    return "  augment: crop_flip             # none, if left and right matter for the labels"


def _model_line(data: DataSummary, has_gpu: bool) -> str:
    if not has_gpu:
        return "  model: small_cnn               # no GPU was found; resnet18 and others want one"
    if _size(data.sample, has_gpu)[1] < 32:
        return "  model: small_cnn               # a GPU was found, but the images are tiny"
    return "  model: resnet18                # a GPU was found; small_cnn is quicker, torchvision's names are longer"


def _task_line(data: DataSummary) -> str:
    kind = "multilabel" if data.is_multilabel else "binary" if len(data.classes) == 2 else "multiclass"
    weights = "balanced" if not data.is_multilabel and data.imbalance >= 3 else "none"
    reason = f"the largest class has {data.imbalance:.1f} times the training examples of the smallest"
    return f"  task: {{kind: {kind}, class_weights: {weights}}}   # {reason}"


def _metric_lines(data: DataSummary) -> Iterator[str]:
    if data.is_multilabel:
        yield "metric: auroc                    # several labels each, mostly absent: accuracy would reward saying no"
        yield "report_metrics: [average_precision, f1]"
    elif data.imbalance >= _IMBALANCED:
        yield "metric: balanced_accuracy        # classes are uneven: accuracy would reward guessing the largest"
        yield "report_metrics: [accuracy, auroc]"
    else:
        yield "metric: accuracy                 # classes are about even"


def _protocol_lines(num_train: int, has_gpu: bool, storage: str) -> Iterator[str]:
    batch = next((size for size in (32, 16, 8, 4) if num_train >= 20 * size), 2)
    epochs, trials, cohort = (30, 16, 8) if has_gpu else (12, 8, 4)
    yield f"budget: {{epochs: {epochs}}}             # of every trial; a larger one is another study and shares what it can"
    yield "common:                          # any arm may override any of these"
    yield "  lr: {log: [1e-3, 1.0], steps: 10}   # 1-2-5 per decade; a ladder, so that arms share training"
    yield "  momentum: 0.9"
    yield "  weight_decay: 5e-4"
    updates = num_train // batch
    yield f"  batch_size: {batch}                 # {updates} updates an epoch"
    yield "arms: [constant, step, cosine, batch_increase, clr, sgdr]"
    yield f"search: {{method: hyperopt, trials: {trials}, cohort: {cohort}}}   # per arm; the cohort's points are the same in all arms"
    yield "confirm: {top: 1, seeds: 5}      # the best of each arm, trained anew; only these read the test part"
    yield "compare: {control: constant, margin: 0.01}   # smaller differences do not matter"
    yield f"storage: {{path: {storage}}}"


def _yaml(text: str) -> str:
    """A text as a YAML scalar that is valid inside a flow map, quoted if necessary."""
    is_plain = re.fullmatch(r"[A-Za-z./][\w./:-]*[\w/]", text) and ": " not in text
    is_keyword = text.lower() in ("null", "true", "false", "yes", "no", "on", "off")
    return text if is_plain and not is_keyword else json.dumps(text, ensure_ascii=False)


def _comment(text: str) -> str:
    """A text that is safe in a comment: without control characters or line breaks, at most 40 characters."""
    return re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]", " ", text)[:40]
