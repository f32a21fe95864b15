"""The study file: YAML 1.2 in, a checked `StudyFile` out; every fault found is reported at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from lrstudy.data.spec import DataSpec, ImageSpec, SplitSpec
from lrstudy.faults import InputError, choices, unknown
from lrstudy.later import refuse_later
from lrstudy.search import METHODS

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Part = Literal["given"] | Share | Count


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Source(_Section):
    """`workload.data` as a map: where the data lies and which columns to read."""

    source: str
    image: str = "image"
    label: str = "label"


class Split(_Section):
    """How examples are divided; each part is a fraction, a count, or `given` by the source."""

    test: Part | None = None
    validation: Part = 0.15
    by: Literal["stratified", "random"] = "stratified"
    seed: int = 0


class Image(_Section):
    """How images become arrays."""

    size: Annotated[int, Field(ge=4, le=4096)] | None = None
    resize: Literal["squash", "crop", "pad"] = "squash"
    channels: Literal["rgb", "grey", "stored"] = "stored"
    normalize: Literal["imagenet", "data", "none"] = "data"


class Task(_Section):
    """What is learnt."""

    kind: Literal["auto", "multiclass"] = "auto"
    class_weights: Literal["none"] = "none"
    loss: Literal["auto", "cross_entropy"] = "auto"


class WorkloadConfig(_Section):
    """Data + model + task."""

    data: str | Source = "digits"
    split: Split = Split()
    subset: Count | None = None
    image: Image = Image()
    augment: Literal["none", "flip", "crop_flip"] = "none"
    model: str = "small_cnn"
    weights: Literal["random"] = "random"
    task: Task = Task()

    def data_spec(self, base: Path) -> DataSpec:
        """The description that the data package reads; relative paths start at `base`."""
        data = self.data if isinstance(self.data, Source) else Source(source=self.data)
        kind, colon, path = data.source.partition(":")
        source = f"{kind}:{(base / Path(path).expanduser()).resolve()}" if colon else kind
        test = self.split.test if self.split.test is not None else (0.2 if kind == "digits" else "given")
        return DataSpec(
            source=source,
            image_column=data.image,
            label_column=data.label,
            image=ImageSpec(**self.image.model_dump()),
            split=SplitSpec(test, self.split.validation, self.split.by, self.split.seed),
            subset=self.subset,
        )


class Budget(_Section):
    """How long every trial trains."""

    epochs: Count = 30


class Common(_Section):
    """Parameters that all policies share; each may be a space. Any arm may override them."""

    optimizer: Literal["sgd"] = "sgd"
    lr: Any = Field(default_factory=lambda: {"log": [1e-3, 1.0], "steps": 10})
    momentum: Any = 0.9
    nesterov: bool = False
    weight_decay: Any = 5e-4
    batch_size: Any = 32
    clip_norm: Positive | None = None


class Search(_Section):
    """How configurations are proposed. A list of methods compares searchers; the first ranks policies."""

    method: list[str] = Field(default_factory=lambda: ["hyperopt"])
    trials: Count = 16
    cohort: Annotated[int, Field(ge=0)] | None = None
    seeds: list[int] = Field(default_factory=lambda: [0], min_length=1)
    outstanding: Count | None = None
    seed: int = 0

    @field_validator("method", mode="before")
    @classmethod
    def _as_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("method")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        for name in value:
            if name not in METHODS:
                raise ValueError(f"there is no searcher {name!r}. {choices(METHODS, name)}")
        return _distinct(value)

    @field_validator("seeds")
    @classmethod
    def _tuning_seeds(cls, value: list[int]) -> list[int]:
        if any(not 0 <= seed < 1000 for seed in value):
            raise ValueError("seeds for tuning must lie in 0 ... 999; confirmation takes 1000 and up")
        return _distinct(value)

    @model_validator(mode="after")
    def _cohort_fits(self) -> Search:
        if self.cohort is not None and self.cohort > self.trials:
            raise ValueError(f"cohort ({self.cohort}) cannot exceed trials ({self.trials})")
        return self


class Confirm(_Section):
    """How many of each arm's best configurations are trained anew, and with how many fresh seeds."""

    top: Annotated[int, Field(ge=0)] = 1
    seeds: Count = 5


