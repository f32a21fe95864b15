"""Where default search spaces are found."""

from __future__ import annotations

import shutil
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from lrstudy.errors import InputError
from lrstudy.policies import spaces
from lrstudy.policies.spaces import default_space


def test_an_unknown_default_space_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"there is no default space of a policy 'sgrd'\. Did you mean 'sgdr'"):
        default_space("sgrd")


def test_a_default_space_is_a_fresh_mapping() -> None:
    default_space("step").clear()
    assert set(default_space("step")) == {"milestones", "gamma"}


def test_default_spaces_are_found_in_an_installed_wheel(tmp_path: Path) -> None:
    """A wheel holds search_spaces inside the package, and there it wins over anything around it."""
    package = tmp_path / "site-packages" / "lrstudy"
    (package / "policies").mkdir(parents=True)
    (package / "search_spaces").mkdir()
    (package / "search_spaces" / "step.yaml").write_text("gamma: {choice: [1e-4, 1]}\n")
    copy = shutil.copy(Path(spaces.__file__), package / "policies" / "spaces.py")
    spec = spec_from_file_location("installed_spaces", copy)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.default_space("step") == {"gamma": {"choice": [0.0001, 1]}}
