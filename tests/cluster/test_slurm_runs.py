"""Studies on a real SLURM with two nodes made of namespaces (slurm_nodes.py): run, preempted, cancelled, out of time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import lrstudy
import lrstudy_cluster
import lrstudy_reports
import slurm_nodes
from slurm_nodes import SlurmNodes, wait_until

pytestmark = pytest.mark.slow

LRSTUDY = str(Path(sys.executable).with_name("lrstudy"))
SOURCES = [str(Path(module.__file__).parents[1]) for module in (lrstudy, lrstudy_reports, lrstudy_cluster)]
JOB_LIMIT_S = 200.0
STUDY = """
lrstudy: 1
name: tiny
workload: {{data: digits, subset: 600, split: {{seed: 0}}}}
budget: {{epochs: {epochs}}}
arms: [constant, cosine]
search: {{method: random, trials: {trials}, cohort: 2}}
confirm: {{top: 1, seeds: 2}}
"""
DRIVER = """#!{python}
# Stands in for `lrstudy run STUDY --address HOST:PORT`: uses the job's Ray until a file says that the study is over.
import os, signal, sys, time
import ray
address, folder = sys.argv[-1], os.path.dirname(sys.argv[2])
ray.init(address=address, log_to_driver=False, logging_level="ERROR")
def ended(*signals):
    print("driver: told to end", flush=True)
    os._exit(130)
signal.signal(signal.SIGTERM, ended)
@ray.remote(num_cpus=1, num_gpus=1, scheduling_strategy="SPREAD")
def where():
    time.sleep(1)
    return os.uname().nodename + ":" + os.environ["CUDA_VISIBLE_DEVICES"]
print("driver: works on", *sorted(set(ray.get([where.remote() for _ in range(4)]))), flush=True)
while not os.path.exists(folder + "/over"):
    time.sleep(0.2)
