"""Fits weights that somebody else has trained into a network: by name and shape, and whatever does not fit is refused.

Three things may differ. The head is made anew where its shape does, for another number of classes; heads beside it that
the network does not have are left out; and a first convolution that was trained on colours takes grey images.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lrstudy.errors import Fault, InputError
from lrstudy.models.build import head_names
from lrstudy.models.weight_files import Tensors

_WRAPPERS = ("module.", "_orig_mod.", "model.")
"""What wrappers put before every name: DataParallel, torch.compile, Lightning."""
_TIMM_FILTERS = ("checkpoint_filter_fn", "_filter_fn", "_filter_torchvision_pretrained")
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)")
_MOST_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Fitted:
    """Weights under the names of a network, in its shapes and types.

    Attributes:
        tensors: All that the network has, but for `anew`.
        anew: The tensors of the head, if it is made anew.
        left_out: What the weights have and the network has not: auxiliary heads, and a head of another form.
        changes: What was changed of others, a sentence each.
    """

    tensors: Tensors
    anew: tuple[str, ...]
    left_out: tuple[str, ...]
    changes: tuple[str, ...]


def fit(module: nn.Module, name: str, tensors: Mapping[str, Tensor], source: str) -> Fitted:
    """Fit weights into a network, which is left as it is.

    Args:
        module: The network.
        name: What it is called in the study file.
        tensors: The weights.
        source: What these are called in the study file.

    Raises:
        InputError: Something is missing, left over or of another shape, or is not finite. Names are listed.
    """
    wanted, heads = module.state_dict(), head_names(module)
    given, changes = _renamed(tensors, wanted), []
    if module.__module__.startswith("timm.") and _misfits(given, wanted, heads):
        given = _filtered(module, given)
    if (first := _first_convolution(module)) in given and _is_of_colours(given[first], wanted[first]):
        given[first] = given[first].float().sum(dim=1, keepdim=True)
        changes.append(f"{first} is summed over the three colours, as the images are grey")
    changes += _resampled(module, given)
    anew = tuple(n for n in wanted if _is_within(n, heads)) if _misfits(given, wanted, heads, of_head=True) else ()
    left_out = tuple(n for n in given if n not in wanted and (_is_auxiliary(n) or (anew and _is_within(n, heads))))
    for unused in (*left_out, *anew):
        given.pop(unused, None)
    _keep_counters(given, wanted)
    _require_all(given, {n: t for n, t in wanted.items() if n not in anew}, name, source)
    fitted = {n: tensor.to(wanted[n].dtype) for n, tensor in given.items()}
    if broken := [n for n, tensor in fitted.items() if not torch.isfinite(tensor).all()]:
        raise InputError(Fault("weights", f"{source} has values that are not finite, in {_listed(broken)}"))
    return Fitted(fitted, anew, left_out, tuple(changes))


def begin_with(module: nn.Module, tensors: Mapping[str, Tensor], anew: Iterable[str]) -> None:
    """Put fitted weights into a network; the tensors `anew` stay as they are. Raises RuntimeError if others are missing."""
    missing, unexpected = module.load_state_dict(tensors, strict=False)
    if set(missing) != set(anew) or unexpected:
        raise RuntimeError(f"weights were fitted to another network: missing {missing}, left over {unexpected}")


def _renamed(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Tensors:
    """The weights without what wrappers put before every name, and with the names that DenseNets have today."""
    given = dict(tensors)
    for prefix in _WRAPPERS:
        if all(n.startswith(prefix) for n in given) and not any(n.startswith(prefix) for n in wanted):
            given = {n.removeprefix(prefix): tensor for n, tensor in given.items()}
    # torchvision's files of DenseNets are older than its classes.
    newer = {n: _OLD_DENSENET.sub(r"\1\2", n) for n in given if n not in wanted}
    return {newer[n] if newer.get(n) in wanted else n: tensor for n, tensor in given.items()}


def _filtered(module: nn.Module, given: Tensors) -> Tensors:
    """The weights as timm's own filter for such networks turns them: older names, other sizes of a position embedding."""
    defined_in = vars(sys.modules[type(module).__module__])
    filters = [defined_in[name] for name in _TIMM_FILTERS if name in defined_in]
    try:
        return dict(filters[0](dict(given), module)) if filters else given
    except Exception:  # it was made for other weights than these; what does not fit is listed
        return given


