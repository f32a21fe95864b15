from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from lrstudy.errors import InputError
from lrstudy.storage import node_cache
from lrstudy.storage.place import Storage, checked_url

SECRETS = ("s3://AKIA123:s3cr3t@bucket/x", "s3://s3cr3t@bucket/x", "gs://bucket/x?key=s3cr3t", "s3://bucket/x#s3cr3t")


@pytest.mark.parametrize("text", SECRETS)
def test_a_url_with_a_secret_is_refused_without_repeating_it(text):
    with pytest.raises(InputError, match=r"^storage\.path: a URL of a bucket has no user, key or query\. ") as raised:
        Storage.of(text)
    assert "s3cr3t" not in str(raised.value)
    assert "AKIA123" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    ["http://a/b", "s3:///a", "s3://A/b", "s3://bucket/../other", "s3://bucket//a", "s3://bucket/a b", "gs://bucket/.x",
     "file:///tmp/x", "s3://bu/x", "s3://bucket/a\nb"],
)  # fmt: skip
def test_what_is_no_prefix_of_a_bucket_is_refused(text):
    with pytest.raises(InputError, match=r"^storage\.path: expected "):
        Storage.of(text)


def test_a_url_has_no_slash_at_its_end():
    assert checked_url("s3://my-bucket/runs/") == checked_url("s3://my-bucket/runs") == "s3://my-bucket/runs"
    assert Storage.of("gs://my-bucket").study("x") == "gs://my-bucket/x"


def test_a_folder_is_where_the_study_file_says(tmp_path):
    storage = Storage.of("runs", tmp_path)
    assert (storage.location, storage.studies) == (str(tmp_path / "runs"), tmp_path / "runs")
    assert storage.data_cache == tmp_path / "runs/memo/data"
    assert not storage.is_bucket


def test_what_a_node_keeps_of_a_bucket_lies_in_its_own_cache(tmp_path, monkeypatch):
    storage = Storage.of("s3://my-bucket/runs")
    monkeypatch.setenv("LRSTUDY_CACHE", str(tmp_path))
    assert storage.data_cache == tmp_path / "data"
    assert storage.studies.parent == tmp_path / "studies"
    monkeypatch.setenv("LRSTUDY_CACHE", str(tmp_path / "elsewhere"))
    assert pickle.loads(pickle.dumps(storage)).data_cache == tmp_path / "elsewhere/data", "each node has its own"
    assert Storage.of("s3://my-bucket/other").studies.name != storage.studies.name


def test_the_node_cache_follows_the_environment(monkeypatch):
    monkeypatch.delenv("LRSTUDY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert node_cache.root() == Path("/xdg/lrstudy")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/a")
    assert node_cache.root() == Path("/home/a/.cache/lrstudy")
    monkeypatch.setenv("LRSTUDY_CACHE", "here")
    with pytest.raises(InputError, match="LRSTUDY_CACHE: expected an absolute path"):
        node_cache.root()
