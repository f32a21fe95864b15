"""The sections of a study file, one pydantic model each. A field's `description` is what faults say was expected."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, create_model, field_validator, model_validator

from lrstudy import user_code
from lrstudy.config.common import COMMON
from lrstudy.config.means import LimitsConfig, PriceConfig, ResourcesConfig, StorageConfig
from lrstudy.config.section import ConfigSection, Count, Fraction, Natural, Positive, Text
from lrstudy.config.until import Metric, UntilValue
from lrstudy.data import spec as data_spec
from lrstudy.data.spec import DataSpec, ImageSpec, SplitSpec
from lrstudy.errors import Fault, InputError, unknown, user_path
from lrstudy.models.image_size import size_of
from lrstudy.search import METHODS

Part = Literal["given"] | Fraction | Annotated[int, Field(ge=1, description="a count of at least 1")]


class SourceConfig(ConfigSection):
    """`workload.data` as a map: where the data lies, which columns to read, and whether it may be downloaded."""

    source: Text
    image: Text = "image"
    label: Text = "label"
    group: Text | None = None
    root: Text | None = None
    download: bool = False


_DATA = (
    "digits, a torchvision set such as cifar10, folder:PATH, parquet:PATH, csv:PATH, npz:PATH, ./mine.py:load, "
    "or a map with the keys source, image, label, group, root and download"
)


class ByColumnConfig(ConfigSection):
    """The examples whose `column` holds `value`."""

    column: Text
    value: str | int | bool


class SplitConfig(ConfigSection):
    """How examples are divided; each part is a fraction, a count, `given` by the source, or chosen by a column."""

    test: Part | ByColumnConfig | None = None
    validation: Part | ByColumnConfig = 0.15
    by: Literal["stratified", "group", "random"] = "stratified"
    seed: Natural = 0


_Pixels = Annotated[int, Field(ge=4, le=4096, description="a whole number of pixels from 4 to 4096")]


class ImageConfig(ConfigSection):
    """How images become arrays."""

    size: Annotated[
        _Pixels | Annotated[list[_Pixels], Field(min_length=2, max_length=2)] | None,
        Field(description="a whole number of pixels from 4 to 4096, or [height, width] of such"),
    ] = None
    resize: Literal["squash", "crop", "pad"] = "squash"
    channels: Literal["rgb", "grey", "stored"] = "stored"
    normalize: Literal["imagenet", "data", "weights", "none"] | None = None  # None: see `WorkloadConfig.normalize`

    def spec(self, normalize: Literal["imagenet", "data", "weights", "none"]) -> ImageSpec:
        """The same for the data package."""
        size = size_of(*self.size) if isinstance(self.size, list) else self.size
        return ImageSpec(size, self.resize, self.channels, normalize)


class TaskConfig(ConfigSection):
    """What is learnt."""

    kind: Literal["auto", "multiclass", "binary", "multilabel"] = "auto"
    class_weights: Literal["none", "balanced"] | dict[str, Positive] = "none"
    loss: Literal["auto", "cross_entropy", "binary_cross_entropy"] = "auto"
    label: Text | None = None


class NumericsConfig(ConfigSection):
    """How numbers are computed. `auto` is what was measured to be fastest on CPUs, and what NVIDIA advises for GPUs."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    tf32: bool = False
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    compile: bool = False
    fused: Annotated[Literal["auto"] | bool, Field(description="auto, true or false")] = "auto"
    eval_batch: Annotated[Literal["auto"] | Count, Field(description="auto or a whole number of at least 1")] = "auto"


_AUGMENT = "none, flip, crop_flip, a list of torchvision transforms with arguments, or ./mine.py:augment"


