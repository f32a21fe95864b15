"""Files of weights: what others have saved is read without running any of it; what we keep is safetensors."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save
from torch import Tensor

from lrstudy.errors import Fault, InputError

Tensors = dict[str, Tensor]

_CONTAINERS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Where a checkpoint keeps its weights, averaged ones first: those are what its author evaluated (timm reads it so, too)."""
_PICKLE, _PROTOCOL = 0x80, 2
"""How a pickle begins, and the protocol that torch.save writes unless it is told otherwise."""
_ASKED_FOR = re.compile(r"unsupported global:? (?:GLOBAL )?([\w.]+)", re.IGNORECASE)
_SAVE = "Save its state_dict: safetensors.torch.save_file(model.state_dict(), FILE) or torch.save(model.state_dict(), FILE)."


def read(path: Path) -> Tensors:
    """The tensors of a safetensors file, or of a state_dict that torch.save wrote, on the CPU, by name.

    What a file is, its content says and not its name. Nothing in it is run. A checkpoint that holds a state_dict beside
    other things is unwrapped.

    Raises:
        InputError: It cannot be read, is damaged or truncated, would have to run code, or holds no tensors.
    """
    try:
        with path.open("rb") as file:
            begin = file.read(9)
        tensors = load_file(path) if begin[8:9] == b"{" else _unwrapped(_unpickled(path, begin), path)
    except SafetensorError as error:
        raise _damaged(path, error) from None
    except OSError as error:
        raise InputError(Fault("weights", f"{path} cannot be read ({error.strerror or error})")) from None
    if not tensors:
        raise InputError(Fault("weights", f"{path} holds no tensors"))
    return tensors


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as safetensors; equal tensors under equal names give equal bytes."""
    return save({name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)})


def from_bytes(data: bytes) -> Tensors:
    """What `to_bytes` was given. Raises ValueError for anything else."""
    try:
        return load(data)
    except SafetensorError as error:
        raise ValueError(f"these are no tensors: {error}") from error


def _unpickled(path: Path, begin: bytes) -> Any:
    """What torch.save wrote, by torch's own restricted unpickler, which makes tensors and plain values alone."""
    if not begin.startswith((b"PK", b"\x80")):
        expected = "a safetensors file, or a state_dict that torch.save wrote"
        raise InputError(Fault("weights", expected=expected, got=f"{path}, which begins like neither"))
    if begin[0] == _PICKLE and begin[1] != _PROTOCOL:
        problem = f"{path} is a pickle of protocol {begin[1]}, which torch.save does not write and could be code"
        raise InputError(Fault("weights", problem, advice=_SAVE))
    try:
        with path.open("rb") as file:  # of a path, torch would believe the name
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if (asked := _ASKED_FOR.search(str(error))) is None:
            raise _damaged(path, error) from None
        problem = f"{path} is pickled with code (it asks for {asked[1]}), and code in a file of weights is not run"
        raise InputError(Fault("weights", problem, advice=_SAVE)) from None
    except (RuntimeError, OSError, EOFError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise _damaged(path, error) from None


def _unwrapped(loaded: Any, path: Path) -> Tensors:
    """The tensors in what was loaded: the map itself, or one of the places where checkpoints keep them."""
    places = [loaded, *(loaded.get(name) for name in _CONTAINERS)] if isinstance(loaded, dict) else []
    for place in places:
        if isinstance(place, dict) and place and all(isinstance(value, Tensor) for value in place.values()):
            return {str(name): value for name, value in place.items()}
    holds = f"a map with {', '.join(map(str, list(loaded)[:5]))}" if isinstance(loaded, dict) else type(loaded).__name__
    expected = f"a map from names to tensors in {path}, or one below {', '.join(sorted(_CONTAINERS))}"
    raise InputError(Fault("weights", expected=expected, got=holds, advice=_SAVE))


def _damaged(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).rpartition("WeightsUnpickler error:")[2].split())[:150]
    return InputError(Fault("weights", f"{path} is damaged or truncated: it cannot be read as weights ({reason})"))
