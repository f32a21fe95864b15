"""Small measurements in the memo: the first one stays, damage is noticed, the bytes are those of all versions."""

from __future__ import annotations

import pytest

from lrstudy.memo.memo import Memo
from memo_records import emptied, files, flip, torn

VALUES = {"update_s": 0.015625, "epoch_s": 0.25, "evaluation_s": 3.0, "samples": [1, 2, None]}


def test_a_measurement_is_returned_as_it_was_stored_and_the_first_one_stays(tmp_path):
    memo = Memo(tmp_path)
    assert memo.measurement("calibrations/a") is None
    memo.put_measurement("calibrations/a", VALUES)
    Memo(tmp_path).put_measurement("calibrations/a", {"update_s": 9.0})
    assert Memo(tmp_path).measurement("calibrations/a") == VALUES
    assert memo.measurement("calibrations/b") is None


@pytest.mark.parametrize("damage", [flip, emptied, torn, lambda path: path.write_bytes(b"[]")])
def test_a_damaged_measurement_is_set_aside_and_can_be_taken_again(tmp_path, damage):
    memo = Memo(tmp_path)
    memo.put_measurement("calibrations/a", VALUES)
    damage(tmp_path / "calibrations" / "a")
    assert memo.measurement("calibrations/a") is None
    assert [path.name for path in files(tmp_path, "damaged")] == ["a"]
    memo.put_measurement("calibrations/a", {"update_s": 1.0})
    assert memo.measurement("calibrations/a") == {"update_s": 1.0}


def test_a_measurement_has_the_bytes_of_earlier_versions(tmp_path):
    """The key was once the name of the method; storages hold it, so it stays when the method gets a better name."""
    earlier = b'{"digest": "3ee0bc225b461940", "fact": {"update_s": 0.5}}'
    Memo(tmp_path).put_measurement("calibrations/a", {"update_s": 0.5})
    assert (tmp_path / "calibrations" / "a").read_bytes() == earlier
