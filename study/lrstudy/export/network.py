"""The network of a winner with its trained weights, as the study tested it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

import torch
from safetensors.torch import load
from torch import Tensor, nn

from lrstudy import user_code
from lrstudy.data.batches import part_of
from lrstudy.errors import Fault, InputError
from lrstudy.export.preprocessing import ImageForm, Preprocessing
from lrstudy.export.winner import Winner
from lrstudy.models.build import Builder, Model, build_model
from lrstudy.models.catalogue import Stem
from lrstudy.settings import Recipe, canonical_json
from lrstudy.training.precise_norm import precise_norm
from lrstudy.training.state import State
from lrstudy.workload.numerics import NumericsSpec
from lrstudy.workload.workload import load as load_data

Weights = dict[str, Tensor]


class Exported(nn.Module):
    """A trained network with its preprocessing: uint8 RGB images (N, H, W, 3) of any size become logits and probabilities.

    Probabilities are a softmax, or a sigmoid of each label where an image may have several.
    """

    def __init__(self, form: ImageForm, network: nn.Module, task: str) -> None:
        super().__init__()
        self.preprocessing, self.network, self._task = Preprocessing(form), network, task
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and probabilities, float32 (N, classes)."""
        logits = self.network(self.preprocessing(images))
        return logits, torch.sigmoid(logits) if self._task == "multilabel" else torch.softmax(logits, 1)


def trained(winner: Winner) -> nn.Module:
    """The network of the winner in evaluation mode, with the statistics of BatchNorm that the study tested it with.

    Raises InputError if it cannot be built again as it was, or its state is not stored.
    """
    reference = winner.study.workload.model
    builder: Builder | None = None
    if user_code.is_reference(reference):
        reference = user_code.resolve(reference, winner.base, "workload.model")
        digest = winner.lock["identity"]["source"].get("model")
        builder = _as_builder(user_code.load(reference, "workload.model", digest))
    model = build(winner.lock["model"], reference, builder)
    fill(model.module, weights_of(winner.state()))
    if winner.study.workload.batchnorm == "precise":
        _recompute_statistics(model, winner)
    return model.module.eval()


def build(description: Mapping[str, Any], name: str, builder: Builder | None) -> Model:
    """The network of a description in a lock or a card, with random weights. `name` is the model's, as a study file has it.

    Raises InputError if this version builds another one.
    """
    size = description["size"] if isinstance(description["size"], int) else tuple(description["size"])
    stem = cast(Stem, description["stem"])
    model = build_model(name, description["num_classes"], description["channels"], size, 0, builder, stem)
    if canonical_json(model.description) != canonical_json(dict(description)):
        raise InputError(
            Fault(
                "model",
                f"this version of lrstudy builds another {description['name']} ({model.description}) than the one that "
                f"was trained ({dict(description)})",
                advice="Use the version that trained it.",
            )
        )
    return model


def weights_of(state: bytes) -> Weights:
    """The tensors of the network in a stored state, by their names in it."""
    prefix = "model."
    return {name.removeprefix(prefix): tensor for name, tensor in load(state).items() if name.startswith(prefix)}


def form_of(winner: Winner) -> ImageForm:
    """How the winner's study made its images."""
    from PIL import __version__ as pillow

    model, image = winner.lock["model"], winner.study.workload.image
    size = model["size"] if isinstance(model["size"], list) else [model["size"], model["size"]]
    mean, deviation = winner.lock["identity"]["preprocessing"]["constants"]
    return ImageForm((size[0], size[1]), model["channels"], image.resize, mean, deviation, pillow)


def fill(module: nn.Module, weights: Weights) -> None:
    """Put weights into a network. Raises InputError if they are not those of such a network."""
    try:
        module.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise InputError(Fault("model", f"the stored weights do not fit it: {error}")) from None


def _as_builder(function: object) -> Builder:
    assert callable(function), function  # the study has run with it
    return function


def _recompute_statistics(model: Model, winner: Winner) -> None:
    """Give BatchNorm the statistics of the training part under the trained weights, as the study's evaluations did."""
    chosen = {
        field.name: winner.lock["numerics"][field.name]
        for field in fields(NumericsSpec)
        if field.name in winner.lock["numerics"]
    }
    spec = NumericsSpec(**{**chosen, "compile": False, "precision": "fp32"})
    state = State.of(model, torch.device("cpu"), spec)
    data, parts = load_data(winner.study.workload.data_spec(winner.base), winner.storage)
    constants = winner.lock["identity"]["preprocessing"]["constants"]
    part = part_of(
        data.images,
        data.labels,
        parts.train,
        torch.device("cpu"),
        (tuple(constants[0]), tuple(constants[1])),
        memory_format=spec.memory_format,
    )
    recipe = winner.recipe()
    modes = Recipe(trainable=tuple(recipe["trainable"]), batchnorm=recipe["batchnorm"])
    with precise_norm(state, part, modes):
        kept = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    model.module.load_state_dict(kept)
