"""Managed jobs of SkyPilot: the job's file, and what runs on its nodes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lrstudy.errors import InputError
from lrstudy_cluster import launching, skypilot
from lrstudy_cluster import profile as profiles
from lrstudy_cluster.target import Launch
from ssh_hosts import missing, ssh_hosts

INSTALL = "install=['pip install lrstudy']"
# The fields that SkyPilot 0.14 knows, of those that a job may have here; each was read by its own loader.
TASK = {"name", "num_nodes", "workdir", "resources", "secrets", "file_mounts", "setup", "run"}
RESOURCES = {
    "infra": str,
    "accelerators": str,
    "cpus": str,
    "memory": str,
    "disk_size": int,
    "image_id": str,
    "use_spot": bool,
    "max_hourly_cost": float,
    "job_recovery": dict,
}


@pytest.fixture
def launch(prepare):
    """A launch on a bucket, with options."""

    def made(*options: str, **resources: float) -> Launch:
        base = prepare("local")
        storage = base.launch.study.storage.model_copy(update={"path": "s3://studies/runs"})
        needed = base.launch.study.resources.model_copy(update=resources)
        study = base.launch.study.model_copy(update={"storage": storage, "resources": needed})
        profile = profiles.read(skypilot.TARGETS["skypilot"], None, options)
        return Launch(base.launch.path, study, (), profile)

    return made


def rendered(launch: Launch) -> dict[str, str | bytes]:
    target = skypilot.TARGETS["skypilot"]
    assert target.check(launch) == []
    return dict(target.render(launch))


def job(launch: Launch) -> dict:
    return YAML(typ="safe", pure=True).load(rendered(launch)["job.yaml"])


@pytest.mark.parametrize(
    "options",
    [
        ("accelerators=A100:1", INSTALL),
        ("accelerators=L4:4", "num_nodes=2", "image=registry.example/lrstudy:1", "infra=gcp/us-central1"),
        ("spot=false", INSTALL, "uploads={~/x.whl: /etc/hostname}", "max_hourly_cost=4.5"),
    ],
)
def test_a_job_has_only_fields_that_skypilot_knows(launch, options):
    found = job(launch(*options))
    assert found.keys() <= TASK
    for field, value in found["resources"].items():
        assert isinstance(value, RESOURCES[field]), field
    assert found["resources"]["job_recovery"] == {"strategy": "EAGER_NEXT_REGION", "max_restarts_on_errors": 2}
    assert found["run"] == "bash node.sh"
    assert found["workdir"] == "study"


def test_the_token_is_a_secret_without_a_value_in_any_file(launch):
    files = rendered(launch("accelerators=A100", INSTALL))
    assert job(launch("accelerators=A100", INSTALL))["secrets"] == {"RAY_AUTH_TOKEN": None}
    assert "--secret RAY_AUTH_TOKEN job.yaml" in str(files["launch.sh"])
    assert "export RAY_AUTH_MODE=token" in str(files["study/node.sh"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("accelerators=A100",), "--slots 1 resources.gpu=1"),
        (("accelerators=L4:4", "num_nodes=2"), "--slots 8 resources.gpu=1"),
        ((), "--slots 8 resources.gpu=0"),
    ],
)
def test_the_driver_asks_for_what_all_nodes_have(launch, options, expected):
    assert rendered(launch(INSTALL, *options))["study/driver.sh"].decode().rstrip().endswith(expected)


def test_nodes_that_come_and_go_need_a_bucket(refusal):
    said = refusal("skypilot", INSTALL)
    assert "storage.path: expected a bucket (s3://... or gs://...); got /mnt/lrstudy/runs. Nodes come and go" in said


def test_nodes_without_lrstudy_are_refused(refusal):
    assert "profile.install: nothing installs lrstudy on the nodes" in refusal("skypilot")


def test_gpus_that_nobody_asked_skypilot_for_are_missed(launch):
    (fault,) = skypilot.TARGETS["skypilot"].check(launch(INSTALL, gpu=0.5))
    assert "asks for GPUs (0.5 per trial), and the profile's nodes have none" in str(fault)


def test_without_skypilot_it_says_so(launch, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    asked = launch(INSTALL)
    prepared = launching.Prepared(skypilot.TARGETS["skypilot"], asked, rendered(asked))
    with pytest.raises(InputError, match="SkyPilot's command sky is not on the PATH"):
        launching.submit(prepared, tmp_path)


# What the driver does instead of a study: runs a task on each of the two nodes.
WORK = """
import ray, socket, time
ray.init(address="auto", logging_level="ERROR")
where = ray.remote(num_cpus=0, scheduling_strategy="SPREAD")(lambda: (time.sleep(1), socket.gethostname())[1])
names = set()
while len(names) < 2:
    names |= set(ray.get([where.remote() for _ in range(4)]))
print("ran on", *sorted(names))
"""


@pytest.mark.long
@pytest.mark.skipif(bool(missing()), reason=f"needs {missing()}")
def test_the_nodes_of_a_job_become_one_cluster_and_end_with_its_driver(launch, tmp_path):
    """As SkyPilot does it: the same command on every node, with the same secret, its rank, and all addresses."""
    (tmp_path / "work.py").write_text(WORK)
    setup = [
        f"export PATH={Path(sys.executable).parent}:$PATH PYTHONPATH={os.environ.get('PYTHONPATH', '')}",
        f"case $0 in *driver.sh) python {tmp_path / 'work.py'}; exit 7;; esac",
    ]
    asked = launch("num_nodes=2", INSTALL, f"setup={json.dumps(setup)}")
    out = tmp_path / "out"
    launching.write(launching.Prepared(skypilot.TARGETS["skypilot"], asked, rendered(asked)), out)
    with ssh_hosts(tmp_path) as hosts:
        addresses = "\\n".join(hosts.addresses)
        nodes = []
        for rank, address in reversed(list(enumerate(hosts.addresses))):  # workers may come first
            variables = f"RAY_AUTH_TOKEN=f00d SKYPILOT_NODE_RANK={rank} SKYPILOT_NODE_IPS=$'{addresses}'"
            nodes.append(hosts.start(address, f"{variables} bash {out}/study/node.sh"))
        worker, head = nodes
        said, _ = head.communicate(timeout=180)
        assert "ran on host1 host2" in said, said
        assert head.returncode == 7
        assert worker.wait(60) == 0
        for address in hosts.addresses:
            assert "raylet" not in hosts.ssh(address, "ps -eo args")
