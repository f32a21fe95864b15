from __future__ import annotations

import time

import pytest

from lrstudy.errors import InputError, StorageError
from lrstudy.storage import probe
from lrstudy.storage.bucket import Bucket
from s3_server import proxy

STEPS = {"create", "refuse", "replace", "read", "list", "delete"}


def test_a_bucket_that_does_all_that_is_needed_is_left_as_it_was(s3):
    assert probe.check(f"{s3}/runs").keys() == STEPS
    assert Bucket(f"{s3}/runs").listing() == []


def test_a_folder_that_does_all_that_is_needed_is_left_as_it_was(tmp_path):
    assert probe.check(str(tmp_path / "runs")).keys() == STEPS | {"lock"}
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_the_users_fault(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"storage\.path: cannot write in .*file/runs: Not a directory"):
        probe.check(str(tmp_path / "file" / "runs"))


REFUSED = {
    "create": lambda method, path: 403 if method == "PUT" else None,
    "read": lambda method, path: 403 if method == "GET" and "list-type" not in path else None,
    "list": lambda method, path: 403 if "list-type" in path else None,
    "delete": lambda method, path: 403 if method in ("DELETE", "POST") else None,
}


@pytest.mark.parametrize("missing", REFUSED)
def test_a_permission_that_is_missing_is_said_in_one_paragraph(s3, s3_server, monkeypatch, missing):
    with proxy(s3_server.port) as (endpoint, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        faults.of = REFUSED[missing]
        with pytest.raises(InputError, match=rf"cannot \w+ in the bucket at {s3}/runs: Injected") as raised:
            probe.check(f"{s3}/runs")
        assert "\n" not in str(raised.value)
        assert "let your credentials read, write, list and delete" in str(raised.value)


def test_a_bucket_that_does_not_exist_is_the_users_fault(s3):
    with pytest.raises(InputError, match="make the bucket not-there"):
        probe.check("s3://not-there/runs")


def test_a_service_without_conditional_puts_is_refused(s3, s3_server, monkeypatch):
    """Some services that speak S3 ignore the condition: then two drivers would hold one lock."""
    import http.client

    request = http.client.HTTPConnection.request

    def unconditional(self, method, url, body=None, headers=None, **options):
        kept = {k: v for k, v in (headers or {}).items() if k.lower() not in ("if-match", "if-none-match")}
        return request(self, method, url, body=body, headers=kept, **options)

    monkeypatch.setattr(http.client.HTTPConnection, "request", unconditional)
    with proxy(s3_server.port) as (endpoint, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(InputError, match="creates an object that exists already, so studies cannot be kept there"):
            probe.check(f"{s3}/runs")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    assert Bucket(f"{s3}/runs").listing() == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", [500, "hang"])
def test_a_bucket_that_does_not_work_is_known_within_seconds(s3, s3_server, monkeypatch, fault):
    with proxy(s3_server.port) as (endpoint, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        faults.of = lambda method, path: fault
        begin = time.monotonic()
        with pytest.raises(StorageError, match="see that the bucket can be reached from here"):
            probe.check(f"{s3}/runs")
        assert time.monotonic() - begin < 60
