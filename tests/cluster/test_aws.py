"""A cluster on AWS: checked by Ray's validator and by the request that AWS would get."""

from __future__ import annotations

import http.server
import importlib.util
import subprocess
import threading
from collections.abc import Iterator

import pytest
from ruamel.yaml import YAML

from lrstudy.errors import InputError
from lrstudy_cluster import aws, launching, ray_up

needs_botocore = pytest.mark.skipif(importlib.util.find_spec("botocore") is None, reason="needs botocore")
BASE = ("region=eu-central-1", "ami=ami-0123456789abcdef0", "instance_type=g5.2xlarge", "shared_folder=/mnt/lrstudy")
PROFILES = {
    "default": BASE,
    "large": (
        *BASE,
        "gpus=8",
        "cpus=96",
        "workers_max=16",
        "zones=[eu-central-1a, eu-central-1b]",
        "worker_role=trials",
    ),
    "on demand": (*BASE, "spot=false", "workers_min=1", "head_role=head", "ssh_user=ec2-user", "root_device=/dev/xvda"),
    "installed": (*BASE, "install=['pip install x']", "setup=['source ~/env/bin/activate']"),
}


def cluster(prepared) -> dict:
    return YAML(typ="safe", pure=True).load(prepared.files["cluster.yaml"])


@needs_botocore
@pytest.mark.parametrize("options", PROFILES.values(), ids=PROFILES)
def test_ray_and_aws_take_the_file(prepare, options):
    text = prepare("aws", *options).files["cluster.yaml"]
    assert ray_up.faults(text) == []
    assert aws._shape_faults(text) == []


@needs_botocore
@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "InstanceMarketOptions",
            "InstanceMarketOption",
            "worker.node_config: AWS does not take it: Unknown parameter",
        ),
        ("VolumeSize: 150", 'VolumeSize: "150"', "Invalid type for parameter BlockDeviceMappings[0].Ebs.VolumeSize"),
        ("{MarketType: spot}", "{Type: spot}", 'Unknown parameter in InstanceMarketOptions: "Type"'),
    ],
)
def test_what_ray_passes_on_unread_is_read(prepare, old, new, says):
    text = prepare("aws", *BASE).files["cluster.yaml"]
    assert old in text
    assert ray_up.faults(text.replace(old, new)) == []
    (fault,) = aws._shape_faults(text.replace(old, new))
    assert says in str(fault)


def test_more_workers_of_a_type_than_the_cluster_may_have_are_refused(prepare):
    text = prepare("aws", *BASE).files["cluster.yaml"].replace("\nmax_workers: 4", "\nmax_workers: 3")
    (fault,) = ray_up.faults(text)
    assert str(fault) == "cluster.yaml: worker.max_workers: expected at most that of the cluster, 3; got 4."


def test_workers_are_spot_and_the_head_is_not(prepare):
    types = cluster(prepare("aws", *BASE))["available_node_types"]
    assert types["worker"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in types["head"]["node_config"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["worker"]["resources"] == {"CPU": 8, "GPU": 1}


def test_the_token_travels_as_a_closed_file_and_the_head_runs_no_trial(prepare):
    prepared = prepare("aws", *BASE)
    assert cluster(prepared)["file_mounts"]["~/lrstudy/tiny/token"] == "token"
    assert "umask 077" in prepared.files["up.sh"]
    node = prepared.files["node.sh"]
    assert "export RAY_AUTH_MODE=token" in node
    assert "--dashboard-host=127.0.0.1" in node
    assert "--num-cpus=0 --num-gpus=0" in node
    assert "ray stop" not in node


def test_the_driver_is_told_how_large_the_cluster_may_become(prepare):
    driver = prepare("aws", *PROFILES["large"], overrides=["resources.gpu=0.5"]).files["study/driver.sh"].decode()
    assert driver.rstrip().endswith("--slots 256 resources.gpu=0.5")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (BASE[:2], "profile.instance_type"),
        (("ami=x", *BASE[2:], BASE[0]), "profile.ami: expected an image with NVIDIA's driver"),
        (BASE[:3], "For a folder that `install` mounts on every node, such as EFS: --set shared_folder=FOLDER"),
        ((*BASE, "workers_min=9"), "profile.workers_min: expected at most workers_max (4); got 9"),
        ((*BASE, "ssh_key=/nonesuch"), "profile.ssh_key: there is no file /nonesuch"),
    ],
)
def test_what_would_fail_there_is_said_here(refusal, options, says):
    assert says in refusal("aws", *options)


def test_a_study_for_gpus_is_not_sent_to_nodes_without(refusal):
    assert "the profile's nodes have none" in refusal("aws", *BASE, "gpus=0", overrides=["resources.gpu=auto"])


def test_a_bucket_needs_a_role_since_keys_do_not_travel(prepare):
    launch = prepare("aws", *BASE).launch
    storage = launch.study.storage.model_copy(update={"path": "s3://studies/runs"})
    study = launch.study.model_copy(update={"storage": storage})
    launch = type(launch)(launch.path, study, launch.overrides, launch.profile)
    (fault,) = aws._check(launch)
    assert str(fault).startswith("profile.worker_role: expected an IAM instance profile that may read and write")


def test_without_credentials_nothing_is_started(prepare, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match=r"aws: (there are no credentials|`ray up` needs boto3)"):
        launching.submit(prepare("aws", *BASE), tmp_path)


class Metadata(http.server.BaseHTTPRequestHandler):
    """The metadata service of an instance that is to be taken back from the second question on."""

    questions = 0

    def do_PUT(self) -> None:
        self._answer(200, b"session")

    def do_GET(self) -> None:
        type(self).questions += self.headers["X-aws-ec2-metadata-token"] == "session"
        self._answer(404 if self.questions < 2 else 200, b'{"action": "terminate"}')

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def metadata() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.slow
def test_a_node_that_is_to_be_taken_back_is_drained(prepare, metadata, tmp_path):
    script = tmp_path / "spot.sh"
    script.write_text(str(prepare("aws", *BASE).files["spot.sh"]))
    ray = subprocess.Popen(["sleep", "1000"])
    try:
        environment = {"PATH": "/usr/bin:/bin", "LRSTUDY_METADATA": metadata}
        subprocess.run(["bash", script, str(ray.pid)], env=environment, check=True, timeout=60)
        assert ray.wait(10) == -15
        assert Metadata.questions == 2
    finally:
        ray.kill()
        ray.wait()