class Compare(_Section):
    """The arm that others are compared with, and the difference that does not matter."""

    control: str | None = None
    margin: Positive | None = None


class Target(_Section):
    """What counts as reached: a value of the metric, or a share of the control's mean."""

    value: float | None = None
    of_control: Positive | None = None


class Limits(_Section):
    """When to stop handing out trials; running again with higher limits goes on."""

    gpu_hours: Positive | None = None
    wall: str | Positive | None = None

    @field_validator("wall")
    @classmethod
    def _readable(cls, value: object) -> object:
        if isinstance(value, str):
            seconds(value)
        return value

    @property
    def wall_s(self) -> float | None:
        """The wall limit in seconds; a plain number is in hours."""
        if self.wall is None:
            return None
        return seconds(self.wall) if isinstance(self.wall, str) else self.wall * 3600


class Resources(_Section):
    """What one trial occupies. `gpu` between 0 and 1; none given: 1 where there is a GPU, else 0."""

    gpu: Annotated[float, Field(ge=0, le=1)] | None = None
    cpu: Count = 1


class Price(_Section):
    """Money per hour of a GPU (one price, or one per model name) or of a CPU core."""

    gpu_hour: Positive | dict[str, Positive] | None = None
    cpu_core_hour: Positive | None = None
    currency: str = "USD"


class Storage(_Section):
    """Where the memo and the study's folder lie."""

    path: str = "runs"
    keep_gb: Positive | None = None


class StudyFile(_Section):
    """A whole study file, checked as far as it can be without looking at the data."""

    lrstudy: Literal[1]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
    workload: WorkloadConfig = WorkloadConfig()
    metric: Literal["accuracy", "balanced_accuracy"] = "accuracy"
    report_metrics: list[Literal["accuracy", "balanced_accuracy"]] = Field(default_factory=list)
    select: Literal["final", "best"] = "final"
    budget: Budget = Budget()
    common: Common = Common()
    arms: dict[str, dict[str, Any]] = Field(min_length=1)
    search: Search = Search()
    early_stopping: Literal["none"] = "none"
    confirm: Confirm = Confirm()
    compare: Compare = Compare()
    target: Target = Target()
    limits: Limits = Limits()
    resources: Resources = Resources()
    price: Price = Price()
    storage: Storage = Storage()

    @field_validator("arms", mode="before")
    @classmethod
    def _arms_as_map(cls, value: object) -> object:
        if isinstance(value, list) and all(isinstance(name, str) for name in value):
            return {name: {} for name in _distinct(value)}
        if isinstance(value, dict):
            return {name: {} if body is None else body for name, body in value.items()}
        return value

    @field_validator("arms")
    @classmethod
    def _arm_names(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,59}", name):
                raise ValueError(f"arm names are letters, digits and '_', beginning with a letter; got {name!r}")
        return value

    @model_validator(mode="after")
    def _control_exists(self) -> StudyFile:
        control = self.compare.control
        if control is not None and control not in self.arms:
            raise ValueError(unknown("compare.control", "arm", control, self.arms))
        return self

    @property
    def control(self) -> str:
        """The arm that others are compared with: as given, else `constant`, else the first."""
        return self.compare.control or ("constant" if "constant" in self.arms else next(iter(self.arms)))


def load(text: str, overrides: Sequence[str] = ()) -> StudyFile:
    """Read and check a study file's text. Raises InputError with every fault."""
    raw = apply_overrides(parse_yaml(text), overrides)
    faults = refuse_later(raw)
    try:
        study = StudyFile.model_validate(raw)
    except ValidationError as error:
        told = [fault.partition(":")[0] for fault in faults]
        found = [(_path(e["loc"]), _explain(e)) for e in error.errors()]
        faults += [text for path, text in found if not any(path.startswith(where) for where in told)]
        raise InputError(list(dict.fromkeys(faults))) from None
    if faults:
        raise InputError(faults)
    return study


