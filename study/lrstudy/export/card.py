"""card.json: what an exported model is, what it wants to see, what it says, how good it was, and where it comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lrstudy import __version__, user_code
from lrstudy.errors import Fault, InputError
from lrstudy.export.preprocessing import ImageForm
from lrstudy.export.winner import Winner, configuration, tested_interval

FORMAT = 1
FILE = "card.json"
WEIGHTS = "model.safetensors"
ONNX = "model.onnx"
_LICENCE = (
    "lrstudy does not know the licences of the training data and of the initial weights; they decide whether these "
    "weights may be used and passed on."
)


@dataclass(frozen=True)
class Card:
    """What loading a model needs of its card.

    Attributes:
        model: The description of the network, as lineages have it.
        form: How its images are made.
        task: The kind of task.
        classes: The names of the classes, in the order of the logits.
    """

    model: Mapping[str, Any]
    form: ImageForm
    task: str
    classes: tuple[str, ...]


def card_of(winner: Winner, form: ImageForm, onnx: Mapping[str, Any] | None) -> dict[str, Any]:
    """The content of card.json. `onnx` says how the ONNX file was compared with the study; None if there is none."""
    lock, trial = winner.lock, winner.trial
    return {
        "card_format": FORMAT,
        "files": {"weights": WEIGHTS, **({} if onnx is None else {"onnx": ONNX})},
        "model": dict(lock["model"]),
        "source": _source(winner),
        "task": lock["task"]["kind"],
        "classes": lock["data"]["classes"],
        "input": "uint8 RGB images (N, H, W, 3) of any height and width, upright; ONNX only, else see preprocessing",
        "preprocessing": {
            **asdict(form),
            "interpolation": "bilinear with antialiasing, rounded to whole grey levels, as Pillow does it",
            "order": "channels, resize, divide by 255, subtract mean, divide by deviation; (N, channels, height, width)",
        },
        "output": {
            "logits": "float32 (N, classes)",
            "probabilities": "sigmoid of each label"
            if lock["task"]["kind"] == "multilabel"
            else "softmax of the logits",
        },
        "metrics": _metrics(winner),
        "onnx": onnx,
        "training": {
            "study": lock["name"],
            "arm": winner.arm,
            "policy": trial["policy"],
            "configuration": configuration(winner),
            "trial": trial["trial_id"],
            "seed": trial["seed"],
            "epochs": trial["selected_epoch"] + 1,
            "initial_weights": winner.study.workload.weights,
            "initial_weights_digest": lock["identity"].get("weights", "random"),
            "batchnorm": winner.study.workload.batchnorm,
            "precision": winner.study.workload.numerics.precision,
            "lineage": trial["selected_lineage"],
            "data": {"source": winner.study.workload.source.source}
            | {part: lock["data"][part] for part in ("train", "validation", "test")},
            "data_digest": lock["identity"]["data"],
            "split_digest": lock["identity"]["split"],
        },
        "versions": {**lock["versions"], "lrstudy": __version__},
        "licence": _LICENCE,
    }


def read(folder: Path) -> Card:
    """The card of an exported model. Raises InputError."""
    path = folder / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["card_format"] != FORMAT:
            raise InputError(Fault(str(path), f"has the format {content['card_format']!r}; expected {FORMAT}"))
        preprocessing = content["preprocessing"]
        form = {name: preprocessing[name] for name in ImageForm.__dataclass_fields__}
        height, width = form["size"]
        return Card(
            content["model"],
            ImageForm(**{**form, "size": (height, width)}),
            content["task"],
            tuple(content["classes"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        problem = f"cannot be read as the card of an exported model ({type(error).__name__}: {error})"
        raise InputError(Fault(str(path), problem, advice="`lrstudy export OUT/ARM` writes one.")) from None


def _source(winner: Winner) -> dict[str, str] | None:
    """The file of a user's model, and the digest of its source; None for a model that has a name of its own."""
    model = winner.study.workload.model
    if not user_code.is_reference(model):
        return None
    return {"model": model, "digest": winner.lock["identity"]["source"]["model"]}


def _metrics(winner: Winner) -> dict[str, Any]:
    """The study's metric on validation and test part, all other test metrics, and the arm's mean with its interval."""
    trial, metric = winner.trial, winner.lock["metric"]
    tested = {
        name.removeprefix("test_"): value
        for name, value in trial.items()
        if name.startswith("test_") and not name.startswith("test_metric") and value is not None
    }
    return {
        "metric": metric,
        "validation": trial["selected_val_metric"],
        "test": trial["test_metric"],
        "all_test": {**tested, metric: trial["test_metric"]},
        "arm": {**tested_interval(winner), "seeds": winner.lock["confirm"]["seeds"]},
    }
