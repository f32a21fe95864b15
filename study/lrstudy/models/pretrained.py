"""Weights that torchvision and timm publish by the name of a model: their files in the caches of torch and Hugging Face.

The libraries are imported inside functions: what was found once is remembered, and needs them no more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

from lrstudy.errors import Fault, InputError
from lrstudy.models.timm_names import PREFIX, is_timm
from lrstudy.user_code import is_reference

Constants = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, for values scaled to 0 ... 1."""

_OWN = ("small_cnn", "lenet")
_RENORMALISED = ("googlenet", "inception_v3")
"""With pretrained weights torchvision turns their input from ImageNet's constants to those of TensorFlow, inside the
network. Ours takes the latter at once, which is the same."""
_TENSORFLOW: Constants = ((0.5,) * 3, (0.5,) * 3)
_HASH = re.compile(r"-([0-9a-f]{8,})\.")
_BLOCK_BYTES = 2**24


@dataclass(frozen=True)
class Pretrained:
    """Published weights of a model on this machine: what they are called, and their file."""

    name: str
    file: Path


def require_published(model: str) -> None:
    """Raise InputError for a model that nobody publishes weights of: one of our own, or of the user's."""
    if not _may_be_published(model):
        expected = "random, a FILE or run:STUDY/ARM, as nobody publishes weights of this model"
        raise InputError(Fault("weights", expected=expected, got=f"imagenet with the model {model}"))


def library_of(model: str) -> str:
    """The package whose version decides which weights a name means."""
    return "timm" if is_timm(model) else "torchvision"


def constants_of(model: str) -> Constants | None:
    """The constants that the published weights of a model were trained with; None if there are none."""
    if not _may_be_published(model):
        return None
    if is_timm(model):
        config = _timm_config(model)
        return None if config is None else (tuple(config.mean), tuple(config.std))
    if model in _RENORMALISED:
        return _TENSORFLOW
    transforms = _torchvision_weights(model).transforms()
    return tuple(transforms.mean), tuple(transforms.std)


def find(model: str, may_download: bool) -> Pretrained:
    """The published weights of a model, from the cache of their library.

    Args:
        model: The name of the model.
        may_download: Whether to download what is not there.

    Raises:
        InputError: There are none, they are not on this machine, or their file is not the one that was published.
    """
    require_published(model)
    return _of_timm(model, may_download) if is_timm(model) else _of_torchvision(model, may_download)


def _may_be_published(model: str) -> bool:
    return not is_reference(model) and model not in _OWN


def _of_torchvision(model: str, may_download: bool) -> Pretrained:
    import torch

    weights = _torchvision_weights(model)
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / str(weights.url).rpartition("/")[2]
    if not file.is_file():
        if not may_download:
            _missing(model, file.name, f"It belongs in {folder}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(weights.url, str(file), _hash_in(file.name), progress=False)
        except Exception as error:  # network libraries raise whatever they like
            _not_downloaded(model, file.name, f"It belongs in {folder}", error)
    _require_hash(file)
    return Pretrained(str(weights), file)


def _of_timm(model: str, may_download: bool) -> Pretrained:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    config, name = _timm_config(model), model.removeprefix(PREFIX)
    if config is None or not config.hf_hub_id:
        advice = "timm.list_pretrained() lists the names that have some; a tag after a point chooses one of several."
        raise InputError(
            Fault("weights", f"there are no weights of timm's {name} on the Hugging Face hub", advice=advice)
        )
    repository, _, revision = str(config.hf_hub_id).partition("@")
    first = config.hf_hub_filename or "model.safetensors"
    for file in (first, "pytorch_model.bin"):
        cached = try_to_load_from_cache(repository, file, revision=revision or None)
        if isinstance(cached, str):
            return Pretrained(f"{repository}/{file}", Path(cached))
    where = "Prepare it on a machine with a network, and copy its Hugging Face cache (HF_HOME)"
    if not may_download:
        _missing(model, f"{first} of {repository}", where)
    try:
        return Pretrained(f"{repository}/{first}", Path(hf_hub_download(repository, first, revision=revision or None)))
    except Exception as error:  # network libraries raise whatever they like
        _not_downloaded(model, f"{first} of {repository}", where, error)


def _torchvision_weights(model: str) -> Any:
    """torchvision's default weights of a model. Raises InputError if it has none."""
    from torchvision.models import get_model_weights

    try:
        return get_model_weights(model)["DEFAULT"]
    except (KeyError, ValueError):
        raise InputError(Fault("weights", f"torchvision has no weights of {model}")) from None


def _timm_config(model: str) -> Any:
    """timm's account of the weights of a model; None if it knows none."""
    from timm.models import get_pretrained_cfg

    try:
        return get_pretrained_cfg(model.removeprefix(PREFIX))
    except RuntimeError:
        return None


def _missing(model: str, file: str, where: str) -> NoReturn:
    advice = (
        f"{where}; or `lrstudy prepare` fetches it where there is a network, as does workload.download: true; or give any "
        "copy of it as weights: FILE."
    )
    raise InputError(
        Fault("weights", f"the pretrained weights of {model} ({file}) are not on this machine", advice=advice)
    )


def _not_downloaded(model: str, file: str, where: str, error: Exception) -> NoReturn:
    reason = " ".join(str(error).split())[:150] or type(error).__name__
    problem = (
        f"the pretrained weights of {model} ({file}) are not on this machine and could not be downloaded ({reason})"
    )
    raise InputError(Fault("weights", problem, advice=f"{where}; or give any copy of it as weights: FILE."))


def _hash_in(name: str) -> str | None:
    """The first digits of a file's SHA-256, as its name has them."""
    found = _HASH.search(name)
    return found[1] if found else None


def _require_hash(file: Path) -> None:
    """Raise InputError unless a file is the one that was published, by the digits in its name."""
    expected, digest = _hash_in(file.name), sha256()
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK_BYTES):
            digest.update(block)
    if expected is not None and not digest.hexdigest().startswith(expected):
        problem = (
            f"{file} is not the file that was published: its SHA-256 does not begin with {expected}, as its name says"
        )
        raise InputError(
            Fault("weights", problem, advice="It is damaged or incomplete: delete it, and fetch it again.")
        )
