"""Writes the files of an exported model, and loads one of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lrstudy import user_code
from lrstudy.errors import Fault, InputError
from lrstudy.export import card as cards
from lrstudy.export import onnx_file
from lrstudy.export.comparison import compare
from lrstudy.export.network import Exported, build, fill, form_of, trained
from lrstudy.export.winner import Winner
from lrstudy.models.build import Builder
from lrstudy.study_folder.replace_file import replacing


@dataclass(frozen=True)
class Export:
    """What `export` has written: the files, and what to tell the user about them."""

    folder: Path
    files: tuple[str, ...]
    notes: tuple[str, ...]


def export(winner: Winner, folder: Path, *, with_onnx: bool = True) -> Export:
    """Write model.safetensors, card.json and, with `with_onnx`, model.onnx.

    Args:
        winner: The trial whose model it is.
        folder: Where to write; made if it is not there, and replaced if it holds an earlier export.
        with_onnx: Whether to write ONNX too, and compare what onnxruntime makes of the test images.

    Raises:
        InputError: The model cannot be built or written, or the folder holds something else.
        StorageError: The storage fails.
    """
    if with_onnx:
        onnx_file.require_packages()
    _require_free(folder)
    form, network = form_of(winner), trained(winner)
    model = Exported(form, network, winner.lock["task"]["kind"])
    compared, notes = None, []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / cards.WEIGHTS) as fresh:
            tensors = {name: tensor.contiguous().clone() for name, tensor in network.state_dict().items()}
            save_file(tensors, fresh, {"format": "pt", "lineage": winner.trial["selected_lineage"]})
        if with_onnx:
            path = folder / cards.ONNX
            onnx_file.write(model, path, winner.lock["data"]["classes"], winner.trial["trial_id"])
            compared, note = _compared(winner, path)
            notes.append(note)
        with replacing(folder / cards.FILE) as fresh:
            content = cards.card_of(winner, form, compared)
            fresh.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    except OSError as error:
        raise InputError(Fault("--to", f"cannot write in {folder}: {error.strerror or error}")) from None
    files = (cards.WEIGHTS, cards.FILE, *([cards.ONNX] if with_onnx else []))
    return Export(folder, files, tuple(notes))


def load(folder: str | Path, builder: Builder | None = None) -> Exported:
    """An exported model as a torch module in evaluation mode, with its preprocessing.

    Args:
        folder: The folder that `lrstudy export` has written.
        builder: The function that builds the network, for a model of your own; the card names it (`source`).

    Raises:
        InputError: The folder holds no exported model, or `builder` is missing or builds another one.
    """
    card = cards.read(Path(folder))
    name = str(card.model["name"])
    if builder is None and user_code.is_reference(name):
        raise InputError(Fault(str(folder), f"its model is one of your own: pass load() the function of {name}"))
    module = build(card.model, name, builder).module
    path = Path(folder) / cards.WEIGHTS
    try:
        fill(module, load_file(path))
    except (OSError, SafetensorError) as error:
        raise InputError(Fault(str(path), f"cannot be read ({error})")) from None
    return Exported(card.form, module, card.task)


def _compared(winner: Winner, path: Path) -> tuple[dict[str, object], str]:
    """How the ONNX file at `path` compares with the study: for the card, and as a sentence."""
    try:
        comparison = compare(winner, onnx_file.Session(path).run)
    except InputError as error:
        reason = " ".join(error.sentences)
        return {"num_images": 0, "reason": reason}, f"Not compared with the study on its test images: {reason}"
    return comparison.to_json(), comparison.sentence


def _require_free(folder: Path) -> None:
    """Raise InputError if there is something else than an export, whole or begun."""
    ours = {cards.WEIGHTS, cards.FILE, cards.ONNX}
    is_free = not folder.exists() or (
        folder.is_dir() and all(path.name in ours or path.name.startswith(".") for path in folder.iterdir())
    )
    if not is_free:
        raise InputError(Fault("--to", f"{folder} exists and is no exported model", advice="Choose another folder."))
