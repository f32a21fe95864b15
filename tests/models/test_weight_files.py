"""Files of weights are read as data: damaged ones are told, and code in them is never run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18

from lrstudy.errors import InputError
from lrstudy.models.weight_files import from_bytes, read, to_bytes

TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor([1, 2])}


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read(path)
    (told,) = caught.value.sentences
    return told


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_safetensors_and_state_dicts_are_read_whatever_the_file_is_called(tmp_path):
    save_file(TENSORS, tmp_path / "one.bin")
    torch.save(TENSORS, tmp_path / "two.safetensors")
    torch.save(TENSORS, tmp_path / "three.pth", _use_new_zipfile_serialization=False)
    for name in ("one.bin", "two.safetensors", "three.pth"):
        assert same(read(tmp_path / name), TENSORS)


@pytest.mark.parametrize("container", ["state_dict", "model", "model_ema", "state_dict_ema"])
def test_a_checkpoint_is_unwrapped(tmp_path, container):
    torch.save({container: TENSORS, "epoch": 3, "optimizer": {"state": {}}}, tmp_path / "w.pt")
    assert same(read(tmp_path / "w.pt"), TENSORS)


def test_of_two_kinds_in_a_checkpoint_the_averaged_weights_count(tmp_path):
    torch.save({"state_dict": {"a": torch.zeros(1)}, "state_dict_ema": {"a": torch.ones(1)}}, tmp_path / "w.pt")
    assert read(tmp_path / "w.pt")["a"] == 1


def test_equal_tensors_give_equal_bytes_in_any_order(tmp_path):
    assert to_bytes(TENSORS) == to_bytes(dict(reversed(TENSORS.items())))
    assert same(from_bytes(to_bytes(TENSORS)), TENSORS)
    shared = torch.ones(2)
    assert same(from_bytes(to_bytes({"x": shared, "y": shared})), {"x": shared, "y": shared})
    with pytest.raises(ValueError, match="no tensors"):
        from_bytes(b"nonsense")


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("is_zip", [True, False])
def test_code_in_a_file_is_named_and_not_run(tmp_path, is_zip):
    torch.save({"a": Bomb(tmp_path / "ran")}, tmp_path / "w.pt", _use_new_zipfile_serialization=is_zip)
    told = refusal(tmp_path / "w.pt")
    assert told.startswith(
        f"weights: {tmp_path}/w.pt is pickled with code (it asks for posix.mkdir), and code in a file of weights is not run."
    )
    assert "Save its state_dict" in told
    assert not (tmp_path / "ran").exists()


@pytest.mark.filterwarnings("error")
def test_a_pickle_that_torch_did_not_write_is_not_read(tmp_path):
    """torch warned about its protocol on the terminal, and it was called damaged."""
    (tmp_path / "w.pt").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    assert "is a pickle of protocol 4, which torch.save does not write" in refusal(tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()


def test_a_whole_pickled_model_is_refused_with_the_way_to_save_its_weights(tmp_path):
    torch.save(resnet18(), tmp_path / "w.pt")
    assert "asks for torchvision.models.resnet.ResNet" in refusal(tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "old.pt"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_told_as_such(tmp_path, name, share):
    path, tensors = tmp_path / name, {"a": torch.arange(5000.0)}
    if name == "w.safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=name == "w.pt")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert refusal(path).startswith(f"weights: {path} is damaged or truncated")


def test_other_files_are_told_apart(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "list.pt").write_bytes(pickle.dumps([1, 2], protocol=2))
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "nothing.pt")
    save_file({}, tmp_path / "none.safetensors")
    assert "which begins like neither" in refusal(tmp_path / "a.png")
    assert "which begins like neither" in refusal(tmp_path / "empty.pt")
    assert refusal(tmp_path / "list.pt").startswith("weights: ")
    assert "got a map with epoch, lr" in refusal(tmp_path / "nothing.pt")
    assert refusal(tmp_path / "none.safetensors") == f"weights: {tmp_path}/none.safetensors holds no tensors."
