"""RayJobs: rendered for several profiles, and checked against the operator's schema and rules."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from lrstudy_cluster import kuberay_rules

SCHEMA = Path(__file__).parents[3] / "shared" / "cluster" / "rayjob_crd.json"
BASE = ("image=registry.example/lrstudy:1", "volume=runs")
PROFILES = {
    "default": BASE,
    "spot on gke": (*BASE, "spot=gke", "gpus=4", "cpus=32", "workers_max=10", "node_selector={gpu: a100}"),
    "cpus": (*BASE, "gpus=0", "workers_min=1", "tolerations=[{key: batch, operator: Exists}]"),
    "weekly": (*BASE, "schedule='0 3 * * 1'", "time_zone=Europe/Berlin"),
}


def documents(prepared) -> list[dict]:
    return [found for found in YAML(typ="safe", pure=True).load_all(prepared.files["rayjob.yaml"]) if found]


def rayjob(prepared) -> dict:
    """The RayJob of a launch, also if a schedule makes it."""
    _, job = documents(prepared)
    if job["kind"] == "RayCronJob":
        return {**job, "kind": "RayJob", "spec": job["spec"]["jobTemplate"]}
    return job


def driver(prepared) -> str:
    configmap, _ = documents(prepared)
    return next(text for key, text in configmap["data"].items() if key.endswith("driver.sh"))


@pytest.mark.parametrize("options", PROFILES.values(), ids=PROFILES)
def test_a_rayjob_fits_the_operators_schema_and_rules(prepare, options):
    prepared = prepare("kuberay", *options)
    jsonschema.Draft7Validator(json.loads(SCHEMA.read_text())).validate(rayjob(prepared))
    assert kuberay_rules.faults(prepared.files["rayjob.yaml"]) == []


def test_with_a_bucket_there_is_no_volume_but_an_account(prepare):
    prepared = prepare("kuberay", "image=x", "service_account=trials", overrides=["storage.path=s3://studies/runs"])
    jsonschema.Draft7Validator(json.loads(SCHEMA.read_text())).validate(rayjob(prepared))
    cluster = rayjob(prepared)["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["serviceAccountName"] == "trials"
        assert {volume["name"] for volume in pod["volumes"]} == {"shm", "study"}
    assert "storage.path=s3://studies/runs" in driver(prepared)


@pytest.mark.parametrize(
    "broken",
    [
        {"backoffLimit": "2"},
        {"entrypont": "x"},
        {"activeDeadlineSeconds": 1.5},
    ],
)
def test_the_schema_refuses_what_is_misspelt(prepare, broken):
    job = rayjob(prepare("kuberay", *BASE))
    job["spec"] |= broken
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(json.loads(SCHEMA.read_text())).validate(job)


def test_it_is_closed_drains_and_ends_by_itself(prepare):
    prepared = prepare("kuberay", *BASE, overrides=["limits.wall=2h"])
    spec = rayjob(prepared)["spec"]
    cluster = spec["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["autoscalerOptions"]["version"] == "v2"
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["activeDeadlineSeconds"] == 3 * 3600
    head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert "serviceType" not in head
    assert "enableIngress" not in head
    for group in (head, workers):
        (container,) = group["template"]["spec"]["containers"]
        environment = {variable["name"]: variable["value"] for variable in container["env"]}
        assert environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] == "20"
        assert environment["RAY_health_check_period_ms"] == "2000"
        assert not any("TOKEN" in name or "KEY" in name for name in environment)
    assert workers["template"]["spec"]["terminationGracePeriodSeconds"] == 60
    assert "enableK8sTokenAuth" not in prepared.files["rayjob.yaml"]


def test_only_workers_have_gpus_and_trials(prepare):
    cluster = rayjob(prepare("kuberay", *BASE, "gpus=2"))["spec"]["rayClusterSpec"]
    head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in head["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert workers["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in workers["template"]["spec"][
        "tolerations"
    ]


def test_head_and_workers_share_the_volume(prepare):
    cluster = rayjob(prepare("kuberay", *BASE))["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert {"name": "shared", "persistentVolumeClaim": {"claimName": "runs"}} in pod["volumes"]
        assert {"name": "shared", "mountPath": "/mnt/lrstudy"} in pod["containers"][0]["volumeMounts"]


@pytest.mark.parametrize(
    ("options", "overrides", "expected"),
    [
        ((), [], "--slots 4 resources.gpu=1"),
        (("gpus=4", "cpus=32", "workers_max=3"), ["resources.gpu=0.5"], "--slots 24 resources.gpu=0.5"),
        (("gpus=4", "cpus=6"), ["resources.gpu=0.5"], "--slots 24 resources.gpu=0.5"),
        (("gpus=2",), ["resources.gpu=auto", "resources.cpu=2"], "--slots 16 resources.gpu=auto resources.cpu=2"),
        (("gpus=0", "cpus=8"), ["resources.cpu=2"], "--slots 16 resources.cpu=2 resources.gpu=0"),
    ],
)
def test_the_driver_asks_for_as_many_trials_as_the_largest_cluster_takes(prepare, options, overrides, expected):
    text = driver(prepare("kuberay", *BASE, *options, overrides=overrides))
    assert text.rstrip().endswith(f"exec lrstudy run study.yaml --address auto {expected}")


def test_code_lies_beside_the_study_file_in_every_pod(prepare, with_code):
    prepared = prepare("kuberay", *BASE, study=with_code)
    configmap, job = documents(prepared)
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        mounted = {
            mount["mountPath"]: configmap["data"][mount["subPath"]]
            for mount in group["template"]["spec"]["containers"][0]["volumeMounts"]
            if mount["name"] == "study"
        }
        assert mounted["/opt/lrstudy-study/mine.py"] == (with_code.parent / "mine.py").read_text()
        assert mounted["/opt/lrstudy-study/helpers.py"] == (with_code.parent / "helpers.py").read_text()
        assert mounted["/opt/lrstudy-study/study.yaml"] == with_code.read_text()
    assert job["spec"]["entrypoint"] == "bash /opt/lrstudy-study/driver.sh"


def test_files_that_are_no_text_travel_too(prepare, with_code):
    (with_code.parent / "weights.bin").write_bytes(bytes(range(256)))
    (with_code.parent / "model.py").write_text("def build(): ...\n")
    study = with_code.read_text().replace("subset: 300", "subset: 300, model: ./model.py:build, files: [weights.bin]")
    with_code.write_text(study)
    configmap, _ = documents(prepare("kuberay", *BASE, study=with_code))
    (content,) = configmap["binaryData"].values()
    assert base64.b64decode(content) == bytes(range(256))


def test_a_schedule_starts_a_study_of_its_own_each_time(prepare):
    prepared = prepare("kuberay", *PROFILES["weekly"])
    _, cron = documents(prepared)
    assert (cron["kind"], cron["spec"]["schedule"], cron["spec"]["timeZone"]) == (
        "RayCronJob",
        "0 3 * * 1",
        "Europe/Berlin",
    )
    assert driver(prepared).rstrip().endswith('"name=tiny-$(date +%Y-%m-%d)"')


def test_a_study_in_capitals_gets_a_name_that_kubernetes_takes(prepare):
    assert rayjob(prepare("kuberay", *BASE, overrides=["name=Skin_v2.1"]))["metadata"]["name"] == "skin-v2-1"


@pytest.mark.parametrize(
    ("options", "overrides", "says"),
    [
        (
            BASE,
            [f"name={'a' * 48}"],
            "for a RayJob at most 47 small letters, digits and '-', beginning with a letter; got aaaa",
        ),
        (
            BASE,
            ["name=3d"],
            r"beginning with a letter; got 3d (2 characters). Give another with --set job_name=NAME",
        ),
        ((*BASE, "schedule='@weekly'"), [f"name={'a' * 37}"], "for a RayCronJob at most 36"),
        ((*BASE, "schedule=monday"), [], "profile.schedule: expected five fields as of cron"),
        (
            ("image=x",),
            [],
            "storage.path: expected a bucket (s3://... or gs://...); got /mnt/lrstudy/runs. For a volume: --set volume=CLAIM",
        ),
        (
            BASE,
            ["storage.path=/home/me"],
            "expected a bucket (s3://... or gs://...) or a folder below /mnt/lrstudy, which all nodes share",
        ),
        (
            (*BASE, "gpus=0"),
            ["resources.gpu=0.5"],
            "resources.gpu: the study asks for GPUs (0.5 per trial), and the profile's nodes have none",
        ),
        (
            (*BASE, "cpus=4"),
            ["resources.cpu=8"],
            "resources.cpu: the study asks for 8 CPU cores per trial, and a node has 4",
        ),
        (("volume=runs",), [], "profile.image"),
        ((*BASE, "workers_min=5"), [], "profile.workers_min: expected at most workers_max (4); got 5"),
        ((*BASE, "shm_gb=64"), [], "profile.shm_gb: expected at most memory_gb (32)"),
        ((*BASE, "time_zone=UTC"), [], "profile.time_zone: it is that of a schedule"),
    ],
)
def test_what_kubernetes_would_choke_on_is_said_first(refusal, options, overrides, says):
    assert says in refusal("kuberay", *options, overrides=overrides)


def test_data_and_code_that_stay_behind_are_refused_together(refusal, tiny, tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "model.py").write_text("def build(): ...\n")
    (tmp_path / "near").mkdir()
    study = tmp_path / "near" / "tiny.yaml"
    study.write_text(tiny.read_text().replace("digits", "folder:images, model: ../far/model.py:build"))
    said = refusal("kuberay", *BASE, study=study)
    assert "workload.data: expected the absolute path of the data as the cluster's nodes see it" in said
    assert f"workload.model: expected code and files below {tmp_path}/near, the folder of the study file" in said


def test_code_named_on_the_command_line_is_named_as_it_lies_there(prepare, with_code, monkeypatch):
    monkeypatch.chdir(with_code.parent)
    prepared = prepare("kuberay", *BASE, study=with_code, overrides=["arms.mine.policy=./mine.py:knee"])
    assert """'arms.mine.policy="./mine.py:knee"'""" in driver(prepared)
    assert str(with_code.parent) not in prepared.files["rayjob.yaml"]


def test_other_paths_below_the_study_stay_as_they_are(prepare, with_code):
    """A shared folder that has the study file in it is where it is, though `./mine.py` travels."""
    here = with_code.parent
    overrides = [
        f"storage.path={here}/runs",
        f"workload.data=folder:{here}/data",
        f"arms.mine.policy={here}/mine.py:knee",
    ]
    text = driver(prepare("kuberay", *BASE, f"shared_folder={here}", study=with_code, overrides=overrides))
    assert f"storage.path={here}/runs workload.data=folder:{here}/data arms.mine.policy=./mine.py:knee" in text


def test_a_study_too_large_for_a_configmap_is_refused(refusal, with_code):
    (with_code.parent / "big.bin").write_bytes(bytes(range(256)) * 4096)
    (with_code.parent / "model.py").write_text("def build(): ...\n")
    study = with_code.read_text().replace("subset: 300", "subset: 300, model: ./model.py:build, files: [big.bin]")
    with_code.write_text(study)
    assert "KiB, and a ConfigMap has room for 900. Put large files into the image." in refusal(
        "kuberay", *BASE, study=with_code
    )


def test_the_operators_rules_are_known(prepare):
    """What an edited template may break; the operator would accept it and then fail."""
    text = prepare("kuberay", *BASE).files["rayjob.yaml"]
    for old, new, says in [
        ('rayVersion: "2.', 'rayVersion: "1.', "rayVersion: expected 2.52.0 or later"),
        ("restartPolicy: Never", "restartPolicy: Always", "workers.restartPolicy: expected Never"),
        ("authOptions: {mode: token}", "authOptions: {mode: disabled}", "authOptions.mode: expected token"),
        ("mode: token}", "mode: token, enableK8sTokenAuth: true}", "enableK8sTokenAuth: a RayJob does not support it"),
        ("submissionMode: K8sJobMode", "submissionMode: InteractiveMode", "spec.backoffLimit: it excludes"),
        ('num-cpus: "0"', "num-cpus: 0", "head.rayStartParams: expected texts"),
        ("minReplicas: 0", "minReplicas: 9", "workers.minReplicas: expected at least 0 and at most maxReplicas"),
        (
            "activeDeadlineSeconds: ",
            "activeDeadlineSeconds: -",
            "spec.activeDeadlineSeconds: expected a whole number above 0",
        ),
        (
            "    entrypoint",
            "    runtimeEnvYAML: {pip: []}\n    entrypoint",
            "spec.runtimeEnvYAML: expected YAML in a text",
        ),
    ]:
        assert old in text
        (fault,) = kuberay_rules.faults(text.replace(old, new))
        assert says in str(fault)


def test_the_policy_of_a_stage_travels(prepare, with_code):
    staged = "staged: {stages: [{train: head, epochs: 50%, policy: ./mine.py:knee}, {train: all, policy: constant}]}"
    with_code.write_text(with_code.read_text().replace("mine: {policy: ./mine.py:knee}", staged))
    configmap, _ = documents(prepare("kuberay", *BASE, study=with_code, overrides=["budget.epochs=4"]))
    assert (with_code.parent / "mine.py").read_text() in configmap["data"].values()


def test_a_file_of_weights_does_not_travel(prepare, refusal, tiny):
    (tiny.parent / "w.safetensors").write_bytes(b"")
    for here in ("w.safetensors", str(tiny.parent / "w.safetensors")):
        said = refusal("kuberay", *BASE, study=tiny, overrides=[f"workload.weights={here}"])
        assert "workload.weights: expected the absolute path of the file as the cluster's nodes see it" in said
    for there in ("/mnt/lrstudy/w.safetensors", "imagenet", "run:base/constant"):
        assert there in driver(
            prepare("kuberay", *BASE, study=tiny, overrides=[f"workload.weights={there}", "workload.model=resnet18"])
        )
