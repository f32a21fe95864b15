"""Fixtures for all tests."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))  # for benchmarks/

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data sets beside the checkout; tests that need them are skipped where they are missing."""
    if not SHARED.is_dir():
        pytest.skip("the real data sets are not here")
    return SHARED


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Two classes, four grey images of 8 x 8, all different."""
    from image_files import image

    for k in range(4):
        image(tmp_path / "data" / "ab"[k % 2] / f"{k}.png", np.full((8, 8), 10 * k, np.uint8))
    return tmp_path / "data"
