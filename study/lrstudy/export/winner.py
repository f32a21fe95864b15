"""The confirmed trial of an arm that is worth taking out of its study, found by the study's own tables."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lrstudy.config import StudyFile, load
from lrstudy.errors import Fault, InputError, unknown
from lrstudy.memo.memo import Memo
from lrstudy.storage.place import Storage, checked_url, is_url
from lrstudy.study import Study, Tables

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Winner:
    """A confirmed trial, and the study that it belongs to.

    Attributes:
        tables: The tables of the study.
        lock: The contents of its study.lock.json.
        study: Its study file, with the overrides that it ran with.
        base: The folder that relative paths of the study file start from.
        storage: Where the study and its memo lie.
        arm: The name of the arm.
        trial: The trial's row in trials.parquet.
    """

    tables: Tables
    lock: Mapping[str, Any]
    study: StudyFile
    base: Path
    storage: Storage
    arm: str
    trial: Row

    def state(self) -> bytes:
        """The state of the selected epoch, verified. Raises InputError if it is not stored any more."""
        memo = Memo(self.storage.memo)
        record = memo.find(self.trial["selected_lineage"])
        state = None if record is None else memo.state_of(record)
        if state is None:
            raise InputError(
                Fault(
                    self.trial["trial_id"],
                    f"the state of its selected epoch is not in {self.storage.memo} any more",
                    advice="States of confirmed trials are kept until somebody deletes them. --seed chooses another "
                    "trial; `lrstudy run STUDY.yaml --as NAME` trains what is missing again.",
                )
            )
        return state

    def predictions(self) -> list[Row]:
        """The rows of the trial in predictions.parquet: what it said of every test image. Raises InputError."""
        return self._rows("predictions", ("trial_id", "=", self.trial["trial_id"]))

    def recipe(self) -> dict[str, Any]:
        """What the selected epoch was trained with beside rates and batch size, by the names of `Recipe`. Raises InputError."""
        of_trial, of_epoch = ("trial_id", "=", self.trial["trial_id"]), ("epoch", "=", self.trial["selected_epoch"])
        (epoch,) = self._rows("epochs", of_trial, of_epoch)
        (settings,) = self._rows("settings", ("settings", "=", epoch["settings"]))
        recipe: dict[str, Any] = json.loads(settings["recipe"])
        return recipe

    def _rows(self, name: str, *filters: tuple[str, str, object]) -> list[Row]:
        """The rows of a table of the study that pass all filters. Raises InputError if it cannot be read."""
        path = self.tables.folder / f"{name}.parquet"
        try:
            return list(pq.read_table(path, filters=list(filters)).to_pylist())
        except (OSError, pa.ArrowException) as error:
            raise InputError(Fault(str(path), f"cannot be read as a table ({error})")) from None


def find(place: str, seed: int | None = None) -> Winner:
    """The confirmed winner of an arm: of its confirmed trials the one that is best on the validation part.

    Args:
        place: The folder of a study, or its URL in a bucket, and the arm: ``runs/derm/sgdr``.
        seed: Takes the best trial with this seed instead.

    Raises:
        InputError: There is no such study or arm, or the arm has no confirmed trial (with that seed).
        StorageError: The bucket fails.
    """
    folder, _, arm = place.rstrip("/").rpartition("/")
    if not is_url(place) and (Path(place) / "study.lock.json").is_file():
        known = Study.load(place).lock()["arms"]
        raise InputError(
            Fault(
                place,
                expected=f"one of its arms too, as in {place.rstrip('/')}/{next(iter(known))}",
                valid=tuple(known),
            )
        )
    if not folder:
        raise InputError(Fault(place, expected="the folder of a study and one of its arms, such as runs/derm/sgdr"))
    tables = Study.load(folder)
    lock = tables.lock()
    if arm not in lock["arms"]:
        raise InputError(unknown(place, "arm", arm, lock["arms"]))
    base = Path(lock.get("base") or Path.cwd())
    return Winner(
        tables, lock, _study_file(tables, lock), base, _storage(folder), arm, _chosen(place, tables, arm, seed)
    )


def tested_interval(winner: Winner) -> dict[str, float | None]:
    """Mean and interval of the test metric over the arm's confirmed trials, as the study's report gives them.

    Empty if no report has been made.
    """
    path = winner.tables.folder / "arms.parquet"
    if not path.is_file():
        return {}
    rows = pq.read_table(path).to_pylist()
    row: Row = next((row for row in rows if row["arm"] == winner.arm), {})
    return {
        name: row.get(column) for name, column in (("mean", "test_metric"), ("low", "test_low"), ("high", "test_high"))
    }


def _study_file(tables: Tables, lock: Mapping[str, Any]) -> StudyFile:
    """The study file as the study last ran with it. Raises InputError."""
    path = tables.folder / "study.yaml"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Fault(str(path), f"cannot be read ({error})")) from None
    return load(text, [str(text) for text in lock.get("overrides", ())])


def _storage(folder: str) -> Storage:
    """The storage that the study at `folder` lies in."""
    if is_url(folder):
        return Storage(checked_url(folder, "study").rpartition("/")[0])
    return Storage(str(Path(folder).resolve().parent))


def _chosen(place: str, tables: Tables, arm: str, seed: int | None) -> Row:
    """The row of the best confirmed trial. Raises InputError if there is none."""
    rows = [row for row in tables.trials().to_pylist() if row["arm"] == arm and row["phase"] == "confirm"]
    confirmed = [row for row in rows if row["status"] == "completed" and row.get("selected_lineage")]
    if not confirmed:
        raise InputError(Fault(place, _unconfirmed(arm, rows), advice=_advice(rows)))
    wanted = [row for row in confirmed if seed in (None, row["seed"])]
    if not wanted:
        seeds = tuple(dict.fromkeys(str(row["seed"]) for row in confirmed))
        raise InputError(
            Fault("--seed", expected=f"the seed of a confirmed trial of {arm}", got=str(seed), valid=seeds)
        )
    return max(wanted, key=lambda row: (_value(row), -row["rank"], -row["seed"]))


def _value(row: Row) -> float:
    value = row["selected_val_metric"]
    return -math.inf if value is None else float(value)


def _unconfirmed(arm: str, rows: Sequence[Row]) -> str:
    statuses = ", ".join(sorted({row["status"] for row in rows}))
    return f"the arm {arm!r} has no confirmed trial" + (f" that is complete ({statuses})" if rows else "")


def _advice(rows: Sequence[Row]) -> str:
    if rows:
        return "Run the study to its end first, or look at the errors in its trials.parquet."
    return "Run the study to its end with confirm.top and confirm.seeds of at least 1: only such trials are tested."


def configuration(winner: Winner) -> dict[str, Any]:
    """The values of the trial's parameters, the fixed ones too."""
    values: dict[str, Any] = json.loads(winner.trial["configuration"])
    return values
