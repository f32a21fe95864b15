"""Whether an exported file says of the original test images what the trained model said of them in its study."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrstudy.data.decoding import decode
from lrstudy.data.open_source import open_source
from lrstudy.errors import Fault, InputError
from lrstudy.export.winner import Row, Winner

MOST = 1_000
"""So many images are compared at most, evenly spread over the test part: a thousand large X-rays take minutes."""
Run = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Maps uint8 RGB images (N, H, W, 3) to logits and probabilities."""


@dataclass(frozen=True)
class Comparison:
    """The outputs of an exported file beside those of the trained model.

    Attributes:
        num_images, num_test: How many images were compared, and how many the test part has.
        largest_logit, largest_probability: The largest absolute differences.
        num_changed: How many images have another most probable class (another set of labels at 0.5, if they may have
            several).
    """

    num_images: int
    num_test: int
    largest_logit: float
    largest_probability: float
    num_changed: int

    def to_json(self) -> dict[str, Any]:
        """JSON values for the card."""
        return asdict(self)

    @property
    def sentence(self) -> str:
        """What was compared, and the largest differences."""
        which = (
            f"{self.num_images:,} of the {self.num_test:,}"
            if self.num_images < self.num_test
            else f"all {self.num_test:,}"
        )
        return (
            f"onnxruntime on {which} original test images against the trained model: largest difference "
            f"{self.largest_logit:.1e} in logits, {self.largest_probability:.1e} in probabilities; {self.num_changed} "
            f"decisions changed."
        )


def compare(winner: Winner, run: Run) -> Comparison:
    """Run an exported file on the original test images, decoded but neither resized nor normalised.

    Raises InputError if the data of the study is no longer there, or has changed.
    """
    rows = winner.predictions()
    chosen = {
        rows[k]["example"]: rows[k] for k in np.unique(np.linspace(0, len(rows) - 1, min(MOST, len(rows))).astype(int))
    }
    logit, probability, changed = 0.0, 0.0, 0
    for row, image in _originals(winner, chosen):
        logits, probabilities = (output[0].astype(np.float64) for output in run(image[None]))
        logit = max(logit, float(np.abs(logits - row["scores"]).max()))
        probability = max(probability, float(np.abs(probabilities - row["probabilities"]).max()))
        changed += _decision(logits, row) != _decision(np.asarray(row["scores"]), row)
    return Comparison(len(chosen), len(rows), logit, probability, changed)


def _originals(winner: Winner, chosen: Mapping[int, Row]) -> Iterator[tuple[Row, NDArray[np.uint8]]]:
    """The predictions of the chosen examples with their images, uint8 (H, W, 3). Raises InputError."""
    source = open_source(winner.study.workload.data_spec(winner.base))
    names, last = source.names(), max(chosen)
    for example, row in chosen.items():
        if example >= len(names) or row["source"] not in (None, names[example]):
            raise InputError(Fault("data", f"{winner.lock['data']['source']} is not what it was when the study ran"))
    for example, (name, encoded) in enumerate(source.images()):
        if example in chosen:
            try:
                pixels = decode(encoded, 3, None, "squash")
            except Exception as error:  # whatever Pillow raises
                raise InputError(Fault("data", f"{name} cannot be read any more ({error})")) from None
            yield chosen[example], np.ascontiguousarray(pixels.transpose(1, 2, 0))
        if example == last:
            return


def _decision(logits: NDArray[np.float64], row: Row) -> tuple[int, ...]:
    """The labels that an image is given: all above 0.5 where it may have several, else the most probable one."""
    return tuple((logits > 0).astype(int).tolist()) if row["labels"] is not None else (int(logits.argmax()),)
