"""What all commands share: the application, the types of their arguments, and how a command line names a study."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.console import Console

BEGUN = time.monotonic()
"""When the user began to wait for the command (monotonic clock)."""

app = typer.Typer(
    name="lrstudy",
    help="Which learning-rate or batch-size policy gives the most accuracy per GPU-hour, and is the difference real?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

StudyAndOverrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="A study file (none: the embedded quickstart), then overrides such as budget.epochs=5.",
        metavar="[STUDY.yaml] [key=value ...]",
    ),
]
StudyPolicyAndOverrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="A study file (none: the embedded quickstart) with overrides, or a policy with values of its parameters.",
        metavar="[STUDY.yaml | ./mine.py:knee | torch:NAME] [key=value ...]",
    ),
]
As = Annotated[str | None, typer.Option("--as", help="Run under another name.", metavar="NAME")]
Address = Annotated[
    str | None,
    typer.Option(
        "--address", help="A Ray cluster: auto for that of this machine, or HOST:PORT.", metavar="auto|HOST:PORT"
    ),
]
WithoutToken = Annotated[
    bool, typer.Option("--without-token", help="Accept a cluster that asks for no token (docs/security.md).")
]
Slots = Annotated[
    int | None,
    typer.Option(
        min=1, help="How many trials run at once; by default as many as fit. An autoscaled cluster grows to it."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")]


def split(arguments: list[str] | None) -> tuple[str | None, list[str]]:
    """The study file, if the first argument is one, and the overrides."""
    texts = arguments or []
    if texts and "=" not in texts[0]:
        return texts[0], texts[1:]
    return None, texts


_PIPE = 120


def console_for_tables() -> Console:
    """Standard output; where that is no terminal, with enough columns for any table."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PIPE)


def counted(number: int, word: str) -> str:
    """``1 arm``, ``2 arms``."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def names_and_overrides(arguments: list[str] | None) -> tuple[list[str], list[str]]:
    """The names among the arguments, and the ``key=value`` texts, which may stand anywhere between them."""
    texts = arguments or []
    return [text for text in texts if "=" not in text], [text for text in texts if "=" in text]


def is_policy(name: str) -> bool:
    """Whether an argument names a policy: one of a user's file, of torch or of the catalogue."""
    from lrstudy import policies, user_code

    if is_study_file(name) or "=" in name:
        return False
    return user_code.is_reference(name) or name.startswith(policies.TORCH) or name in policies.registry()


def is_study_file(name: str) -> bool:
    """Whether an argument names a study file."""
    return name.endswith((".yaml", ".yml"))
