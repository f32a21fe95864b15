"""The last complete answer of a study, kept in report/answer.json while an extension of the study is under way."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from lrstudy_reports.tables import StudyTables

FILE = "answer.json"


@dataclass(frozen=True)
class LastAnswer:
    """An answer that rested on all confirm trials that the study then asked for: `seeds` per arm, of `arms` arms.

    `ended` is the day on which the last of them ended, in UTC.
    """

    answer: str
    ended: str
    seeds: int
    arms: int


def of_study(study: StudyTables, answer: str) -> LastAnswer:
    """The answer of a study whose confirm trials have all ended."""
    confirm = study.confirming[~study.confirming["arm"].isin(study.lock.retired)]
    last = confirm["ended_at"].max()
    ended = datetime.fromtimestamp(float(last), UTC).date().isoformat() if last == last else "an unknown day"
    return LastAnswer(answer, ended, int(confirm["seed"].nunique()), int(confirm["arm"].nunique()))


def read(folder: Path) -> LastAnswer | None:
    """The last complete answer of the study in `folder`; None if no report of it had one."""
    try:
        return LastAnswer(**json.loads((folder / "report" / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def render(last: LastAnswer) -> bytes:
    """The bytes of answer.json."""
    return (json.dumps(asdict(last), indent=1, ensure_ascii=False) + "\n").encode()