class WorkloadConfig(ConfigSection):
    """Data + model + task."""

    data: Annotated[Text | SourceConfig, Field(description=_DATA)] = "digits"
    split: SplitConfig = SplitConfig()
    subset: Annotated[int, Field(ge=2, description="a whole number of at least 2")] | None = None
    image: ImageConfig = ImageConfig()
    augment: Annotated[str | list[Any], Field(description=_AUGMENT)] = "none"
    train_step: Text | None = None
    files: Annotated[list[Text], Field(description="a list of files and folders that code of yours reads")] = Field(
        default_factory=list
    )
    model: Text = "small_cnn"
    stem: Literal["auto", "original", "small"] = "auto"
    weights: Text = "random"
    download: bool = False
    task: TaskConfig = TaskConfig()
    batchnorm: Literal["running", "precise"] = "running"
    numerics: NumericsConfig = NumericsConfig()

    @property
    def normalize(self) -> Literal["imagenet", "data", "weights", "none"]:
        """How images are normalised: by default as the weights were trained, with random ones by the data."""
        return self.image.normalize or ("data" if self.weights == "random" else "weights")

    @property
    def source(self) -> SourceConfig:
        """`data` in the form of a map."""
        return self.data if isinstance(self.data, SourceConfig) else SourceConfig(source=self.data)

    def data_spec(self, base: Path) -> DataSpec:
        """The specification for the data package; relative paths start from `base`."""
        data, task = self.source, self.task
        kind, colon, path = data.source.partition(":")
        kind = kind if colon else kind.lower()
        source = data.source if colon else kind
        if user_code.is_reference(source):
            source = user_code.resolve(source, base, "data")
        elif colon:
            source = f"{kind}:{(base / user_path(path, 'data')).resolve()}"
        has_parts = kind not in ("digits", "eurosat")
        test = self.split.test if self.split.test is not None else ("given" if has_parts else 0.2)
        return DataSpec(
            source=source,
            image_column=data.image,
            label_column=data.label,
            group_column=data.group,
            root=None if data.root is None else str((base / user_path(data.root, "data.root")).resolve()),
            download=data.download,
            multilabel={"auto": None, "multilabel": True, "binary": None}.get(task.kind, False),
            label=task.label,
            image=self.image.spec(self.normalize),
            split=SplitSpec(_fraction(test), _fraction(self.split.validation), self.split.by, self.split.seed),
            subset=self.subset,
        )


def _fraction(
    fraction: Literal["given"] | float | int | ByColumnConfig,
) -> Literal["given"] | float | int | data_spec.ByColumn:
    return (
        data_spec.ByColumn(fraction.column, str(fraction.value)) if isinstance(fraction, ByColumnConfig) else fraction
    )


class BudgetConfig(ConfigSection):
    """How long every trial trains: so many epochs, or fewer if it ends once a validation metric reaches a value."""

    epochs: Count = 30
    until: UntilValue = "none"


CommonConfig: type[ConfigSection] = create_model(
    "CommonConfig",
    __base__=ConfigSection,
    __doc__="Parameters that all policies share; each may be a space, and any arm may override them.",
    **{name: (Any, Field(default_factory=partial(deepcopy, known.default))) for name, known in COMMON.items()},  # type: ignore[call-overload]
)


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class SearchConfig(ConfigSection):
    """How configurations are proposed. A list of methods compares searchers; the first ranks policies."""

    method: Annotated[
        list[Text], BeforeValidator(_as_list), Field(min_length=1, description="one or more searchers")
    ] = Field(default_factory=lambda: ["hyperopt"])
    trials: Count = 16
    cohort: Natural | None = None
    seeds: Annotated[list[int], Field(min_length=1, description="a list of whole numbers")] = Field(
        default_factory=lambda: [0]
    )
    outstanding: Count | None = None
    seed: Natural = 0
    repeats: Count = 1

    @field_validator("method")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        faults = [unknown("search.method", "searcher", name, METHODS) for name in value if name not in METHODS]
        if faults:
            raise InputError(faults)
        return _distinct(value)

    @field_validator("seeds")
    @classmethod
    def _tuning_seeds(cls, value: list[int], info: ValidationInfo) -> list[int]:
        """Seeds are fresh when trials are confirmed; where an arm has one trial, nothing is chosen by it that could spoil them."""
        is_choosing = info.data.get("trials", 2) > 1
        if outside := [seed for seed in value if seed < 0 or (is_choosing and seed >= 1000)]:
            raise ValueError(f"expected seeds from 0 to 999 (confirmation takes 1000 and up); got {outside[0]}")
        return _distinct(value)

    @model_validator(mode="after")
    def _cohort_fits(self) -> SearchConfig:
        if self.cohort is not None and self.cohort > self.trials:
            raise InputError(
                Fault("search.cohort", expected=f"at most search.trials ({self.trials})", got=str(self.cohort))
            )
        return self


