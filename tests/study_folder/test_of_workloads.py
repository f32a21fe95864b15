"""The folder above those of workloads: what says that it is one, and which studies a storage has."""

from __future__ import annotations

import pytest

from lrstudy.errors import InputError
from lrstudy.study_folder import of_workloads


def test_a_storage_has_plain_studies_and_those_of_workloads(tmp_path):
    of_workloads.write(tmp_path / "derm", "text", "derm", ["a", "b"])
    for name in ("derm/a", "derm/b", "plain", "memo"):
        (tmp_path / name).mkdir()
    found = list(of_workloads.folders(tmp_path))
    assert found == [tmp_path / name for name in ("derm/a", "derm/b", "memo", "plain")]
    assert [of_workloads.name(folder) for folder in found] == ["derm/a", "derm/b", "memo", "plain"]
    assert {of_workloads.root(folder) for folder in found} == {tmp_path}
    assert list(of_workloads.folders(tmp_path / "none")) == []


def test_a_workload_that_is_not_in_the_file_any_more_is_remembered(tmp_path):
    of_workloads.write(tmp_path / "derm", "text", "derm", ["a", "b"])
    of_workloads.write(tmp_path / "derm", "text", "derm", ["b", "c"])
    assert of_workloads.read(tmp_path / "derm") == ("b", "c", "a")


@pytest.mark.parametrize("there", ["study.lock.json", "notes.txt"])
def test_a_folder_with_something_else_is_refused(tmp_path, there):
    (tmp_path / "derm").mkdir()
    (tmp_path / "derm" / there).write_text("{}")
    with pytest.raises(InputError, match=r"Choose another name with --as NAME"):
        of_workloads.write(tmp_path / "derm", "text", "derm", ["a"])
    assert of_workloads.read(tmp_path / "derm") == ()