def parse_yaml(text: str) -> dict[str, Any]:
    """YAML 1.2 with duplicate keys refused; the document must be a map."""
    try:
        raw = YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise InputError(f"study file, line {line}: not valid YAML: {error.problem}.") from None
    except YAMLError as error:
        raise InputError(f"study file: not valid YAML: {error}.") from None
    if not isinstance(raw, dict):
        raise InputError(
            f"study file: expected a map with keys such as name, workload, arms; got {type(raw).__name__}."
        )
    return raw


def apply_overrides(raw: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The raw study with `a.b=VALUE` applied; values are YAML, paths in them start at the current folder."""
    raw = deepcopy(raw)
    for override in overrides:
        path, equals, text = override.partition("=")
        keys = path.split(".")
        if not equals or not all(keys):
            raise InputError(f"command line: expected key.key=VALUE; got {override!r}.")
        node: Any = raw
        for depth, key in enumerate(keys[:-1]):
            if key == "arms" and isinstance(node.get(key), list):
                node[key] = {name: {} for name in node[key]}
            node = node.setdefault(key, {}) if node.get(key) is not None else node.__setitem__(key, {}) or node[key]
            if not isinstance(node, dict):
                raise InputError(f"command line: {'.'.join(keys[: depth + 1])} is a value, so {path} does not exist.")
        node[keys[-1]] = _from_here(path, YAML(typ="safe", pure=True).load(text))
    return raw


def seconds(text: str) -> float:
    """Seconds of a time such as ``90s``, ``30m`` or ``12h``. Raises ValueError."""
    match = re.fullmatch(r"\s*([0-9.]+)\s*([smhd])\s*", text)
    if not match:
        raise ValueError(f"expected a time such as 90s, 30m, 12h or 2d; got {text!r}")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def _from_here(path: str, value: Any) -> Any:
    if path == "storage.path" and isinstance(value, str) and "://" not in value:
        return str(Path(value).expanduser().resolve())
    if path in ("workload.data", "workload.data.source") and isinstance(value, str) and ":" in value:
        kind, _, where = value.partition(":")
        return f"{kind}:{Path(where).expanduser().resolve()}"
    return value


def _path(loc: Sequence[int | str]) -> str:
    parts = [
        str(part)
        for part in loc
        if not re.match(r"(function-|constrained-|literal\[|dict\[|list\[|str$|int$|float$|Source$)", str(part))
    ]
    return ".".join(parts)


def _explain(error: Mapping[str, Any]) -> str:
    """One sentence for a pydantic error: which field, what was expected, what arrived, valid choices."""
    where, kind, context = _path(error["loc"]) or "study file", error["type"], error.get("ctx", {})
    arrived = error.get("input")
    if kind == "extra_forbidden":
        parent = ".".join(where.split(".")[:-1])
        return f"{where}: unknown key. {choices(_keys_of(parent), where.split('.')[-1])}"
    if kind == "missing":
        return f"{where}: this key is required."
    if kind == "literal_error":
        expected = [part.strip(" '") for part in re.split(r",| or ", context["expected"])]
        return f"{where}: got {arrived!r}. {choices(expected, arrived)}"
    if kind == "value_error":
        message = str(context["error"])
        return message if message.startswith(where.split(".")[0] + ".") else f"{where}: {message}."
    if kind == "string_pattern_mismatch":
        return (
            f"{where}: expected letters, digits, '_', '-' and '.', beginning with a letter or digit; got {arrived!r}."
        )
    return f"{where}: {error['msg'][0].lower()}{error['msg'][1:]}; got {arrived!r}."


def _keys_of(path: str) -> list[str]:
    model: Any = StudyFile
    for key in filter(None, path.split(".")):
        annotation = model.model_fields[key].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        model = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
        if model is None:
            return []
    return list(model.model_fields)


def _distinct(values: list[Any]) -> list[Any]:
    repeated = {value for value in values if values.count(value) > 1}
    if repeated:
        raise ValueError(f"values repeat: {', '.join(map(repr, sorted(repeated)))}")
    return values
