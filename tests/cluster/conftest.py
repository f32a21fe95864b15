"""A study that is launched, and code beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lrstudy.errors import InputError
from lrstudy_cluster import launching
from lrstudy_cluster.launching import Prepared

STUDY = """
lrstudy: 1
name: tiny
workload: {data: digits, subset: 300}
budget: {epochs: 1}
arms: [constant]
search: {method: random, trials: 1, cohort: 1}
confirm: {top: 0}
storage: {path: /mnt/lrstudy/runs}
"""
OWN = "from helpers import half\n\ndef knee(p: float, E: float, *, lr: float) -> float:\n    return half(lr)\n"
HELPERS = "def half(lr):\n    return lr / 2  # for naïve readers\n"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A study file whose storage is a folder of the cluster's."""
    path = tmp_path / "tiny.yaml"
    path.write_text(STUDY)
    return path


@pytest.fixture
def with_code(tiny: Path) -> Path:
    """The same with a policy of the user's, which imports a module beside it."""
    (tiny.parent / "mine.py").write_text(OWN)
    (tiny.parent / "helpers.py").write_text(HELPERS)
    tiny.write_text(STUDY.replace("[constant]", "{constant: , mine: {policy: ./mine.py:knee}}"))
    return tiny


@pytest.fixture(autouse=True)
def without_a_users_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))


@pytest.fixture
def prepare(tiny: Path) -> Callable[..., Prepared]:
    """Prepare a launch of a study file on a target, with options and overrides."""

    def prepared(target: str, *options: str, study: Path = tiny, overrides: Sequence[str] = ()) -> Prepared:
        return launching.prepare(target, study, overrides, options)

    return prepared


@pytest.fixture
def refusal(prepare: Callable[..., Prepared]) -> Callable[..., str]:
    """What is said to somebody who asks for something that cannot be launched."""

    def text(*arguments: str, **named: object) -> str:
        with pytest.raises(InputError) as caught:
            prepare(*arguments, **named)
        return str(caught.value)

    return text
