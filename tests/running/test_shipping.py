"""The user's files on nodes that do not have them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lrstudy import user_code
from lrstudy.errors import StorageError
from lrstudy.memo.memo import Memo
from lrstudy.running.shipping import Shipment, at_place, moved, pack, with_policy_at
from lrstudy.storage import node_cache
from serial import SMALL, study

MINE = """
from pathlib import Path

import helper
import torch


def build(num_classes, channels, size):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(channels * size * size, num_classes))


def knee(p: float, E: float, *, lr: float) -> float:
    return helper.half(lr) if p > E / 2 else lr
"""


@pytest.fixture
def ours(tmp_path):
    folder = tmp_path / "study"
    (folder / "weights").mkdir(parents=True)
    (folder / "mine.py").write_text(MINE)
    (folder / "helper.py").write_text("def half(rate):\n    return rate / 2\n")
    (folder / "weights" / "w.bin").write_bytes(b"\0" * 100)
    text = SMALL.replace("model: small_cnn", "model: ./mine.py:build, files: [weights]")
    return study(
        folder, text.replace("arms: [constant, step, clr]", "arms: {constant: , mine: {policy: ./mine.py:knee}}")
    )


@pytest.fixture
def shipped(ours, tmp_path) -> tuple[Shipment, Memo]:
    memo = Memo(tmp_path / "memo")
    return pack(ours.plan()[0], memo), memo


def test_everything_that_training_reads_is_shipped_once(ours, shipped):
    assert sorted(Path(path).name for path in shipped[0].files) == ["helper.py", "mine.py", "w.bin"]


def test_a_node_with_the_same_files_uses_them(shipped, tmp_path):
    assert shipped[0].unpack(shipped[1]) == Path("/")
    assert not (node_cache.root() / "files").exists()


def test_a_node_without_them_or_with_others_gets_copies_that_work_like_the_originals(ours, shipped):
    plan = ours.plan()[0]
    spec = plan.spec("t", plan.arms["mine"], plan.cohort["mine"][0], 0, False, {})
    lrs = [settings.lr.tolist() for settings in spec.untriggered()]
    (ours.base / "helper.py").write_text("def half(rate):\n    return rate / 3\n")
    root = shipped[0].unpack(shipped[1])
    shutil.rmtree(ours.base)
    assert root.is_relative_to(node_cache.root())
    assert shipped[0].unpack(shipped[1]) == root
    there, placed = at_place(plan.workload, root), with_policy_at(spec, root)
    assert [settings.lr.tolist() for settings in placed.untriggered()] == lrs
    assert there.user_function("model") is not None
    assert there.user_files == {"weights/w.bin": moved(ours.base / "weights" / "w.bin", root)}
    assert placed.root == spec.root, "names do not depend on where the files lie"
    with there.only_named_files():
        there.user_files["weights/w.bin"].read_bytes()
    assert user_code.digest(there.user_references["model"]) == plan.workload.source_digests["model"]


def test_a_copy_that_the_storage_has_changed_is_not_used(ours, shipped, tmp_path):
    (changed,) = [digest for path, digest in shipped[0].files.items() if path.endswith("mine.py")]
    stored = tmp_path / "memo" / "files" / changed
    stored.write_text("import os; os.system('echo taken over')")
    shutil.rmtree(ours.base)
    with pytest.raises(
        StorageError, match=r"the copy of .*mine\.py that was to be shipped to this node is not in the memo"
    ):
        shipped[0].unpack(shipped[1])


def test_a_study_without_code_of_its_own_ships_nothing(tmp_path):
    memo = Memo(tmp_path / "memo")
    shipment = pack(study(tmp_path).plan()[0], memo)
    assert shipment.files == {}
    assert shipment.unpack(memo) == Path("/")
