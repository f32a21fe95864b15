"""What a type annotation asks for: reads values by it and says, in words, what it expects.

Study files and the parameters of policies are checked by the same annotations. A value is never repaired: whole numbers
become floats and lists become tuples where the annotation says so, but a truth value or a text is no number, and 32.0 is
no whole number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, PydanticSchemaGenerationError, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

Reader = Callable[[object], Any]
"""Gives a value as an annotation wants it, or raises ValueError."""

_STRICT = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
_WORDS = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "a text",
    dict: "a map",
    NoneType: "null",
}


@dataclass(frozen=True)
class Rule:
    """What a value must fulfil beyond its type, written as ``Annotated[float, Rule(...)]``.

    `expected` completes "expected ..." in the error; `holds` is asked with a value of the right type, and may raise
    ValueError instead of answering False.
    """

    expected: str
    holds: Callable[[Any], bool]

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def _checked(self, value: Any) -> Any:
        if not self.holds(value):
            raise ValueError(f"expected {self.expected}")
        return value


@cache
def reader(annotation: Any) -> Reader:
    """How values become what `annotation` asks for; everything passes where it is a type that pydantic cannot check."""
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(_with_tuples(annotation), config=_STRICT)
    except PydanticSchemaGenerationError:
        return lambda value: value
    return lambda value: adapter.validate_python(_plain(value))


def json_schema(annotation: Any) -> dict[str, Any]:
    """The JSON Schema of an annotation's values, as far as JSON Schema can say it: the bounds of `Rule` are in words."""
    return TypeAdapter(annotation, config=_STRICT).json_schema()


def description(annotation: Any, *, says_null: bool = True) -> str:
    """What a value must be, as the words after "expected".

    Args:
        annotation: A type, perhaps `Annotated` with a `Rule` or a pydantic field, whose words then stand for it.
        says_null: Whether null is named where it is allowed.
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        said = [_words(metadata) for metadata in inner[1:]]
        return next(filter(None, reversed(said)), None) or description(inner[0], says_null=says_null)
    if origin in (Union, UnionType):
        options = [option for option in inner if says_null or option is not NoneType]
        return either([description(option, says_null=says_null) for option in options])
    if origin is Literal:
        return either([str(value) for value in inner])
    if origin in (list, tuple):
        return f"a list of which each is {description(inner[0], says_null=says_null)}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"a map (keys: {', '.join(annotation.model_fields)})"
    return _WORDS.get(origin or annotation, str(annotation))


def options(annotation: Any) -> Iterator[Any]:
    """The branches of an annotation that are no unions themselves."""
    if get_origin(annotation) is Annotated:
        yield from options(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for option in get_args(annotation):
            yield from options(option)
    else:
        yield annotation


def names(annotation: Any) -> tuple[str, ...]:
    """The words that an annotation lists, as in ``Literal["keep", "drop"]``."""
    listed = (get_args(option) for option in options(annotation) if get_origin(option) is Literal)
    return tuple(str(value) for values in listed for value in values)


def has_metadata(annotation: Any, metadata: object) -> bool:
    """Whether an annotation, or a branch of it, is `Annotated` with `metadata`."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return metadata in inner[1:] or has_metadata(inner[0], metadata)
    return origin in (Union, UnionType) and any(has_metadata(option, metadata) for option in inner)


def either(words: Sequence[str]) -> str:
    """``a, b or c``."""
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _words(metadata: object) -> str | None:
    """The words of a rule or of a pydantic field."""
    if isinstance(metadata, Rule):
        return metadata.expected
    return metadata.description if isinstance(metadata, FieldInfo) else None


def _with_tuples(annotation: Any) -> Any:
    """The annotation with tuples for lists, which `_plain` makes: values stay as they are and can be hashed."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return Annotated.__class_getitem__((_with_tuples(inner[0]), *inner[1:]))
    if origin is list:
        return tuple.__class_getitem__((_with_tuples(inner[0]), ...))
    if origin is tuple:
        return tuple.__class_getitem__(tuple(map(_with_tuples, inner)))
    if origin in (Union, UnionType):
        return Union[tuple(map(_with_tuples, inner))]  # noqa: UP007  # the branches are known at run time only
    return annotation


def _plain(value: object) -> object:
    """Numbers of numpy and the like as Python's, lists as tuples."""
    if isinstance(value, (list, tuple)):
        return tuple(map(_plain, value))
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value
