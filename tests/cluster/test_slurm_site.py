"""What a SLURM site says of a job: tables that are read, and faults; commands that answer as SLURM's do stand on the path."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lrstudy.errors import ClusterError, InputError
from lrstudy_cluster import slurm_site
from lrstudy_cluster.slurm_site import Request, minutes, node_local, partitions_in, refused, refused_script

TABLE = """\
main*|up|1-00:00:00|6|32|gpu:a100:4(S:0-1),nvme:1
main*|up|1-00:00:00|2|128|gpu:h100:8
cpu|up|infinite|20|64|(null)
short|up|30:00|2|16+|gpu:2
broken|drain|1:00:00|2|16|gpu:2
"""
REQUEST = Request(None, nodes=2, gpus=4, cpus=16, time=None, account=None, qos=None)


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Puts a command on the path that prints a text, or complains of it and fails."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def put(name: str, prints: str = "", complains: str = "") -> None:
        (tmp_path / f"{name}.out").write_text(prints)
        (tmp_path / f"{name}.err").write_text(complains)
        script = f"#!/bin/sh\ncat {tmp_path}/{name}.out\ncat {tmp_path}/{name}.err >&2\nexit {int(bool(complains))}\n"
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)

    return put


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30", 30), (90, 90), ("30:30", 30.5), ("2:00:00", 120), ("1-0", 1440), ("1-2:30", 1590), ("2-1:00:30", 2940.5)],
)
def test_time_limits_are_read_as_slurm_writes_them(text, expected):
    assert minutes(text) == expected


def test_a_partition_has_the_nodes_of_all_its_lines_and_the_most_of_any():
    found = partitions_in(TABLE)
    main = found["main"]
    assert (main.nodes, main.cpus, main.gpus, main.limit_min, main.is_default) == (8, 128, 8, 1440, True)
    assert (found["cpu"].gpus, found["cpu"].limit_min) == (0, None)
    assert (found["short"].cpus, found["short"].gpus, found["short"].limit_min) == (16, 2, 30)
    assert not found["broken"].is_up


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"partition": "mian"},
            r"profile\.partition: there is no partition 'mian'\. Did you mean 'main'\? Valid: main, cpu",
        ),
        ({"nodes": 9}, r"profile\.nodes: expected at most 8, as partition main has; got 9"),
        ({"partition": "cpu"}, r"profile\.gpus: expected at most 0, as partition cpu has; got 4"),
        ({"cpus": 129}, r"profile\.cpus: expected at most 128, as partition main has; got 129"),
        ({"time": "2-00:00:00"}, r"profile\.time: expected at most 1440 minutes, .* got 2-00:00:00 \(2880 minutes\)"),
        ({"partition": "broken", "gpus": 1}, r"profile\.partition: broken starts no jobs now"),
    ],
)
def test_what_no_partition_has_is_refused(command, change, said):
    command("sinfo", TABLE)
    (fault,) = refused(Request(**{**vars(REQUEST), **change}))
    assert re.search(said, str(fault)), fault


def test_what_one_of_several_partitions_has_is_accepted(command):
    command("sinfo", TABLE)
    assert refused(REQUEST) == []
    assert refused(Request(**{**vars(REQUEST), "partition": "short,cpu", "gpus": 2, "time": "9-0"})) == []


def test_accounts_and_qos_that_a_user_does_not_have_are_refused_with_those_there_are(command):
    command("sinfo", TABLE)
    command("sacctmgr", "vision|normal,long\nspeech|normal\n")
    found = refused(Request(**{**vars(REQUEST), "account": "visoin", "qos": "urgent"}))
    assert [fault.where for fault in found] == ["profile.account", "profile.qos"]
    assert "Did you mean 'vision'? Valid: speech, vision." in str(found[0])
    assert "Valid: long, normal." in str(found[1])
    assert refused(Request(**{**vars(REQUEST), "account": "speech", "qos": "long"})) == []


def test_without_accounting_the_names_are_left_to_sbatch(command):
    command("sinfo", TABLE)
    command("sacctmgr", complains="You are not running a supported accounting_storage plugin")
    assert refused(Request(**{**vars(REQUEST), "account": "vision"})) == []


def test_sbatch_has_the_last_word_and_its_own_words_are_passed_on(command):
    command("sbatch", complains="sbatch: error: Batch job submission failed: Invalid feature specification\n")
    (fault,) = refused_script("#!/bin/bash\n")
    assert str(fault) == "sbatch: it refuses the job: Batch job submission failed: Invalid feature specification."


def test_a_machine_without_slurm_is_no_login_node(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"there is no sinfo here\. Launch from a login node of the cluster"):
        refused(REQUEST)


def test_a_controller_that_cannot_be_reached_is_a_failure_of_the_cluster(command):
    command("sinfo", complains="slurm_load_partitions: Unable to contact slurm controller (connect failure)\n")
    with pytest.raises(ClusterError, match="sinfo says: slurm_load_partitions: Unable to contact slurm controller"):
        refused(REQUEST)


def test_folders_that_every_node_has_to_itself_are_refused(tmp_path, monkeypatch):
    found = node_local({"study file": Path("/dev/shm/x"), "storage.path": Path("/scratch/runs")}, temp="/scratch")
    assert [fault.where for fault in found] == ["study file", "storage.path"]
    assert "/dev/shm/x lies in /dev/shm, which every node has to itself" in str(found[0])
    assert node_local({"study file": Path("/home/me"), "storage.path": Path("/tmpfiles")}, temp="/scratch") == []
    monkeypatch.setattr(slurm_site, "_is_network", lambda folder: True)
    assert node_local({"study file": Path("/tmp/mounted")}, temp="/scratch") == []