sum(ray.get([where.remote() for _ in range(2)]) is None for _ in range(1))
print("driver: done", flush=True)
"""


@pytest.fixture(scope="module")
def nodes() -> Iterator[SlurmNodes]:
    if lacks := slurm_nodes.missing():
        pytest.skip(lacks)
    with slurm_nodes.slurm_nodes() as running:
        yield running


class Site:
    """A folder that both nodes see, with a study, and what is launched from it."""

    def __init__(self, nodes: SlurmNodes, folder: Path) -> None:
        self.nodes, self.folder = nodes, folder
        self.jobs: list[str] = []

    def launch(self, study: str = "", *options: str) -> subprocess.CompletedProcess[str]:
        """`lrstudy launch slurm`, as on the login node."""
        file = self.folder / "study.yaml"
        file.write_text(study or STUDY.format(epochs=2, trials=2))
        asked = ["temp=/var/tmp", "nodes=2", "cpus=2", "gpus=0", "memory=4G", *options]
        arguments = [word for option in asked for word in ("--set", option)]
        return self.nodes.run(LRSTUDY, "launch", "slurm", str(file), "--json", *arguments, PYTHONPATH=":".join(SOURCES))

    def submit(self, study: str = "", *options: str) -> str:
        launched = self.launch(study, *options)
        assert launched.returncode == 0, launched.stderr
        answer = json.loads(launched.stdout)
        job = answer["identity"].removeprefix("job ")
        assert answer["stop"] == f"scancel {job}"
        self.jobs.append(job)
        return job

    def submit_driver(self, *options: str) -> str:
        """Submit a job whose driver uses Ray and waits for the file `over`."""
        (self.folder / "bin").mkdir(exist_ok=True)
        (self.folder / "bin" / "lrstudy").write_text(DRIVER.format(python=sys.executable))
        (self.folder / "bin" / "lrstudy").chmod(0o755)
        return self.submit("", f"setup=['export PATH={self.folder}/bin:$PATH']", "gpus=1", *options)

    def log(self, job: str) -> str:
        path = self.folder / "launch" / "slurm" / f"{job}.log"
        return path.read_text() if path.exists() else ""

    def wait_for(self, job: str, words: str, times: int = 1) -> None:
        self.wait(job, lambda: self.log(job).count(words) >= times)

    def wait_for_state(self, job: str, *states: str) -> None:
        self.wait(job, lambda: self.nodes.state(job) in states)

    def wait(self, job: str, is_true) -> None:
        wait_until(is_true, self.nodes, JOB_LIMIT_S, [self.folder / "launch" / "slurm" / f"{job}.log"])

    def start_again(self, job: str) -> None:
        """Let a job that was queued again start now; SLURM holds it back for two minutes."""
        self.wait_for_state(job, "PENDING")
        wait_until(
            lambda: self.nodes.run("scontrol", "update", f"jobid={job}", "StartTime=now").returncode == 0, self.nodes
        )

    def left(self, job: str) -> list[str]:
        """What a job has left behind: its folder with the token, temporary folders, processes."""
        found = [str(path) for path in (self.folder / "launch" / "slurm").glob(f"job-{job}*")]
        for host in ("n1", "n2"):
            found += [f"{host}: {name}" for name in self.nodes.run("ls", "/var/tmp", host=host).stdout.split()]
            found += [f"{host}: {line}" for line in self.nodes.processes(host)]
        return found

    def has_left_nothing(self, job: str) -> None:
        try:
            wait_until(lambda: not self.left(job), self.nodes, 30)
        except AssertionError:
            pytest.fail(f"left behind: {self.left(job)}\n{self.log(job)}")


@pytest.fixture
def site(nodes: SlurmNodes) -> Iterator[Site]:
    folder = Path(tempfile.mkdtemp(prefix="lrstudy-slurm-", dir=slurm_nodes.SHARED))
    made = Site(nodes, folder)
    try:
        yield made
    finally:
        for job in made.jobs:
            nodes.run("scancel", job)
        wait_until(lambda: not nodes.run("squeue", "-h").stdout.strip(), nodes, 60)
        shutil.rmtree(folder)


def results(folder: Path) -> dict[str, object]:
    """What must not depend on where and in how many runs a study ran: trials with their lineages, epochs with their values."""
    trials = pq.read_table(folder / "trials.parquet").to_pylist()
    epochs = pq.read_table(folder / "epochs.parquet").to_pylist()
    return {
        "trials": sorted(
            (row["trial_id"], row["status"], row["configuration"], row["lineage"], row["final_val_metric"])
            for row in trials
        ),
        "epochs": sorted((row["trial_id"], row["epoch"], row["lineage"], row["train_loss"]) for row in epochs),
    }


def test_a_study_runs_on_both_nodes_and_leaves_only_its_results(site):
    job = site.submit(STUDY.format(epochs=4, trials=4))
    site.wait_for_state(job, "COMPLETED", "FAILED")
    assert site.nodes.state(job) == "COMPLETED", site.log(job)
    assert "lrstudy: Ray is up on all 2 nodes" in site.log(job)
    folder = site.folder / "runs" / "tiny"
    assert (folder / "report" / "index.html").is_file()
    ledger = pq.read_table(folder / "ledger.parquet").to_pylist()
    assert {row["host"] for row in ledger if row["category"] == "train"} == {"n1", "n2"}
    site.has_left_nothing(job)
    assert "token" not in site.log(job)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["partition=mian"],
            "profile.partition: there is no partition 'mian'. Did you mean 'main'? Valid: main, urgent.",
        ),
        (["nodes=3"], "profile.nodes: expected at most 2, as partition main has; got 3."),
        (["gpus=3"], "profile.gpus: expected at most 2, as partition main has; got 3."),
        (
            ["time=3:00:00"],
            "profile.time: expected at most 120 minutes, the limit of partition main; got 3:00:00 (180 minutes).",
        ),
        (["constraint=h100"], "sbatch: it refuses the job: allocation failure: Invalid feature specification."),
    ],
)
def test_what_the_site_does_not_have_is_said_before_anything_is_submitted(site, options, said):
    launched = site.launch("", *options)
    assert launched.returncode == 2
    assert said in launched.stderr
    assert site.nodes.run("squeue", "-h").stdout == ""


def test_a_study_in_a_folder_of_each_nodes_own_is_refused(site):
    launched = site.launch("", "temp=/srv")
    assert launched.returncode == 2
    assert f"study file: {site.folder} lies in /srv, which every node has to itself" in launched.stderr
    assert "storage.path" in launched.stderr


@pytest.mark.long
def test_two_jobs_on_the_same_nodes_do_not_see_each_other(site):
    first, second = site.submit_driver(), site.submit_driver()
    for job in (first, second):
        site.wait_for(job, "driver: works on")
    assert "works on n1:0 n2:0\n" in site.log(first)
    assert "works on n1:1 n2:1\n" in site.log(second)
    (site.folder / "launch" / "slurm" / f"job-{first}" / "stop").touch()  # the end of the first job's Ray
    site.wait_for_state(first, "FAILED")
    assert site.nodes.state(second) == "RUNNING"
    (site.folder / "over").touch()  # the second one's driver goes on to use both nodes before it ends
    site.wait_for_state(second, "COMPLETED", "FAILED")
    assert "driver: done" in site.log(second)
    site.has_left_nothing(second)


@pytest.mark.long
def test_only_the_owner_can_read_the_token_and_the_temporary_folders(site):
    job = site.submit_driver()
    site.wait_for(job, "driver: works on")
    folder = site.folder / "launch" / "slurm" / f"job-{job}"
    assert folder.stat().st_mode & 0o777 == 0o700
    for name in ("token", "address"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    token = (folder / "token").read_text()
    for host in ("n1", "n2"):
        assert site.nodes.run("stat", "-c", "%a", f"/var/tmp/lrs-{job}-0", host=host).stdout == "700\n"
        assert token not in "\n".join(site.nodes.processes(host))
    assert token not in site.log(job)
    site.nodes.run("scancel", job)
    site.wait_for_state(job, "CANCELLED")
    assert "driver: told to end" in site.log(job)
    assert "waits in the queue again" not in site.log(job)
    site.has_left_nothing(job)


@pytest.mark.long
def test_a_job_whose_srun_is_killed_ends_and_says_so(site):
    job = site.submit_driver()
    site.wait_for(job, "driver: works on")
    (srun, *_) = [line.split()[0] for line in site.nodes.processes("n1") if "srun --nodes" in line]
    site.nodes.run("kill", "-KILL", srun, host="n1")
    site.wait_for_state(job, "FAILED")
    assert site.nodes.fact(job, "ExitCode") == "1:0"
    assert "lrstudy: Ray has ended on the nodes of this job before the study has" in site.log(job)
    site.has_left_nothing(job)


@pytest.mark.long
def test_a_job_goes_on_with_the_nodes_that_are_left(site):
    job = site.submit_driver()
    site.wait_for(job, "driver: works on")
    (ray, *_) = [line.split()[0] for line in site.nodes.processes("n2") if "ray start" in line]
    site.nodes.run("kill", "-KILL", ray, host="n2")
    site.wait_for(job, "lrstudy: n2: Ray has ended on this node; the study goes on with the others")
    (site.folder / "over").touch()
    site.wait_for_state(job, "COMPLETED", "FAILED")
    assert "driver: done" in site.log(job)
    site.has_left_nothing(job)


@pytest.mark.long
def test_a_job_out_of_time_is_queued_again_and_goes_on(site):
    job = site.submit_driver()
    site.wait_for(job, "driver: works on")
    site.nodes.run("scontrol", "update", f"jobid={job}", "TimeLimit=1")
    site.wait_for(job, "waits in the queue again; the study goes on from its records")
    assert "driver: told to end" in site.log(job)
    site.nodes.run("scontrol", "update", f"jobid={job}", "TimeLimit=60")
    site.start_again(job)
    site.wait_for(job, "driver: works on", times=2)
    (site.folder / "over").touch()
    site.wait_for_state(job, "COMPLETED", "FAILED")
    assert site.nodes.fact(job, "ExitCode") == "0:0"
    site.has_left_nothing(job)


@pytest.mark.long
def test_a_preempted_study_ends_with_the_tables_of_one_that_nobody_disturbed(site):
    text = STUDY.format(epochs=20, trials=3)
    job = site.submit(text)
    memo = site.folder / "runs" / "memo"
    site.wait(job, lambda: (memo / "records").is_dir() and sum(1 for _ in (memo / "records").rglob("*")) > 40)
    urgent = ["sbatch", "--parsable", "-p", "urgent", "-N2", "-c8", "-o", "/dev/null", "--wrap", "srun sleep 2"]
    site.jobs.append(site.nodes.run(*urgent).stdout.strip())
    site.wait_for(job, "waits in the queue again; the study goes on from its records")
    site.start_again(job)
    site.wait_for_state(job, "COMPLETED", "FAILED")
    assert site.nodes.state(job) == "COMPLETED", site.log(job)
    assert site.nodes.fact(job, "Restarts") == "1"
    lock = json.loads((site.folder / "runs" / "tiny" / "study.lock.json").read_text())
    assert lock["complete"]
    undisturbed = site.folder / "alone"
    command = [LRSTUDY, "run", str(site.folder / "study.yaml"), f"storage.path={undisturbed}"]
    variables = {**os.environ, "PYTHONPATH": ":".join(SOURCES)}
    subprocess.run(command, check=True, capture_output=True, env=variables)
    assert results(site.folder / "runs" / "tiny") == results(undisturbed / "tiny")
    site.has_left_nothing(job)
