"""A first study file for somebody's data: what follows from a look at it, and why, as YAML with reasons."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from lrstudy import user_code
from lrstudy.data.labels import class_counts
from lrstudy.first_study.look import Found, find_sources, look

_LEAST = 8  # pixels; what models take
SIZES = (32, 64, 96, 128, 224)
_IMBALANCED = 1.5
"""From here on plain accuracy rewards guessing the larger class noticeably."""
_MOST_CLASSES_SHOWN = 12
_CPU_EXAMPLES = 5000


def first_study(data: str, out: Path, *, has_gpu: bool) -> str:
    """The text of a study file for `data`: a folder, a file, or a source as study files name it.

    Paths in it start at the folder of `out` where the data lies below that. Labels are read, and a sample of the images
    is opened. Raises InputError if nothing usable is found.
    """
    source, *others = find_sources(data)
    return "\n".join(_lines(look(source), others, out, _name(source), has_gpu)) + "\n"


def _as_written(source: str, out: Path) -> str:
    """A source as the study file names it: relative to its folder where it lies below."""
    kind, colon, path = source.partition(":")
    if user_code.is_reference(source):
        kind, colon, path = "", "", source
    if not path:
        return source
    folder = out.resolve().parent
    below = Path(path).is_relative_to(folder)
    written = f"./{Path(path).relative_to(folder)}" if below else path
    return f"{kind}{colon}{written}"


def _storage(found: Found, out: Path) -> str:
    """Where runs go: beside the study file, but not into a folder of classes, where they would be one more."""
    kind, _, path = found.source.partition(":")
    folder = out.resolve().parent
    if kind == "folder" and folder.is_relative_to(path):
        return _yaml(f"{'../' * (len(folder.relative_to(path).parts) + 1)}{Path(path).name}-runs")
    return "runs"


def _name(source: str) -> str:
    """A name for the study: what the data is called."""
    path = Path(source.partition(":")[2] or source)
    if user_code.is_reference(source):
        path = user_code.Reference.parse(source).path
    stem = path.stem if path.suffix else path.name
    stem = path.parent.name if stem.lower() in ("index", "labels", "train", "data", "metadata") else stem
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", stem)[:100].strip("-._")
    return name if name and name[0].isalnum() and name.lower() != "memo" else "study"


def _lines(found: Found, others: Sequence[str], out: Path, name: str, has_gpu: bool) -> Iterator[str]:
    """The study file, line by line."""
    num_train = len(found.splits.train)
    kind = "multilabel" if found.is_multilabel else "binary" if len(found.classes) == 2 else "multiclass"
    yield "# A first study, written by `lrstudy init` after a look at the data. Every line may be changed."
    yield "# lrstudy validate FILE checks it, lrstudy plan FILE --probe forecasts what it costs, lrstudy run FILE runs it."
    yield "lrstudy: 1"
    yield f"name: {_yaml(name)}"
    yield "workload:"
    yield from (f"  # {line}" for line in _class_lines(found))
    yield f"  data: {_data(found, out)}"
    if others:
        yield f"  # Also there: {', '.join(_comment(_as_written(other, out)) for other in others)}"
    yield from _split_lines(found)
    yield from _subset_lines(num_train, has_gpu)
    yield from _image_lines(found, has_gpu)
    yield from _augment_lines(found)
    if has_gpu and _size(found, has_gpu)[1] >= 32:
        yield "  model: resnet18                # a GPU was found; small_cnn is quicker, torchvision's names are longer"
    else:
        why = (
            "a GPU was found, but the images are tiny" if has_gpu else "no GPU was found; resnet18 and others want one"
        )
        yield f"  model: small_cnn               # {why}"
    weights = "balanced" if not found.is_multilabel and found.imbalance >= 3 else "none"
    weights_why = f"the largest class has {found.imbalance:.1f} times the training examples of the smallest"
    yield f"  task: {{kind: {kind}, class_weights: {weights}}}   # {weights_why}"
    yield from _metric_lines(found)
    yield from _protocol_lines(
        min(num_train, _CPU_EXAMPLES) if not has_gpu else num_train, has_gpu, _storage(found, out)
    )


def _class_lines(found: Found) -> Iterator[str]:
    """Counts of examples by class and part, largest classes first."""
    counts = {part: class_counts(found.labels[index], len(found.classes)) for part, index in found.parts.items()}
    order = np.argsort(-counts["train"], kind="stable")[:_MOST_CLASSES_SHOWN].tolist()
    shown = [_comment(found.classes[k]) for k in order]
    width = max(12, *(len(name) for name in shown))
    yield f"{'examples':{width}}" + "".join(f"{part:>12}" for part in counts)
    for k, name in zip(order, shown, strict=True):
        yield f"{name:{width}}" + "".join(f"{count[k]:>12}" for count in counts.values())
    if len(found.classes) > len(order):
        yield f"... and {len(found.classes) - len(order)} smaller classes"
    yield f"{'all':{width}}" + "".join(f"{len(index):>12}" for index in found.parts.values())
    for part in ("validation", "test"):
        lacking = [_comment(found.classes[k]) for k in np.flatnonzero(counts[part] == 0).tolist()]
        if lacking:
            more = ", ..." if len(lacking) > 5 else ""
            yield f"No example in the {part} part: {', '.join(lacking[:5])}{more}; means over classes leave them out."


def _data(found: Found, out: Path) -> str:
    """The entry of the study file, with the columns that are not called as usual."""
    source = _as_written(found.source, out)
    columns = {"image": found.image_column, "label": found.label_column, "group": found.group_column}
    usual = {"image": "image", "label": "label", "group": None}
    named = {key: name for key, name in columns.items() if name is not None and name != usual[key]}
    if found.root is not None:
        named["root"] = _as_written(f"csv:{found.root}", out).removeprefix("csv:")
    if not named:
        return _yaml(source)
    inside = "".join(f", {key}: {_yaml(name)}" for key, name in named.items())
    note = f"   # {found.groups} groups" if found.group_column else ""
    return f"{{source: {_yaml(source)}{inside}}}{note}"


def _split_lines(found: Found) -> Iterator[str]:
    test = "given" if found.has_test else "0.2"
    validation = "given" if found.has_validation else "0.15"
    grouped = found.group_column is not None and not (found.has_test and found.has_validation)
    given = [part for part, has in (("test", found.has_test), ("validation", found.has_validation)) if has]
    reasons = [
        f"the data gives its {' and '.join(given)} part{'s' if len(given) > 1 else ''}"
        if given
        else "no part is given by the data"
    ]
    if found.leak:
        reasons = ["the parts that the data gives have groups in common"]
    if grouped:
        reasons.append(f"a {_comment(str(found.group_column))} is never in two parts")
    yield f"  split: {{test: {test}, validation: {validation}, by: {'group' if grouped else 'stratified'}}}   # {'; '.join(reasons)}"


def _subset_lines(num_train: int, has_gpu: bool) -> Iterator[str]:
    if not has_gpu and num_train > 2 * _CPU_EXAMPLES:
        yield f"  subset: {_CPU_EXAMPLES}                   # of {num_train}, for a CPU; remove it for the whole set"


def _image_lines(found: Found, has_gpu: bool) -> Iterator[str]:
    size, _ = _size(found, has_gpu)
    widths, heights = zip(*found.sizes, strict=True)
    alike = len(set(found.sizes)) == 1
    seen = f"{widths[0]} x {heights[0]}" if alike else f"{min(widths)}-{max(widths)} x {min(heights)}-{max(heights)}"
    channels = "grey" if found.is_grey else "rgb"
    colour = "" if found.is_grey == found.is_stored_grey else "; stored in colour, but they show none"
    entries = [
        *([f"size: {size}"] if size else []),
        *(["resize: crop"] if size and not alike else []),
        f"channels: {channels}",
    ]
    device = "" if not size else "; larger is slower" + ("" if has_gpu else ", and this is a CPU")
    yield f"  image: {{{', '.join(entries)}}}   # images are {seen}{colour}{device}"


def _size(found: Found, has_gpu: bool) -> tuple[int | None, int]:
    """The size to be asked for (None: as stored), and the size that images then have."""
    side = int(median(min(size) for size in found.sizes))
    cap = 224 if has_gpu else 64
    first = found.sizes[0]
    if len(set(found.sizes)) == 1 and first[0] == first[1] and _LEAST <= first[0] <= cap:
        return (None if found.is_uniform else first[0]), first[0]
    size = max((s for s in SIZES if s <= min(side, cap)), default=SIZES[0])
    return size, size


def _augment_lines(found: Found) -> Iterator[str]:
    if found.classes and all(re.fullmatch(r"\d+", name) for name in found.classes):
        yield "  augment: none                  # flip or crop_flip, if a mirrored image still has its label"
    else:
        yield "  augment: crop_flip             # none, if left and right matter for the labels"


def _metric_lines(found: Found) -> Iterator[str]:
    if found.is_multilabel:
        yield "metric: auroc                    # several labels each, mostly absent: accuracy would reward saying no"
        yield "report_metrics: [average_precision, f1]"
    elif found.imbalance >= _IMBALANCED:
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
    """A text as a YAML scalar that may stand in a flow map."""
    is_plain = re.fullmatch(r"[A-Za-z./][\w./:-]*[\w/]", text) and ": " not in text
    means_more = text.lower() in ("null", "true", "false", "yes", "no", "on", "off")
    return text if is_plain and not means_more else json.dumps(text, ensure_ascii=False)


def _comment(text: str) -> str:
    """A text that may stand in a comment."""
    return re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]", " ", text)[:40]