def _resampled(module: nn.Module, given: Tensors) -> list[str]:
    """Resample the position embedding of a torchvision ViT to another number of patches; returns what was done."""
    from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

    position = "encoder.pos_embedding"
    if not isinstance(module, VisionTransformer) or position not in given:
        return []
    length, wanted = given[position].shape[1], module.encoder.pos_embedding.shape[1]
    if length == wanted or given[position].dim() != 3 or round((length - 1) ** 0.5) ** 2 != length - 1:
        return []
    state: Any = dict(given)
    given |= interpolate_embeddings(module.image_size, module.patch_size, state)
    return [f"{position} is resampled from {length} to {wanted} places, as the images have another size"]


def _first_convolution(module: nn.Module) -> str:
    """The name of the weight of the first convolution; empty if there is none."""
    names = [name for name, part in module.named_modules() if isinstance(part, nn.Conv2d)]
    return f"{names[0]}.weight" if names else ""


def _is_of_colours(given: Tensor, wanted: Tensor) -> bool:
    """Whether a kernel takes three channels where one is wanted, and is the same otherwise."""
    shape = tuple(wanted.shape)
    return tuple(given.shape) == (shape[0], 3, *shape[2:]) and shape[1] == 1


def _misfits(
    given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], heads: tuple[str, ...], of_head: bool = False
) -> list[str]:
    """The tensors of the network, those of its head or the others, that the weights lack or have in another shape."""
    return [
        name
        for name, tensor in wanted.items()
        if _is_within(name, heads) == of_head and (name not in given or given[name].shape != tensor.shape)
    ]


def _keep_counters(given: Tensors, wanted: Mapping[str, Tensor]) -> None:
    """Give BatchNorm layers the counters that weights saved before torch 0.4.1 lack; only an average over all updates reads them."""
    missing = [name for name in wanted if name.endswith(".num_batches_tracked") and name not in given]
    given |= {name: wanted[name] for name in missing if f"{name.rpartition('.')[0]}.running_mean" in given}


def _require_all(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], name: str, source: str) -> None:
    """Raise InputError unless the weights are exactly those of the network, but for a head that is made anew."""
    missing = [n for n in wanted if n not in given]
    unexpected = [n for n in given if n not in wanted]
    misshapen = [
        f"{n} {tuple(given[n].shape)} for {tuple(wanted[n].shape)}"
        for n in wanted
        if n in given and given[n].shape != wanted[n].shape
    ]
    problems = [("missing", missing), ("of another shape", misshapen), ("left over", unexpected)]
    found = [f"{len(names)} {what} ({_listed(names)})" for what, names in problems if names]
    if not found and wanted:
        return
    known = len(wanted) - len(missing) - len(misshapen)
    advice = "These seem to be weights of another architecture." if 2 * known < len(wanted) or not wanted else ""
    counted = "; ".join(found) or "nothing but a head is in both"
    problem = f"{source} does not fit {name}: of {len(wanted)} tensors {known} fit; {counted}"
    raise InputError(Fault("weights", problem, advice=advice))


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_MOST_SHOWN]) + (f" and {len(names) - _MOST_SHOWN} more" * (len(names) > _MOST_SHOWN))


def _is_auxiliary(name: str) -> bool:
    """Whether a tensor belongs to an auxiliary head, as GoogLeNet and Inception have them for training."""
    return name.partition(".")[0].lower().startswith("aux")


def _is_within(name: str, modules: Iterable[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)
