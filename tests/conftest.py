"""Fixtures for all tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import jsonschema
import numpy as np
import pytest

from lrstudy.config.schema import json_schema
from lrstudy.config.text import apply_overrides, parse_yaml
from lrstudy.planning import plan as plan_module

if TYPE_CHECKING:
    from ray_nodes import RayNodes

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


@pytest.fixture(scope="session")
def ray_nodes() -> Iterator[RayNodes]:
    """A Ray cluster of two nodes with a token; the second one has a GPU by its own account, and there is none."""
    from ray_nodes import RayNodes

    nodes = RayNodes()
    try:
        nodes.start_head()
        nodes.add(3, "--num-gpus=1")
        yield nodes
    finally:
        nodes.close()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[object]:
    """One S3 server for all tests that do not kill it; started when the first one needs it."""
    from s3_server import server_or_skip

    server = server_or_skip()
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server, monkeypatch) -> str:
    """The URL of an empty bucket on it; the environment has its endpoint and credentials."""
    from s3_server import environment

    for name, value in environment(s3_server.endpoint).items():
        monkeypatch.setenv(name, value)
    return s3_server.make_bucket()


@pytest.fixture(autouse=True)
def _the_node_cache_is_the_tests_own(tmp_path_factory, monkeypatch) -> None:
    """No test writes into the home of whoever runs it."""
    monkeypatch.setenv("LRSTUDY_CACHE", str(tmp_path_factory.mktemp("node-cache")))


@pytest.fixture(autouse=True, scope="session")
def _the_json_schema_accepts_what_is_valid() -> Iterator[None]:
    """Every study that a test reads without a fault passes the JSON Schema too: an editor must not refuse it."""
    validator = jsonschema.Draft202012Validator(json_schema())

    def checking(read: Callable[..., Any]) -> Callable[..., Any]:
        def reading(text: str, overrides: Sequence[str] = (), base: Path = Path()) -> Any:
            found = read(text, overrides, base)
            raw = apply_overrides(parse_yaml(text), overrides)
            refused = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(raw)]
            assert not refused, f"the JSON Schema refuses a valid study: {refused}"
            return found

        return reading

    with (
        mock.patch.object(plan_module, "read", checking(plan_module.read)),
        mock.patch.object(plan_module, "read_each", checking(plan_module.read_each)),
    ):
        yield
