"""Imports go down only. The table is the design: changing it is a design decision and says so in its commit."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A module may import from its own layer's package and from every layer above its line.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("lrstudy", "lrstudy.faults", "lrstudy.child_process"),
    ("lrstudy.own",),
    ("lrstudy.settings",),
    ("lrstudy.lineage", "lrstudy.space"),
    ("lrstudy.policies", "lrstudy.search", "lrstudy.data.spec", "lrstudy.task_names"),
    ("lrstudy.later",),
    ("lrstudy.config",),
    ("lrstudy.arms",),
    ("lrstudy.records", "lrstudy.ledger"),
    ("lrstudy.memo", "lrstudy.predictions"),
    ("lrstudy.data", "lrstudy.model_names", "lrstudy.models", "lrstudy.tasks", "lrstudy.numerics"),
    ("lrstudy.devices",),
    ("lrstudy.workload",),
    ("lrstudy.training",),
    ("lrstudy.state_writer",),
    ("lrstudy.trial", "lrstudy.rehearsal"),
    ("lrstudy.plan", "lrstudy.arm_faults", "lrstudy.journal", "lrstudy.driver_lock"),
    ("lrstudy.study_lock",),
    ("lrstudy.forecast", "lrstudy.forecast_cost", "lrstudy.first_look", "lrstudy.first_study"),
    ("lrstudy.protocol",),
    ("lrstudy.calibration",),
    ("lrstudy.admission",),
    ("lrstudy.views",),
    ("lrstudy.ray_tune",),
    ("lrstudy.retention",),
    ("lrstudy.run",),
    ("lrstudy.study", "lrstudy.display"),
    ("lrstudy.trace", "lrstudy.trace_chart"),
    ("lrstudy.cli",),
)
TORCH = (
    "lrstudy.data.augment",
    "lrstudy.data.batches",
    "lrstudy.data.reading",
    "lrstudy.data.torchvision_sets",
    "lrstudy.policies.torch_schedulers",
    "lrstudy.models",
    "lrstudy.model_names",
    "lrstudy.tasks",
    "lrstudy.training",
    "lrstudy.numerics",
    "lrstudy.rehearsal",
)
# model_names, numerics, torchvision_sets and torch_schedulers do so only where they are asked for what torch alone knows.
TORCH_OR_RAY = (*TORCH, "lrstudy.ray_tune")


def modules(folder: str) -> dict[str, Path]:
    root = ROOT / folder
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


OURS = modules("study")
REPORTS = modules("reports")


def imports(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def layer(module: str) -> int:
    """The layer of a module: that of the longest listed name that it lies in."""
    listed = [(name, number) for number, names in enumerate(LAYERS) for name in names]
    fitting = [(len(name), number) for name, number in listed if module == name or module.startswith(f"{name}.")]
    return max(fitting)[1]


def target(name: str) -> str:
    """The module that an import of `name` loads."""
    while name not in OURS:
        name = name.rpartition(".")[0]
    return name


@pytest.mark.parametrize("module", sorted(OURS))
def test_a_module_imports_only_from_its_own_layer_and_below(module):
    assert any(module == name or module.startswith(f"{name}.") for names in LAYERS[1:] for name in names) or module in (
        "lrstudy",
        "lrstudy.faults",
        "lrstudy.child_process",
    ), f"{module} is in no layer"
    for name in imports(OURS[module]):
        if not name.startswith("lrstudy") or name.startswith("lrstudy_"):
            continue
        loaded = target(name)
        assert layer(loaded) <= layer(module), f"{module} imports {loaded}, which lies above it"


@pytest.mark.parametrize("module", sorted(OURS))
def test_only_ray_tune_imports_ray_and_only_training_imports_torch(module):
    for name in imports(OURS[module]):
        top = name.partition(".")[0]
        if top == "ray":
            assert module.startswith("lrstudy.ray_tune"), f"{module} imports ray"
        if top in ("torch", "torchvision"):
            assert module.startswith(TORCH_OR_RAY), f"{module} imports torch"
        if top in ("lrstudy_reports", "lrstudy_cluster"):
            assert module.startswith("lrstudy.cli"), f"{module} imports {top}"


@pytest.mark.parametrize("module", sorted(REPORTS))
def test_reports_import_neither_torch_nor_ray_nor_the_engine(module):
    for name in imports(REPORTS[module]):
        assert name.partition(".")[0] not in ("torch", "torchvision", "ray", "lrstudy"), f"{module} imports {name}"


def test_importing_the_packages_loads_neither_torch_nor_ray():
    code = (
        "import sys, lrstudy, lrstudy_reports, lrstudy.study, lrstudy.cli\n"
        "assert not {'torch', 'ray', 'hyperopt', 'smac', 'sklearn', 'matplotlib'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_files_stay_short_enough_to_read():
    long = {m: n for m, p in {**OURS, **REPORTS}.items() if (n := len(p.read_text().splitlines())) > 400}
    assert not long, f"split by idea: {long}"
