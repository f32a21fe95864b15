"""Launches on a Ray cluster that is there already: what is uploaded, and what is asked before."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lrstudy.errors import ClusterError, InputError
from lrstudy_cluster import job, launching
from lrstudy_cluster.launching import Submission
from ray_head import Head, ray_head

SHARED = "shared_folder=/mnt/lrstudy"


@pytest.fixture
def token(tmp_path: Path) -> str:
    file = tmp_path / "a token"
    file.touch(0o600)
    file.write_text("f00d")
    return f"token_file={file}"


def test_only_the_study_and_its_code_are_uploaded(prepare, with_code, token, tmp_path):
    (with_code.parent / "secret.env").write_text("KEY=1")
    prepared = prepare("job", SHARED, token, "slots=6", study=with_code)
    launching.write(prepared, tmp_path / "out")
    uploaded = tmp_path / "out" / "study"
    assert sorted(path.name for path in uploaded.iterdir()) == ["driver.sh", "helpers.py", "mine.py", "study.yaml"]
    assert (uploaded / "mine.py").read_text() == (with_code.parent / "mine.py").read_text()
    assert (uploaded / "driver.sh").read_text().rstrip().endswith("lrstudy run study.yaml --address auto --slots 6")


def test_the_token_stands_in_no_file_of_the_launch(prepare, token):
    prepared = prepare("job", SHARED, token)
    assert not any("f00d" in str(content) for content in prepared.files.values())
    assert "export RAY_AUTH_MODE=token\n" in prepared.files["submit.sh"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            (),
            "storage.path: expected a bucket (s3://... or gs://...); got /mnt/lrstudy/runs. For a folder that all nodes share: --set shared_folder=FOLDER",
        ),
        (
            (SHARED, "address=http://head.example:8265"),
            "the token would cross the network in clear text; got http://head.example:8265. Make a tunnel: ssh -N -L 8265:127.0.0.1:8265 head.example",
        ),
        ((SHARED, "address=head:8265"), "profile.address: expected its dashboard, such as http://127.0.0.1:8265"),
        ((SHARED, "token_file=/nonesuch"), "profile.token_file: there is no file /nonesuch, so there is no token"),
    ],
)
def test_what_would_fail_there_is_said_here(refusal, token, options, says):
    assert says in refusal("job", token, *options)


def test_a_token_that_others_can_read_is_refused(refusal, token, tmp_path):
    (tmp_path / "a token").chmod(0o644)
    assert "can be read by others; make a new token. Then: chmod 600" in refusal("job", SHARED, token)


def test_an_empty_token_is_refused(refusal, token, tmp_path):
    (tmp_path / "a token").write_text("\n")
    assert "a token is empty" in refusal("job", SHARED, token)


def test_the_upload_is_measured_before_it_is_sent(refusal, with_code, token, monkeypatch):
    monkeypatch.setattr(job, "_MOST_BYTES", 2**20)
    with (with_code.parent / "big.bin").open("wb") as file:
        file.truncate(2**21)
    (with_code.parent / "model.py").write_text("def build(): ...\n")
    study = with_code.read_text().replace("subset: 300", "subset: 300, model: ./model.py:build, files: [big.bin]")
    with_code.write_text(study)
    assert "it takes 2 MiB, and Ray uploads at most 100" in refusal("job", SHARED, token, study=with_code)


def test_a_cluster_that_is_away_is_said_so(prepare, token, tmp_path):
    prepared = prepare("job", SHARED, token, "address=http://127.0.0.1:1")
    with pytest.raises(ClusterError, match=r"no Ray cluster that answers at http://127\.0\.0\.1:1: .*refused"):
        launching.submit(prepared, tmp_path)


@pytest.mark.long
class TestOnARealCluster:
    @pytest.fixture(scope="class")
    def head(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
        with ray_head(tmp_path_factory.mktemp("head")) as head:
            yield head

    @staticmethod
    def submit(prepared, folder: Path) -> Submission:
        launching.write(prepared, folder)
        return launching.submit(prepared, folder)

    def test_a_wrong_token_is_refused_before_the_upload(self, prepare, head, token, tmp_path):
        prepared = prepare("job", SHARED, token, f"address={head.address}")
        with pytest.raises(InputError, match="does not take the token in"):
            self.submit(prepared, tmp_path / "out")

    def test_a_job_runs_once_at_a_time_and_again_when_it_has_ended(self, prepare, head, tmp_path):
        """The driver here is a line of `setup` that waits for a file, since nothing of lrstudy is under test."""
        gate = tmp_path / "gate"
        wait = f"until [ -e {gate} ]; do sleep 0.1; done; echo closed by ${{RAY_AUTH_MODE}}; exit"
        options = (SHARED, f"address={head.address}", f"token_file={head.token}", f"setup={json.dumps([wait])}")
        prepared = prepare("job", *options)
        submission = self.submit(prepared, tmp_path / "out")
        assert submission.identity == "job lrstudy-tiny"
        with pytest.raises(InputError, match=r"the cluster has a job lrstudy-tiny already \((PENDING|RUNNING)\)"):
            self.submit(prepared, tmp_path / "out")
        gate.touch()
        followed = subprocess.run(
            ["bash", "-c", submission.follow], capture_output=True, text=True, check=False, timeout=120
        )
        assert "closed by token" in followed.stdout, followed.stderr
        gate.unlink()
        again = self.submit(prepared, tmp_path / "out")
        stopped = subprocess.run(["bash", "-c", again.stop], capture_output=True, text=True, check=False, timeout=120)
        assert "was stopped" in stopped.stdout + stopped.stderr
        assert job._state(prepared.launch) == "STOPPED"

    @pytest.mark.long
    def test_a_study_with_a_policy_of_its_own_runs_there(self, prepare, with_code, head, tmp_path):
        folder = with_code.parent
        options = (f"shared_folder={folder}", f"address={head.address}", f"token_file={head.token}")
        prepared = prepare("job", *options, study=with_code, overrides=["name=own", f"storage.path={folder}/runs"])
        submission = self.submit(prepared, tmp_path / "out")
        done = subprocess.run(
            ["bash", "-c", submission.follow], capture_output=True, text=True, check=False, timeout=200
        )
        assert "Report: " in done.stdout, done.stdout + done.stderr
        assert (folder / "runs" / "own" / "report" / "index.html").exists()


@pytest.mark.long
def test_a_cluster_that_is_open_gets_no_study(prepare, token, tmp_path):
    with ray_head(tmp_path, is_open=True) as head:
        prepared = prepare("job", SHARED, token, f"address={head.address}")
        with pytest.raises(
            InputError, match=r"takes jobs from anybody who reaches it\. Start the cluster's Ray with RAY"
        ):
            launching.submit(prepared, tmp_path)
