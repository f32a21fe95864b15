"""What a report needs from study.lock.json; a missing key gets a default."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from lrstudy_reports.statistics import ALPHA

TARGET_OF_CONTROL = 0.98


@dataclass(frozen=True)
class HourlyPrice:
    """Money per device-hour."""

    device_hour: float
    currency: str


@dataclass(frozen=True, kw_only=True)
class Lock:
    """The frozen protocol of a study.

    `arms` maps each arm to its policy, `parameters` to the names of its searched parameters, `definitions` to all that
    it was made of, and `caveats` to what a report must say about it. `retired` arms are those of earlier runs that the
    study file no longer has. `trials_per_arm` is the number of configurations per search, including the cohort's.
    `seeds` are the tuning seeds, and `repeats` the searches of each arm and searcher. `confirm_seeds` is how many fresh
    seeds every arm is confirmed with, and `looks` after how many of them the study planned to compare the arms. `claims`
    are what the study is held against, as they stand there (claims.py reads them). `target` is a value of the metric; if it is None, the target is `target_of_control` x the control's mean validation value after
    its selected epochs.
    """

    name: str
    metric: str = "metric"
    report_metrics: tuple[str, ...] = ()
    mode: Literal["max", "min"] = "max"
    select: str = "final"
    budget_epochs: float | None = None
    control: str | None = None
    margin: float | None = None
    searchers: tuple[str, ...] = ()
    arms: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    caveats: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    definitions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    retired: frozenset[str] = frozenset()
    trials_per_arm: int | None = None
    cohort: int | None = None
    seeds: tuple[int, ...] = (0,)
    repeats: int = 1
    confirm_top: int = 1
    confirm_seeds: int | None = None
    looks: tuple[int, ...] = ()
    num_planned: int | None = None
    device_kind: str = ""
    unit: str = "device-hours"
    price: HourlyPrice | None = None
    claims: tuple[Mapping[str, Any], ...] = ()
    target: float | None = None
    target_of_control: float = TARGET_OF_CONTROL
    data: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, Any] = field(default_factory=dict)
    numerics: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    deviations: tuple[str, ...] = ()
    complete: bool = False

    @property
    def sign(self) -> float:
        """1 if more of the metric is better, else -1."""
        return 1.0 if self.mode == "max" else -1.0

    @property
    def is_bounded(self) -> bool:
        """Whether the metric lies in [0, 1], as all do of which more is better."""
        return self.mode == "max"

    @property
    def alpha(self) -> float:
        """What an adjusted p-value must be below: each planned look has an equal share of 0.05 (Bonferroni)."""
        return ALPHA / max(len(self.looks), 1)

    @property
    def level(self) -> float:
        """The level of intervals: 0.95, or what fits the share of a look."""
        return 1 - self.alpha

    @property
    def is_exploratory(self) -> bool:
        """Whether the plan was changed after the test part had been read: p-values then promise too much."""
        return bool(self.deviations)

    @property
    def planned_trials(self) -> int | None:
        """The number of trials that the study asks for, retired arms aside; None if the lock does not say."""
        if self.num_planned is not None or self.trials_per_arm is None or not self.arms:
            return self.num_planned
        tuning = self.trials_per_arm * max(len(self.searchers), 1) * max(len(self.seeds), 1)
        return (
            len(self.arms.keys() - self.retired)
            * self.repeats
            * (tuning + self.confirm_top * (self.confirm_seeds or 0))
        )


def read_lock(path: Path, name: str) -> Lock:
    """Read the lock at `path`; without such a file, a lock with defaults for a study called `name`.

    Raises ValueError if the file is not a JSON object.
    """
    if not path.exists():
        return Lock(name=name)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ValueError(f"{path.name} must hold a JSON object; got {type(raw).__name__}")
    return parse_lock(raw, name)


def parse_lock(raw: Mapping[str, Any], name: str) -> Lock:
    """The lock that the JSON object `raw` describes, called `name` if it has no name of its own.

    Raises ValueError for an unknown mode.
    """
    arms = _map(raw.get("arms"))
    confirm = _map(raw.get("confirm"))
    price = _map(raw.get("price"))
    value, of_control = _target(raw.get("target"))
    mode = raw.get("mode", "max")
    if mode not in ("max", "min"):
        raise ValueError(f"mode in study.lock.json must be max or min; got {mode!r}")
    return Lock(
        name=str(raw.get("name") or name),
        metric=str(raw.get("metric") or "metric"),
        report_metrics=tuple(map(str, raw.get("report_metrics") or ())),
        mode=cast(Literal["max", "min"], mode),
        select=str(raw.get("select") or "final"),
        budget_epochs=raw.get("budget_epochs"),
        control=raw.get("control"),
        margin=raw.get("margin"),
        searchers=tuple(_searcher(item) for item in raw.get("searchers") or ()),
        arms={arm: str(_map(body).get("policy") or arm) for arm, body in arms.items()},
        parameters={arm: tuple(map(str, _map(body).get("parameters") or ())) for arm, body in arms.items()},
        caveats={arm: tuple(map(str, _map(body).get("caveats") or ())) for arm, body in arms.items()},
        definitions={arm: _map(_map(body).get("definition")) for arm, body in arms.items()},
        retired=frozenset(arm for arm, body in arms.items() if _map(body).get("retired")),
        trials_per_arm=raw.get("trials_per_arm"),
        cohort=raw.get("cohort"),
        seeds=_seeds(raw.get("seeds")),
        repeats=int(raw.get("search_repeats") or 1),
        confirm_top=int(confirm.get("top") or 1),
        confirm_seeds=confirm.get("seeds"),
        looks=tuple(int(seeds) for seeds in confirm.get("looks") or ()),
        num_planned=raw.get("planned_trials"),
        device_kind=str(raw.get("device_kind") or ""),
        unit=str(raw.get("unit") or "device-hours"),
        price=HourlyPrice(float(price["device_hour"]), str(price.get("currency") or ""))
        if price.get("device_hour") is not None
        else None,
        claims=tuple(map(_map, raw.get("claims") or ())),
        target=value,
        target_of_control=of_control,
        data=_map(raw.get("data")),
        model=_map(raw.get("model")),
        weights=_map(raw.get("weights")),
        numerics=_map(raw.get("numerics")),
        versions=_map(raw.get("versions")),
        deviations=tuple(map(str, raw.get("deviations") or ())),
        complete=bool(raw.get("complete", False)),
    )


def _map(value: object) -> Mapping[str, Any]:
    return cast(Mapping[str, Any], value) if isinstance(value, dict) else {}


def _searcher(item: object) -> str:
    return str(_map(item).get("method", "?")) if isinstance(item, dict) else str(item)


def _seeds(value: object) -> tuple[int, ...]:
    if isinstance(value, list):
        return tuple(int(seed) for seed in value)
    return tuple(range(value)) if isinstance(value, int) and value > 0 else (0,)


def _target(value: object) -> tuple[float | None, float]:
    body = _map(value)
    if body.get("value") is not None:
        return float(body["value"]), TARGET_OF_CONTROL
    if body.get("of_control") is not None:
        return None, float(body["of_control"])
    return (float(value), TARGET_OF_CONTROL) if isinstance(value, int | float) else (None, TARGET_OF_CONTROL)
