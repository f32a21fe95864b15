"""The study file: reads YAML 1.2 into a checked `StudyFile`, and reports all faults at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any

from pydantic import ValidationError

from lrstudy.config import claims, workloads
from lrstudy.config.explain import KEY, Path, explain
from lrstudy.config.not_yet import refuse_later
from lrstudy.config.sections import StudyFile
from lrstudy.config.text import apply_overrides, parse_yaml
from lrstudy.errors import Fault, InputError, unknown

__all__ = ["StudyFile", "examine", "examine_each", "load", "of_workload"]

_STAND_INS = {"lrstudy": 1, "name": "unnamed"}
_SOUND_CLAIM = {"text": "-", "source": "-", "not_testable": "-"}


def load(text: str, overrides: Sequence[str] = ()) -> StudyFile:
    """Read and check the text of a study file. Raises InputError with every fault."""
    study, faults = examine(text, overrides)
    if faults or study is None:
        raise InputError(faults)
    return study


def examine(text: str, overrides: Sequence[str] = ()) -> tuple[StudyFile | None, list[Fault]]:
    """The study file and all its faults.

    Fields at fault are left out of the study file, so that further checks can find more faults. It is None if too little
    is left. Raises InputError if the text cannot be read at all, or has a map of workloads.
    """
    (name, (study, faults)), *others = examine_each(text, overrides).items()
    if name or others:
        raise InputError(workloads.ONE_ONLY)
    return study, faults


def examine_each(
    text: str, overrides: Sequence[str] = (), further: Callable[[StudyFile], list[Fault]] = lambda study: []
) -> dict[str, tuple[StudyFile | None, list[Fault]]]:
    """What `examine` gives, of the study of each workload in the file's map; of a file without a map under the name "".

    A study of a map is called after the file and its workload, as in ``derm/faces``. `further` finds more faults.
    """
    raw = apply_overrides(parse_yaml(text), overrides)
    found: dict[str, tuple[StudyFile | None, list[Fault]]] = {}
    names = workloads.names(raw)
    for name in names:
        study, faults = _examined(workloads.merged(raw, name), names)
        if study is not None:
            study = study.model_copy(update={"name": f"{study.name}/{name}"})
            faults = [*faults, *further(study)]
        found[name] = (study, workloads.named(faults, name, raw))
    if not found:
        study, faults = _examined(raw)
        found[""] = (study, faults if study is None else [*faults, *further(study)])
    return found


def of_workload(faults: Sequence[Fault], name: str, text: str, overrides: Sequence[str] = ()) -> list[Fault]:
    """Faults of the study of one workload, as `examine_each` places them and with its name."""
    raw = apply_overrides(parse_yaml(text), overrides)
    return [workloads.placed(fault, name) for fault in workloads.named(faults, name, raw)]


def _examined(raw: dict[str, Any], workload_names: Sequence[str] = ()) -> tuple[StudyFile | None, list[Fault]]:
    faults, raw = refuse_later(raw)
    reported: set[Path] = set()  # the sections whose faults were reported before
    while True:
        try:
            study = StudyFile.model_validate(raw)
        except ValidationError as error:
            by_field = explain(error, raw)
        else:
            control = study.compare.control
            if control is not None and control not in study.arms:
                faults.append(unknown("compare.control", "arm", control, study.arms))
            faults += claims.faults(study, workload_names)
            return study, faults
        faults += [fault for path, of_field in by_field.items() if path[:1] not in reported for fault in of_field]
        reported |= {path[:1] for path in by_field}
        if not all(_leave_out(raw, path) for path in dict.fromkeys(map(_to_name, by_field))):
            return None, faults


def _leave_out(raw: dict[str, Any], path: Path) -> bool:
    """Remove a field that is at fault, or put a stand-in there. False if there is no sensible stand-in."""
    *above, last = path
    if last == KEY:
        above, last = above[:-1], above[-1]
    elif len(above) == 1 and above[0] == "arms":
        raw["arms"][last] = {"policy": "constant"}
        return True
    elif above == ["claims"]:
        raw["claims"][last] = dict(_SOUND_CLAIM)
        return True
    elif not above and last in _STAND_INS:
        raw[str(last)] = _STAND_INS[str(last)]
        return True
    elif not above and last == "arms":
        return False
    node: Any = raw
    for part in above:
        node = node.get(part) if isinstance(node, dict) else None
    if above and isinstance(node, dict) and last not in node:  # a missing field is a fault of its section
        return _leave_out(raw, tuple(above))
    if isinstance(node, dict):
        node.pop(last, None)
    return True


def _to_name(path: Path) -> Path:
    """The path up to the first position in a list: a list with a fault is left out as a whole, but claims one by one."""
    if path[0] == "claims":
        return path[:2]
    return tuple(takewhile(lambda part: isinstance(part, str), path))
