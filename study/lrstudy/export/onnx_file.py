"""An exported model as ONNX, and what onnxruntime makes of it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lrstudy.errors import Fault, InputError
from lrstudy.export.network import Exported
from lrstudy.study_folder.replace_file import replacing

INPUT, OUTPUTS = "images", ("logits", "probabilities")
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def require_packages() -> None:
    """Raise InputError unless the packages are installed that write and run ONNX."""
    from importlib.util import find_spec

    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise InputError(
            Fault(
                "export",
                f"ONNX needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed",
                advice="pip install 'lrstudy[export]' installs them; --no-onnx writes weights and card alone.",
            )
        )


def write(model: Exported, path: Path, classes: Sequence[str], trial: str) -> None:
    """Write `model` to `path`. Number, height and width of images stay open. Raises InputError if torch cannot trace it."""
    height, width = model.preprocessing.form.size
    example = torch.zeros(2, height + 3, width + 5, 3, dtype=torch.uint8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecations inside torch and onnxscript
            program: Any = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: "N", 1: "H", 2: "W"},),
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                verbose=False,
            )
    except Exception as error:  # torch.export raises whatever a model's code leads it to
        cause = " ".join(str(error.__cause__ or error).split())[:300]
        raise InputError(
            Fault(
                "export",
                f"torch cannot write this model as ONNX ({type(error).__name__}: {cause})",
                advice="--no-onnx writes weights and card alone.",
            )
        ) from error
    program.model.metadata_props.update({"classes": json.dumps(list(classes)), "trial": trial})
    with replacing(path) as fresh:
        program.save(fresh)


class Session:
    """An ONNX file, opened by onnxruntime on the CPU."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits and probabilities of uint8 RGB images (N, H, W, 3)."""
        logits, probabilities = self._session.run(list(OUTPUTS), {INPUT: images})
        return logits, probabilities
