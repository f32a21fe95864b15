"""Rates that range tests found: their cost counts in tuning, and the page shows them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import lrstudy_reports
from lrstudy_reports import summary
from report_studies import copied

COLUMNS = ("tuning_standalone_device_s", "tuning_spent_device_s", "tuning_paid_device_s", "tuning_device_s")


def costs(folder: Path) -> dict[str, list[float]]:
    return {row["arm"]: [row[name] for name in COLUMNS] for row in summary(folder)}


@pytest.fixture
def found(small, tmp_path) -> Path:
    """The study of two arms, as if one test of 100 updates and 3 evaluations had found the rate of both."""
    folder = copied(small, tmp_path / "found")
    prices = pd.read_parquet(folder / "calibration.parquet")
    kind = prices["update_kind"].iloc[0]
    row = {
        "lr": 0.05, "range_test": "a", "suggestion": "smith", "recalled": False, "device_s": 8.0, "form": "linear",
        "low": 1e-4, "high": 1.0, "update_kind": kind, "updates": 100, "evaluations": 3,
    }  # fmt: skip
    rows = [{**row, "arm": arm, "spent_device_s": spent} for arm, spent in (("constant", 8.0), ("step", 0.0))]
    pd.DataFrame(rows).to_parquet(folder / "range_tests.parquet")
    return folder


def test_every_arm_bears_the_whole_test_and_the_study_paid_it_once(small, found):
    prices = pd.read_parquet(found / "calibration.parquet")
    before, after = costs(small), costs(found)
    calibrated = 100 * prices["device_s_per_update"].iloc[0] + 3 * prices["device_s_per_evaluation"].median()
    more = {arm: [b - a for a, b in zip(before[arm], after[arm], strict=True)] for arm in before}
    assert more["constant"] == pytest.approx([8.0, 8.0, 4.0, calibrated])
    assert more["step"] == pytest.approx([8.0, 0.0, 4.0, calibrated])


def test_an_update_without_a_price_costs_what_was_recorded(small, found):
    table = pd.read_parquet(found / "range_tests.parquet").assign(update_kind="unknown")
    table.to_parquet(found / "range_tests.parquet")
    assert costs(found)["step"][3] - costs(small)["step"][3] == pytest.approx(8.0)


def test_the_page_shows_rate_suggestion_and_cost(found):
    text = (lrstudy_reports.build(found).parent / "report.md").read_text()
    section = text.split("## Rates that were found")[1].split("##")[0]
    assert "| constant | lr | 0.05 | smith (linear, 0.0001 to 1) | 100 | 8" in section
    assert "(shared) |" in section
