"""Imports go down only. The table is the design: changing it is a design decision and says so in its commit."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A module may import from its own row's rooms and from every row above it: the rooms of docs/architecture.md.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("lrstudy", "lrstudy.annotations", "lrstudy.child_process", "lrstudy.errors", "lrstudy.opened_files"),
    (
        "lrstudy.settings",
        "lrstudy.lineage",
        "lrstudy.user_code",
        "lrstudy.tasks",
        "lrstudy.storage",
        "lrstudy.study_folder",
    ),
    ("lrstudy.memo", "lrstudy.search", "lrstudy.models"),
    ("lrstudy.policies", "lrstudy.data", "lrstudy.doctor"),
    ("lrstudy.trial", "lrstudy.config"),
    ("lrstudy.workload",),
    ("lrstudy.training", "lrstudy.first_study"),
    ("lrstudy.planning",),
    ("lrstudy.running", "lrstudy.tracing"),
    ("lrstudy.ray_tune",),
    ("lrstudy.run",),
    ("lrstudy.study",),
    ("lrstudy.export",),
    ("lrstudy.cli",),
)
TORCH = (
    "lrstudy.data.augment",
    "lrstudy.data.batches",
    "lrstudy.data.reading",
    "lrstudy.data.sources.torchvision_sets",
    "lrstudy.doctor.gpu_report",
    "lrstudy.export",
    "lrstudy.models",
    "lrstudy.policies.torch_schedulers",
    "lrstudy.tasks.metrics",
    "lrstudy.training",
    "lrstudy.workload.numerics",
)
# catalogue, gpu_report, numerics, torchvision_sets and torch_schedulers do so only where they are asked for what torch alone knows.
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
CLUSTER = modules("cluster")


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
    return max((len(name), number) for name, number in listed if _lies_in(module, name))[1]


def _lies_in(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def target(name: str, known: dict[str, Path]) -> str:
    """The module of `known` that an import of `name` loads."""
    while name not in known:
        name = name.rpartition(".")[0]
    return name


def imported(module: str, known: dict[str, Path]) -> set[str]:
    """The modules of its own package that a module imports: at its top, lazily, or for its types alone."""
    package = module.partition(".")[0]
    return {target(name, known) for name in imports(known[module]) if name.partition(".")[0] == package}


@pytest.mark.parametrize("module", sorted(OURS))
def test_a_module_imports_only_from_its_own_layer_and_below(module):
    rooms = [name for names in LAYERS for name in names if name != "lrstudy"]
    assert module == "lrstudy" or any(_lies_in(module, name) for name in rooms), f"{module} is in no layer"
    for loaded in imported(module, OURS):
        assert layer(loaded) <= layer(module), f"{module} imports {loaded}, which lies above it"


@pytest.mark.parametrize("known", [OURS, REPORTS, CLUSTER], ids=["lrstudy", "lrstudy_reports", "lrstudy_cluster"])
def test_modules_import_each_other_without_a_circle(known):
    """Over all imports: one that is hidden in a function, or made for its types alone, couples two files as well."""
    graph = {module: imported(module, known) - {module} for module in known}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_the_engine_has_rooms():
    """A newcomer sees ten modules at most beside the rooms, and a table of layers that fits one screen."""
    assert len([module for module, path in OURS.items() if path.parent.name == "lrstudy"]) <= 10
    assert len(LAYERS) <= 22


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


@pytest.mark.parametrize("module", sorted(CLUSTER))
def test_launching_imports_neither_torch_nor_ray_nor_reports(module):
    for name in imports(CLUSTER[module]):
        assert name.partition(".")[0] not in ("torch", "torchvision", "ray", "lrstudy_reports"), f"{module}: {name}"


def test_importing_the_packages_loads_neither_torch_nor_ray():
    code = (
        "import sys, lrstudy, lrstudy_reports, lrstudy.study, lrstudy.cli, lrstudy_cluster.launching\n"
        "assert not {'torch', 'ray', 'hyperopt', 'smac', 'sklearn', 'matplotlib'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_files_stay_short_enough_to_read():
    long = {m: n for m, p in {**OURS, **REPORTS, **CLUSTER}.items() if (n := len(p.read_text().splitlines())) > 400}
    assert not long, f"split by idea: {long}"