class ConfirmConfig(ConfigSection):
    """How many of each arm's best configurations are trained anew, and with how many fresh seeds.

    A list of numbers plans looks: after so many seeds the arms are compared, until all comparisons are decided.
    """

    top: Natural = 1
    seeds: Annotated[Count | list[Count], Field(description="a whole number of at least 1, or a list of them")] = 5

    @field_validator("seeds")
    @classmethod
    def _growing(cls, value: int | list[int]) -> int | list[int]:
        if isinstance(value, list) and (not value or value != sorted(set(value))):
            raise ValueError(f"expected looks after more and more seeds, such as [5, 10]; got {value}")
        return value

    @property
    def looks(self) -> tuple[int, ...]:
        """After how many seeds of every arm the arms are compared; the last is how many there are at most."""
        return tuple(self.seeds) if isinstance(self.seeds, list) else (self.seeds,)


class CompareConfig(ConfigSection):
    """The arm that others are compared with, and the difference that does not matter."""

    control: Text | None = None
    margin: Fraction | None = None


class TargetConfig(ConfigSection):
    """What counts as reached: a value of the metric, or a fraction of the control's mean."""

    value: Annotated[float, Field(gt=0, le=1, description="a number above 0 and at most 1")] | None = None
    of_control: Positive | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> TargetConfig:
        if self.value is not None and self.of_control is not None:
            raise InputError(Fault("target", expected="either value or of_control", got="both"))
        return self


def _arms_as_map(value: object) -> object:
    """The arms as a map from name to parameters, whether they were written as a list or as a map."""
    if isinstance(value, list) and value and all(isinstance(name, str) for name in value):
        value = dict.fromkeys(_distinct(value))
    if isinstance(value, dict) and value:
        return {name: {} if body is None else body for name, body in value.items()}
    raise ValueError(f"expected a list of policy names, or a map from arm names to parameters; got {shown(value)}")


_ARM = "arm names of up to 60 letters, digits and '_', beginning with a letter"
_BODY = "a map of parameters, or nothing for the policy's default space"
ArmName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,59}$", description=_ARM)]
ArmBody = Annotated[dict[str, Any], Field(description=_BODY)]
_NAME = "up to 100 letters, digits, '_', '-' and '.', beginning with a letter or digit"


class StudyFile(ConfigSection):
    """A whole study file, checked as far as it can be without looking at policies and data."""

    lrstudy: Annotated[Literal[1], Field(description="1, the version of study files that this lrstudy reads")]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$", description=_NAME)]
    workload: WorkloadConfig = WorkloadConfig()
    metric: Metric = "accuracy"
    report_metrics: list[Metric] = Field(default_factory=list)
    select: Literal["final", "last_cycle", "best"] = "final"
    budget: BudgetConfig = BudgetConfig()
    common: CommonConfig = CommonConfig()  # type: ignore[valid-type]
    arms: Annotated[dict[ArmName, ArmBody], BeforeValidator(_arms_as_map)]
    search: SearchConfig = SearchConfig()
    early_stopping: Literal["none"] = "none"
    confirm: ConfirmConfig = ConfirmConfig()
    compare: CompareConfig = CompareConfig()
    target: TargetConfig = TargetConfig()
    limits: LimitsConfig = LimitsConfig()
    resources: ResourcesConfig = ResourcesConfig()
    price: PriceConfig = PriceConfig()
    storage: StorageConfig = StorageConfig()

    @field_validator("name")
    @classmethod
    def _not_the_memo(cls, value: str) -> str:
        if value.lower() == "memo":
            raise ValueError(f"expected another name: {value} is the folder of the memo; got {value!r}")
        return value

    @property
    def control(self) -> str:
        """The arm that others are compared with: the one that is named, else `constant`, else the first."""
        return self.compare.control or ("constant" if "constant" in self.arms else next(iter(self.arms)))


def shown(value: object) -> str:
    """A value in the form in which a study file may have it, shortened to 80 characters."""
    if value is None:
        return "nothing"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _distinct(values: list[Any]) -> list[Any]:
    repeated = list(dict.fromkeys(value for value in values if values.count(value) > 1))
    if repeated:
        raise ValueError(f"expected every value once; {', '.join(map(repr, repeated))} repeats")
    return values
