from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lrstudy.study_folder.replace_file import replacing


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("options", [{}, {"has_one_writer": True}, {"durable": True}])
def test_a_file_has_its_old_content_until_the_block_ends_and_then_the_new(tmp_path, options):
    file = tmp_path / "file"
    for number in range(3):
        before = file.read_text() if number else None
        with replacing(file, **options) as fresh:
            fresh.write_text(f"content {number}")
            assert (file.read_text() if file.exists() else None) == before
        assert file.read_text() == f"content {number}"
        assert names(tmp_path) == ["file"]


def break_off(file, error, written):
    with replacing(file) as fresh:
        if written:
            fresh.write_text(written)
        raise error


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("written", ["torn", None])
def test_a_block_that_raises_leaves_the_old_content_and_nothing_beside_it(tmp_path, error, written):
    (tmp_path / "file").write_text("old")
    with pytest.raises(error):
        break_off(tmp_path / "file", error, written)
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_content_that_cannot_take_its_place_is_removed(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="directory"), replacing(tmp_path / "file") as fresh:
        fresh.write_text("new")
    assert names(tmp_path) == ["file"]


def test_content_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    file, flushed = tmp_path / "file", []
    file.write_text("old")
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda opened: (flushed.append((os.fstat(opened).st_ino, file.read_text())), fsync(opened))
    )
    with replacing(file) as fresh:
        fresh.write_text("old")
    assert flushed == []
    with replacing(file, durable=True) as fresh:
        fresh.write_text("new")
    assert flushed == [(file.stat().st_ino, "old")]


KILLED = (
    "import os, sys; from pathlib import Path; from lrstudy.study_folder.replace_file import replacing\n"
    "with replacing(Path(sys.argv[1]), has_one_writer=bool(int(sys.argv[2]))) as fresh:\n"
    "    fresh.write_text('torn'); os.kill(os.getpid(), 9)\n"
)


@pytest.mark.parametrize("has_one_writer", [True, False])
def test_a_killed_process_leaves_the_old_content_and_only_a_sole_writer_clears_up_after_it(tmp_path, has_one_writer):
    file = tmp_path / "file"
    file.write_text("old")
    arguments = [sys.executable, "-c", KILLED, str(file), str(int(has_one_writer))]
    assert subprocess.run(arguments, check=False).returncode == -9
    assert file.read_text() == "old"
    assert len(names(tmp_path)) == 2
    with replacing(file, has_one_writer=has_one_writer) as fresh:
        fresh.write_text("new")
    assert file.read_text() == "new"
    assert len(names(tmp_path)) == (1 if has_one_writer else 2), "what another process has may still be written to"


def test_two_processes_that_write_one_file_write_two_new_ones(tmp_path, monkeypatch):
    with replacing(tmp_path / "file") as mine:
        mine.write_text("mine")
        monkeypatch.setattr(os, "getpid", lambda: 0)
        with replacing(tmp_path / "file") as theirs:
            theirs.write_text("theirs")
        assert (tmp_path / "file").read_text() == "theirs"
    assert (tmp_path / "file").read_text() == "mine"
