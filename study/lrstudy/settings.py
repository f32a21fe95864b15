"""Settings: the exact numbers that one epoch is trained with, and their canonical bytes.

Everything that training an epoch receives beyond the state and the data is a field here, so that a
state's name (lineage.py) can be computed from it. Numbers are rounded once, to 9 significant digits;
the rounded numbers are both applied and named. Nine digits: two algebraic forms of one cosine differ
in the 16th digit, and with 12 digits 17 of 40 measured runs still missed epochs they should share.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
Optimizer = Literal["sgd", "adam", "adamw", "rmsprop", "rmsprop_keras"]
Tail = Literal["keep", "drop"]
BatchNormMode = Literal["train", "frozen", "eval"]
Input = Literal["images", "features"]
DIGITS = 9
_POWERS = np.array([float(f"1e{k}") for k in range(-300, 301)])


def rounded(values: ArrayLike) -> FloatArray:
    """Round to 9 significant digits, as little-endian float64, with -0 turned into 0.

    The result is the same on every platform: the decade is looked up in a table of decimal literals, and the rest is
    IEEE multiplication, division and rounding. No logarithm is taken. Non-finite values pass through.
    """
    array = np.array(values, dtype="<f8")
    magnitude = np.abs(array)
    regular = (magnitude >= 1e-280) & (magnitude < 1e280)
    if regular.all():  # as nearly always
        return np.asarray(_rounded_regular(array, magnitude))
    array[regular] = _rounded_regular(array[regular], magnitude[regular])
    array[magnitude < 1e-280] = 0.0
    return array


def _rounded_regular(array: FloatArray, magnitude: FloatArray) -> FloatArray:
    """`rounded` for numbers whose magnitude lies in [1e-280, 1e280)."""
    exponent = np.searchsorted(_POWERS, magnitude, side="right") - 301  # floor(log10(|x|))
    shift = DIGITS - 1 - exponent
    up, down = _POWERS[np.maximum(shift, 0) + 300], _POWERS[np.maximum(-shift, 0) + 300]
    nearest: FloatArray = np.rint(array * up / down) / up * down
    return nearest


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The part of an epoch's settings that most policies leave as the study gave it.

    Attributes:
        beta2, eps, alpha: Constants of the optimizer: its own defaults where they are None, and None where the
            optimizer has no such constant. Adam's beta1 is the `momentum` of the settings.
        class_weights: One weight per class, or None for equal ones.
        clip_norm: The largest norm of the gradient, or None.
        augment: ``none``, ``flip``, ``crop_flip``, a list of transforms as canonical JSON, or a reference to a user's
            function.
        trainable: One flag per section, or empty if all sections are trained. The others get neither gradients nor
            updates, not even by weight decay.
        batchnorm: ``train``: BatchNorm normalises by the batch and gathers running statistics. ``frozen``: it uses its
            running statistics and keeps them; scale and shift still learn. ``eval``: whatever is not trained is in
            evaluation mode, BatchNorm, dropout and stochastic depth alike.
        norm_batch: The number of examples that BatchNorm takes its statistics over; None: the whole batch.
        micro_batch: The number of examples whose gradients are accumulated at a time; None: the whole batch.
        reset_optimizer: Whether the epoch begins with a new optimizer: true where a stage begins.
        input: ``images``, or ``features``: the head alone is trained, on what enters it, computed once for all epochs.
        tail: What happens to the last, smaller batch of an epoch. `keep` trains it, but merges a tail of a single
            example into the batch before it, because BatchNorm cannot normalise one example; `drop` leaves it out.
    """

    optimizer: Optimizer = "sgd"
    nesterov: bool = False
    beta2: float | None = None
    eps: float | None = None
    alpha: float | None = None
    weight_decay: float = 0.0
    loss: Literal["cross_entropy", "binary_cross_entropy"] = "cross_entropy"
    class_weights: tuple[float, ...] | None = None
    clip_norm: float | None = None
    augment: str = "none"
    trainable: tuple[bool, ...] = ()
    batchnorm: BatchNormMode = "train"
    norm_batch: int | None = None
    micro_batch: int | None = None
    reset_optimizer: bool = False
    input: Input = "images"
    tail: Tail = "keep"

    def __post_init__(self) -> None:
        """Fill in the optimizer's constants, and turn whole numbers into floats: a study file may write 0 or 0.0."""
        for name, default in OPTIMIZER_CONSTANTS[self.optimizer].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
        for name in ("weight_decay", "beta2", "eps", "alpha", "clip_norm"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, float(getattr(self, name)))
        if self.class_weights is not None:
            object.__setattr__(self, "class_weights", tuple(float(weight) for weight in self.class_weights))


OPTIMIZER_CONSTANTS: dict[str, dict[str, float]] = {
    "sgd": {},
    "adam": {"beta2": 0.999, "eps": 1e-8},
    "adamw": {"beta2": 0.999, "eps": 1e-8},
    "rmsprop": {"alpha": 0.99, "eps": 1e-8},
    "rmsprop_keras": {"alpha": 0.9, "eps": 1e-7},
}
"""The constants that each optimizer has, with torch's or Keras' defaults; Keras calls alpha rho."""


