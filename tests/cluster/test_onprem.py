"""Given hosts over ssh: the cluster's file, and a real `ray up` on two of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lrstudy_cluster import launching, ray_up
from ssh_hosts import missing, ssh_hosts

ROOT = Path(__file__).parents[2]
HOSTS = "hosts=[10.0.0.1, 10.0.0.2, 10.0.0.3]"
SHARED = "shared_folder=/mnt/lrstudy"


def cluster(prepared) -> dict:
    return YAML(typ="safe", pure=True).load(prepared.files["cluster.yaml"])


@pytest.mark.parametrize("options", [(), ("ssh_user=lab", "port=6400", "slots=8")])
def test_all_hosts_are_always_there_and_ray_takes_the_file(prepare, options):
    prepared = prepare("onprem", HOSTS, SHARED, *options)  # which asks Ray's own validator
    found = cluster(prepared)
    assert found["provider"] == {"type": "local", "head_ip": "10.0.0.1", "worker_ips": ["10.0.0.2", "10.0.0.3"]}
    assert found["min_workers"] == found["max_workers"] == 2


def test_nothing_ends_another_ray_of_a_host(prepare):
    prepared = prepare("onprem", HOSTS, SHARED)
    assert "ray stop" not in "".join(str(content) for content in prepared.files.values())
    starts = cluster(prepared)["head_start_ray_commands"] + cluster(prepared)["worker_start_ray_commands"]
    assert starts == ["bash ~/lrstudy/tiny/node.sh head", "bash ~/lrstudy/tiny/node.sh worker"]


def test_a_cluster_of_given_hosts_needs_the_older_autoscaler(prepare):
    assert "export RAY_UP_enable_autoscaler_v2=0\n" in prepare("onprem", HOSTS, SHARED).files["up.sh"]


def test_a_key_in_a_home_folder_is_found_by_the_scripts_too(prepare, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "key").touch()
    files = prepare("onprem", HOSTS, SHARED, "ssh_key=~/key").files
    assert f"-i {tmp_path}/key " in files["down.sh"]
    assert f'ssh_private_key: "{tmp_path}/key"' in files["cluster.yaml"]


def test_a_file_that_ray_would_not_take_is_refused_with_its_words(prepare):
    text = str(prepare("onprem", HOSTS, SHARED).files["cluster.yaml"])
    (fault,) = ray_up.faults(text.replace("setup_commands", "setup_comands"))
    assert "cluster.yaml: Ray does not take it: Additional properties are not allowed ('setup_comands'" in str(fault)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((SHARED,), "profile.hosts: this key is required; expected a list of IPv4 addresses, the head first"),
        ((SHARED, "hosts=[gpu1]"), "profile.hosts"),
        ((SHARED, "hosts=[10.0.0.1, 10.0.0.1]"), "profile.hosts: expected each host once"),
        ((HOSTS,), "For a folder that all hosts share: --set shared_folder=FOLDER"),
        ((HOSTS, SHARED, "ssh_key=/nonesuch"), "profile.ssh_key: there is no file /nonesuch"),
        ((HOSTS, SHARED, "uploads={~/a.whl: /nonesuch}"), "profile.uploads.~/a.whl: there is no file /nonesuch"),
    ],
)
def test_what_would_fail_there_is_said_here(refusal, options, says):
    assert says in refusal("onprem", *options)


# What the driver does instead of a study: waits for both hosts, then runs a task on each.
WORK = """
import ray, socket, time
ray.init(address="auto", logging_level="ERROR")
while sum(node["Alive"] for node in ray.nodes()) < 2:
    time.sleep(0.2)
where = ray.remote(num_cpus=0, scheduling_strategy="SPREAD")(lambda: (time.sleep(1), socket.gethostname())[1])
names = set()
while len(names) < 2:
    names |= set(ray.get([where.remote() for _ in range(4)]))
print("ran on", *sorted(names))
"""


@pytest.mark.long
@pytest.mark.skipif(bool(missing()), reason=f"needs {missing()}")
def test_ray_up_over_ssh_runs_a_study_on_all_hosts_and_ends_nothing_but_its_own(prepare, tmp_path):
    work = tmp_path / "work.py"
    work.write_text(WORK)
    name, out = f"tiny-{os.getpid()}", tmp_path / "out"
    with _notes_removed(name), ssh_hosts(tmp_path) as hosts:
        path = f"export PATH={Path(sys.executable).parent}:$PATH PYTHONPATH={os.environ.get('PYTHONPATH', '')}"
        instead = f"case $0 in *driver.sh) python {work}; exit;; esac"
        overrides = [f"name={name}", f"storage.path={tmp_path / 'runs'}"]
        # The second time Ray runs there and is left alone, and the job that has ended makes room.
        for setup, says in ([path, instead], "ran on host1 host2"), ([path], "Report: "):
            options = [f"hosts={json.dumps(hosts.addresses)}", f"ssh_key={hosts.key}", f"setup={json.dumps(setup)}"]
            options += ["ssh_user=root", f"shared_folder={tmp_path}"]
            prepared = prepare("onprem", *options, overrides=overrides)
            launching.write(prepared, out)
            _run([*hosts.inside, "bash", str(out / "up.sh")])
            said = _run([*hosts.inside, "bash", "-c", _follow(prepared, out)])
            assert says in said, said
        assert (tmp_path / "runs" / name / "report" / "index.html").exists()
        assert (out / "token").stat().st_mode & 0o777 == 0o600
        assert (hosts.home / "lrstudy" / name / "token").stat().st_mode & 0o777 == 0o600
        refused = f"RAY_AUTH_MODE=disabled {sys.executable} -c \"import ray; ray.init('10.77.0.1:6379')\""
        with pytest.raises(subprocess.CalledProcessError):
            hosts.ssh(hosts.addresses[1], refused)
        listening = hosts.ssh(hosts.addresses[0], "cat /proc/net/tcp")
        assert f"0100007F:{8265:04X}" in listening  # the dashboard, on 127.0.0.1 alone
        assert f"00000000:{8265:04X}" not in listening
        hosts.ssh(hosts.addresses[1], "setsid sleep 1234 >/dev/null 2>&1 </dev/null & exit")
        _run([*hosts.inside, "bash", str(out / "down.sh")])
        for address in hosts.addresses:
            _wait_until_gone(hosts, address)
        assert "sleep 1234" in hosts.ssh(hosts.addresses[1], "ps -eo args")


@contextmanager
def _notes_removed(name: str) -> Iterator[None]:
    """Remove what `ray up` notes on the machine that it runs on."""
    try:
        yield
    finally:
        for left in Path("/tmp/ray").glob(f"cluster-lrstudy-{name}.*"):
            left.unlink()


def _follow(prepared, out: Path) -> str:
    return ray_up.follow(prepared.launch, out)


def _run(command: list[str]) -> str:
    """What a command prints."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def _wait_until_gone(hosts, address: str) -> None:
    deadline = time.monotonic() + 60
    while any(name in hosts.ssh(address, "ps -eo args") for name in ("raylet", "gcs_server")):
        assert time.monotonic() < deadline, hosts.ssh(address, "ps -eo args")
        time.sleep(0.5)
