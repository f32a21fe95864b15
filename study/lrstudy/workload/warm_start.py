"""Weights from a study that has finished, ``run:STUDY/ARM[/SEED]``: which state that is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrstudy.data.normalise import Constants
from lrstudy.errors import Fault, InputError, unknown, user_path
from lrstudy.storage.place import Storage, checked_url, is_url
from lrstudy.study_folder.mirror import Mirror

if TYPE_CHECKING:
    from lrstudy.models.weight_files import Tensors

PREFIX = "run:"
_FORM = re.compile(r"run:(?P<study>.+?)/(?P<arm>[A-Za-z][A-Za-z0-9_]{0,59}(@\d+)?)(/(?P<seed>\d+))?")
_MODEL = "model."
_COLUMNS = ("arm", "phase", "status", "seed", "rank", "selected_epoch", "selected_lineage", "selected_val_metric",
            "standalone_device_s")  # fmt: skip


@dataclass(frozen=True)
class WarmStart:
    """The state of a confirmed trial of a finished study, after the epoch that the study selects.

    Attributes:
        name: What it is called: study, arm and seed.
        storage, study, arm, seed: Where it was trained.
        epoch, lineage: After which epoch, from 0, and the name of the state.
        device_s: What its training cost in device-seconds, however often it is used.
        lock: The study's lock.
        folder: The study's folder, or a copy of it on this node.
    """

    name: str
    storage: Storage
    study: str
    arm: str
    seed: int
    epoch: int
    lineage: str
    device_s: float
    lock: Mapping[str, Any]
    folder: Path

    @property
    def constants(self) -> Constants:
        """What images were normalised with: mean and standard deviation of each channel."""
        mean, deviation = self.lock["identity"]["preprocessing"]["constants"]
        return tuple(mean), tuple(deviation)

    @property
    def origin(self) -> dict[str, object]:
        """Where the weights come from, as a study's lock says it."""
        return {
            "study": self.study, "arm": self.arm, "seed": self.seed, "epoch": self.epoch, "lineage": self.lineage,
            "device_s": self.device_s, "data": self.lock["data"]["source"], "classes": self.lock["data"]["classes"],
        }  # fmt: skip

    def read(self) -> Tensors:
        """The weights of the state. Raises InputError if it is no longer stored."""
        from lrstudy.memo.memo import Memo
        from lrstudy.models.weight_files import from_bytes

        memo = Memo(self.storage.memo)
        record = memo.find(self.lineage)
        state = None if record is None else memo.state_of(record)
        if state is None:
            advice = "Run that study again with storage.keep_gb: all; it keeps the states of confirmed trials."
            raise InputError(Fault("weights", f"the state of {self.name} is no longer stored", advice=advice))
        try:
            tensors = from_bytes(state)
        except ValueError as error:
            raise InputError(Fault("weights", f"the state of {self.name} is damaged ({error})")) from None
        return {n.removeprefix(_MODEL): tensor for n, tensor in tensors.items() if n.startswith(_MODEL)}

    def require_model(self, name: str) -> None:
        """Raise InputError if the state is one of another model."""
        its = str(self.lock["model"]["name"])
        if its != name:
            raise InputError(Fault("weights", expected=f"the state of a {name}", got=f"{self.name}, which is a {its}"))


def check_form(text: str) -> None:
    """Raise InputError unless a text has the form ``run:STUDY/ARM[/SEED]``."""
    if not _FORM.fullmatch(text):
        expected = (
            "run:STUDY/ARM or run:STUDY/ARM/SEED, STUDY being the name or the folder of a study that has finished"
        )
        raise InputError(Fault("weights", expected=expected, got=repr(text)))


def find(text: str, base: Path, storage: Storage) -> WarmStart:
    """The state that ``run:STUDY/ARM[/SEED]`` names; without a seed, of the trial with the best validation metric.

    Args:
        text: The text of the study file.
        base: The folder that a relative path of a study starts from.
        storage: The storage that a study is looked for in by its name.

    Raises:
        InputError: There is no such study, arm or confirm trial, or the study has not finished.
        StorageError: A bucket fails.
    """
    check_form(text)
    match = _FORM.fullmatch(text)
    assert match, "checked above"
    storage, name = _place(match["study"], base, storage)
    mirror = Mirror(storage, name)
    mirror.bring()
    lock, arm = _lock(mirror.folder, storage, name), match["arm"]
    if arm not in lock["arms"]:
        raise InputError(unknown("weights", f"arm in the study {name}:", arm, lock["arms"]))
    trials = [
        t
        for t in rows(mirror.folder / "trials.parquet", _COLUMNS)
        if (t["arm"], t["phase"], t["status"]) == (arm, "confirm", "completed")
    ]
    if not trials:
        advice = "Its study confirms none (confirm.top: 0), or all have failed."
        raise InputError(Fault("weights", f"{name}/{arm} has no confirm trial that completed", advice=advice))
    seeds = sorted({trial["seed"] for trial in trials})
    chosen = [trial for trial in trials if match["seed"] is None or trial["seed"] == int(match["seed"])]
    if not chosen:
        raise InputError(
            Fault(
                "weights",
                expected=f"a seed that {name}/{arm} was confirmed with",
                got=str(match["seed"]),
                valid=tuple(map(str, seeds)),
            )
        )
    best = min(chosen, key=_badness)
    return WarmStart(
        f"{name}/{arm}, seed {best['seed']}", storage, name, arm, best["seed"], best["selected_epoch"],
        best["selected_lineage"], best["standalone_device_s"], lock, mirror.folder,
    )  # fmt: skip


def _badness(trial: Mapping[str, Any]) -> tuple[float, int, int]:
    value = trial["selected_val_metric"]
    return (float("inf") if value is None else -value, trial["rank"] or 1, trial["seed"])


def _place(study: str, base: Path, storage: Storage) -> tuple[Storage, str]:
    """The storage of a study and its name there: a name alone is one of the storage at hand."""
    if is_url(study):
        location, _, name = checked_url(study, "weights").rpartition("/")
        return Storage(location), name
    if "/" in study or study.startswith(("~", ".")):
        folder = (base / user_path(study, "weights")).resolve()
        return Storage(str(folder.parent)), folder.name
    return storage, study


def _lock(folder: Path, storage: Storage, name: str) -> dict[str, Any]:
    """The lock of a finished study. Raises InputError if there is none."""
    try:
        lock: dict[str, Any] = json.loads((folder / "study.lock.json").read_text(encoding="utf-8"))
        is_complete = lock["complete"]
        _ = lock["arms"], lock["model"]["name"], lock["data"]["source"], lock["identity"]["split"]
    except FileNotFoundError:
        known = [] if storage.is_bucket else sorted(p.parent.name for p in storage.studies.glob("*/study.lock.json"))
        raise InputError(unknown("weights", f"study in {storage.location}:", name, known)) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(Fault("weights", f"the lock of {name} cannot be read ({error!r})")) from None
    if is_complete is not True:
        advice = "Run it to its end first: until then its winner may be another one."
        raise InputError(Fault("weights", f"the study {name} has not finished", advice=advice))
    return lock


def rows(path: Path, names: Iterable[str]) -> list[dict[str, Any]]:
    """The rows of a table, these columns alone. Raises InputError if it has none of them or cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found: list[dict[str, Any]] = pq.read_table(path, columns=list(names)).to_pylist()
        return found
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:150]
        raise InputError(Fault("weights", f"{path} cannot be read as a table of a study ({reason})")) from None
