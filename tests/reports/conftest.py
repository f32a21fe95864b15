"""Study folders as the engine leaves them, of a prescribed training with known effects.

Faults are made by changing the engine's tables afterwards, or by deleting files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import lrstudy_reports
from lrstudy.running.trials import Trial
from prescribed import Training, run_study
from report_studies import EFFECTS, FULL, KILLED, SMALL, Edit, copied, edit_lock, edit_table, relock


@dataclass(frozen=True)
class Ran:
    """The study of five arms at three moments: tuned, with 15 of 25 confirm trials ended, and complete."""

    tuned: Path
    interim: Path
    complete: Path


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Tests read these folders and write nothing into them."""
    folder = tmp_path_factory.mktemp("engine")
    moments = {
        folder / "tuned": lambda admission: admission.protocol.is_tuned,
        folder / "interim": lambda admission: sum(t.status == "completed" for t in admission.trials.values()) == 75,
    }
    training = Training(EFFECTS, dies=lambda trial: trial.trial_id == KILLED)
    return Ran(*moments, run_study(folder / "runs", FULL, training=training, moments=moments))


@pytest.fixture(scope="session")
def study(ran: Ran) -> Path:
    """The complete study of five arms; tests read it and write nothing into it."""
    return ran.complete


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete study of two arms with three trials each; tests read it and write nothing into it."""
    return run_study(tmp_path_factory.mktemp("engine"), SMALL, training=Training(EFFECTS))


@pytest.fixture(scope="session")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of six arms with two tuning trials each, where much goes wrong; tests read it and write nothing into it.

    A tuning trial of clr fails; confirm trials of clr diverge, all of them, and one of sgdr_dlr; one of sgdr fails.
    """
    brief = (
        "arms.sgdr={t0: 50%, t_mult: 1}",
        "search.method=random",
        "search.trials=2",
        "search.cohort=1",
        "budget.epochs=4",
    )

    def diverges(trial: Trial) -> bool:
        return trial.phase == "confirm" and (trial.arm == "clr" or (trial.arm, trial.seed) == ("sgdr_dlr", 1001))

    def fails(trial: Trial) -> bool:
        return trial.trial_id in ("clr-random-1-0", "sgdr-confirm-1-1001")

    training = Training({"sgdr": 0.03, "sgdr_dlr": 0.03}, diverges=diverges, fails=fails)
    return run_study(tmp_path_factory.mktemp("engine"), FULL, *brief, training=training)


@pytest.fixture(scope="session")
def reported(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The complete study with its report; tests read it and write nothing into it."""
    folder = copied(study, tmp_path_factory.mktemp("reported") / "digits")
    lrstudy_reports.build(folder)
    return folder


@pytest.fixture
def make(ran: Ran, small: Path, tmp_path: Path) -> Callable[..., Path]:
    """A factory of copies that may be changed: `make()`, `make("tuned")`, `make("small")`.

    `overrides` go into the lock as a run with them would have written it; `lock` holds values that no run writes.
    """

    def build(
        of: str = "complete",
        *overrides: str,
        name: str = "made",
        lock: dict[str, Any] | None = None,
        edit_trials: Edit | None = None,
        edit_epochs: Edit | None = None,
    ) -> Path:
        folder = copied(small if of == "small" else getattr(ran, of), tmp_path / name)
        if overrides:
            relock(folder, SMALL if of == "small" else FULL, *overrides)
        if lock:
            edit_lock(folder, **lock)
        for table, edit in (("trials", edit_trials), ("epochs", edit_epochs)):
            if edit:
                edit_table(folder / f"{table}.parquet", edit)
        return folder

    return build