Effort = Literal["all", "some", "features"]
"""How much of the network an epoch computes with: all of it, all forward and some sections backward, or the head alone."""


def effort(recipe: Recipe) -> Effort:
    """How much of the network an epoch with this recipe computes with."""
    return "features" if recipe.input == "features" else "some" if recipe.trainable else "all"


@dataclass(frozen=True, eq=False)
class Settings:
    """What one epoch is trained with.

    `lr` and `momentum` have shape (updates, sections), float64, rounded on construction; `lr[k]` is the
    rate *used by* update k. Two settings are equal when their canonical bytes are.
    Raises ValueError for a non-finite or negative rate, a momentum outside [0, 1), or a batch below 1.
    """

    lr: FloatArray
    momentum: FloatArray
    batch_size: int
    recipe: Recipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        lr = np.atleast_1d(rounded(self.lr))
        lr = lr.reshape(-1, 1) if lr.ndim == 1 else lr
        if lr.ndim != 2 or min(lr.shape) < 1:
            raise ValueError(f"lr must have shape (updates, sections), both >= 1; got {lr.shape}")
        momentum = _rounded_momentum(self.momentum, lr.shape)
        if not (lr.min() >= 0 and lr.max() < math.inf):
            bad = int(np.flatnonzero(~(np.isfinite(lr) & (lr >= 0)).all(axis=1))[0])
            raise ValueError(f"lr must be finite and >= 0; update {bad} has {lr[bad].tolist()}")
        if type(self.batch_size) is not int or self.batch_size < 1:  # 32.0 would get another name than 32
            raise ValueError(f"batch_size must be a whole number >= 1; got {self.batch_size!r}")
        lr.setflags(write=False)
        object.__setattr__(self, "_unrounded_lr", np.asarray(self.lr, dtype=np.float64).reshape(lr.shape))
        object.__setattr__(self, "lr", lr)
        object.__setattr__(self, "momentum", momentum)

    @property
    def unrounded_lr(self) -> FloatArray:
        """`lr` as the policy computed it, for traces and comparisons with other implementations; training uses `lr`."""
        unrounded: FloatArray = vars(self)["_unrounded_lr"]
        return unrounded

    @property
    def num_updates(self) -> int:
        """Number of optimizer updates in the epoch."""
        return int(self.lr.shape[0])

    @property
    def num_sections(self) -> int:
        """Number of parameter groups of the model, ordered from input to head."""
        return int(self.lr.shape[1])

    @cached_property
    def digest(self) -> str:
        """Name of these settings: 128-bit BLAKE2b of the canonical bytes, 32 hexadecimal digits."""
        return blake2b(self.canonical, digest_size=16).hexdigest()

    @cached_property
    def canonical(self) -> bytes:
        """The bytes that stand for these settings in a name: sorted JSON of scalars, then both arrays."""
        scalars = _scalars(self.batch_size, self.num_updates, self.num_sections, self.recipe)
        return scalars + b"\n" + self.lr.tobytes() + self.momentum.tobytes()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Settings) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


def _rounded_momentum(values: ArrayLike, shape: tuple[int, ...]) -> FloatArray:
    """Momentum, rounded and broadcast to (updates, sections), read-only. Raises ValueError outside [0, 1)."""
    given = np.asarray(values, dtype=np.float64)
    if given.size and not any(given.strides):  # one number, as nearly always
        return _constant(float(given.reshape(-1)[0]), shape)
    momentum = rounded(given)
    momentum = momentum.reshape(-1, 1) if momentum.ndim == 1 else momentum
    return _momentum(np.ascontiguousarray(np.broadcast_to(momentum, shape)))


@lru_cache(maxsize=64)
def _constant(value: float, shape: tuple[int, ...]) -> FloatArray:
    """A constant momentum, built once for the many epochs that use it."""
    return _momentum(np.full(shape, rounded(value)))


def _momentum(values: FloatArray) -> FloatArray:
    if not (values.min() >= 0 and values.max() < 1):
        raise ValueError(f"momentum must lie in [0, 1); got {values.min()} ... {values.max()}")
    values.setflags(write=False)
    return values


@lru_cache(maxsize=1024)
def _scalars(batch_size: int, num_updates: int, num_sections: int, recipe: Recipe) -> bytes:
    """JSON of all scalar settings. Cached: it is the same for most epochs of a study, and half the cost of a name."""
    return canonical_json({"batch_size": batch_size, "shape": [num_updates, num_sections], **asdict(recipe)})


def canonical_json(value: object) -> bytes:
    """Compact JSON with sorted keys and floats rounded to 9 digits; 1.0 and 1 stay different.

    Raises ValueError for NaN and infinities, TypeError for values that JSON cannot represent.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


@lru_cache(maxsize=4096)
def _rounded_number(value: float) -> float:
    return float(rounded(value))


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (bool, str, int)) or value is None:
        return value
    if isinstance(value, float):
        return _rounded_number(value) if math.isfinite(value) else value
    raise TypeError(f"cannot name a {type(value).__name__}: {value!r}")
