"""Nodes share a storage if each reads what every other one wrote; here every node has a folder that it calls the storage."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrstudy.doctor import shared_storage
from lrstudy.doctor.nodes import Answer, Node

A, B = Node("1", "a"), Node("2", "b")


class Folders:
    """An `EveryNode` whose nodes mount different folders, or the same one, at the place that is called the storage."""

    def __init__(self, folders: dict[Node, Path]) -> None:
        self.folders = folders

    def __call__(self, function, location, *arguments, gpus=None, timeout_s=0.0, only=None):
        return [self._ask(node, function, *arguments) for node in (self.folders if only is None else only)]

    def _ask(self, node, function, *arguments):
        try:
            return Answer(node, function(str(self.folders[node]), *arguments))
        except Exception as error:
            return Answer(node, error=f"{type(error).__name__}: {error}")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(shared_storage, "_PATIENCE_S", 0.0)


def test_a_shared_folder_is_ok_and_nothing_is_left_in_it(tmp_path):
    found = shared_storage.check(Folders({A: tmp_path, B: tmp_path}), "/storage")
    assert [finding.status for finding in found] == ["ok", "ok"]
    assert "sees what all 2 nodes wrote" in found[0].measured
    assert list(tmp_path.iterdir()) == []


def test_folders_of_the_same_name_that_are_not_the_same_have_failed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    found = shared_storage.check(Folders({A: tmp_path / "a", B: tmp_path / "b"}), "/storage")
    assert [(finding.node, finding.status) for finding in found] == [("a", "fail"), ("b", "fail")]
    assert found[0].measured == "/storage is not shared: what b wrote there is not seen here"
    assert "network file system" in found[0].advice
    assert [list((tmp_path / name).iterdir()) for name in "ab"] == [[], []]


def test_a_node_without_the_folder_has_failed_and_does_not_get_one(tmp_path):
    (tmp_path / "a").mkdir()
    found = shared_storage.check(Folders({A: tmp_path / "a", B: tmp_path / "b"}), "/storage")
    assert [(finding.node, finding.status) for finding in found] == [("b", "fail"), ("a", "ok")]
    assert found[0].measured.startswith("cannot write in /storage: FileNotFoundError: there is no folder")
    assert not (tmp_path / "b").exists()


def test_a_folder_that_takes_nothing_has_failed(tmp_path):
    (tmp_path / "doctor").write_text("a file where the folder of the objects would be")
    (found,) = shared_storage.check(Folders({A: tmp_path}), "/storage")
    assert found.status == "fail"
    assert "StorageError" in found.measured


def test_an_object_that_appears_late_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(shared_storage, "_PATIENCE_S", 60.0)
    name, _ = shared_storage.write(str(tmp_path), "run")
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    monkeypatch.setattr(shared_storage.time, "sleep", lambda seconds: (tmp_path / name).write_bytes(content))
    assert shared_storage.unseen(str(tmp_path), [name]) == []
