"""The table of range tests: a row for every rate that one has found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from lrstudy.memo.memo import Memo
from lrstudy.running import range_tests
from lrstudy.running.found_rates import Asked, asked_by
from lrstudy.running.range_tests import RangeTest
from lrstudy.study_folder.journal import Journal
from lrstudy.study_folder.schemas import RANGE_TESTS


def range_test_table(tests: Mapping[Asked, RangeTest], journal: Journal, memo: Memo) -> pa.Table:
    """The rates that the journal notes of arms, with the tests of those that are still in the study, by arm.

    What a test cost is spent once: by the first arm that it gave a rate.
    """
    return pa.Table.from_pylist(list(_rows(tests, journal, memo)), schema=RANGE_TESTS)


def _rows(tests: Mapping[Asked, RangeTest], journal: Journal, memo: Memo) -> Iterator[dict[str, Any]]:
    paid: set[str] = set()
    for line in journal.of_kind("found"):
        arm, parameter = asked_by(line)
        test = tests.get((arm, parameter))
        is_payer = line["own"] and line["range_test"] not in paid
        if line["own"]:
            paid.add(line["range_test"])
        yield {
            "arm": arm,
            "parameter": parameter,
            "lr": line["rate"],
            "range_test": line["range_test"],
            "recalled": not line["own"],
            "device_s": line["device_s"],
            "spent_device_s": line["device_s"] if is_payer else 0.0,
            # Its root may be another one by now, on another machine: then its curve is that of another test.
            **(_of_test(test, memo) if test is not None and test.digest == line["range_test"] else {}),
        }


def _of_test(test: RangeTest, memo: Memo) -> dict[str, Any]:
    """What is known of a test: the question, and the curve if the memo has it."""
    question, first = test.question, test.passes[0]
    row = {
        "suggestion": question.found,
        "form": question.form,
        "low": question.low,
        "high": question.high,
        "epochs_before": test.depth,
        "planned_updates": test.num_updates,
        "batch_size": first.batch_size,
        "seed": test.spec.root.seed,
        "update_kind": range_tests.update_kind(test).digest,
    }
    measured = range_tests.recalled(memo, test)
    if measured is None:
        return row
    curve = measured.curve
    return row | {
        "device_kind": measured.device_kind,
        "host": measured.host,
        "updates": len(curve.rates),
        "evaluations": len(curve.accuracies),
        "rates": curve.rates[: len(curve.losses)],
        "losses": curve.losses,
        "smoothed_losses": curve.smoothed,
        "measured_after": curve.measured_after,
        "accuracies": curve.accuracies,
    }
