"""Curves of range tests as a memo has them, without running any."""

from __future__ import annotations

import json
from pathlib import Path

from lrstudy.memo.memo import Memo
from lrstudy.running import range_tests
from lrstudy.running.range_tests import RangeTest
from lrstudy.training.range_curve import Curve

GOLDEN = json.loads((Path(__file__).parent / "golden" / "golden_lr_suggestions.json").read_text())["cases"][0]
FALLING = Curve(100, tuple(1e-7 * 1e8 ** (k / 100) for k in range(100)), tuple(GOLDEN["raw_losses"]))
"""A curve whose valley is 0.00069."""


def stored(memo: Memo, test: RangeTest, curve: Curve = FALLING) -> None:
    """Put a curve into the memo as if the test had met it."""
    cost = {"device_s": 2.5, "device_kind": "cpu: a test's", "host": "h"}
    memo.put_measurement(range_tests._path(test), curve.to_json() | cost)
