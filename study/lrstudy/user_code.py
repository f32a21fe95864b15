"""A user's own code: loads the object that `./mine.py:name` refers to, and computes the digest of its source.

A reference is resolved once, relative to the folder of the study file, to an absolute path, by which workers load it.
The digest covers the file and the modules beside it that it imports, which are found without running them; so a name in
the memo identifies the code that trained it. A file and the modules beside it are imported under names that are unique
to their content: two folders may both have a `helpers.py`, and an edited file is a different module.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import re
import shutil
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from types import ModuleType

from lrstudy.errors import Fault, InputError, user_path
from lrstudy.opened_files import recording
from lrstudy.study_folder.replace_file import replacing

_OPENED = "__lrstudy_opened__"
"""An attribute of a user's module: the files that were read when it was imported."""
_REFERENCE = re.compile(r"(?P<path>.+\.py):(?P<name>[A-Za-z_]\w*)")


@dataclass(frozen=True)
class Reference:
    """A name in a Python file, written ``path/to/file.py:name``."""

    path: Path
    name: str

    @staticmethod
    def parse(text: str, base: Path | None = None, where: str = "policy") -> Reference:
        """The reference in a text; a relative path starts at `base`. Raises InputError, placed at `where`."""
        match = _REFERENCE.fullmatch(text)
        if match is None:
            raise InputError(Fault(where, expected="a reference such as ./mine.py:name", got=f"{text!r}"))
        path = user_path(match["path"], where)
        return Reference((base / path).resolve() if base is not None else path, match["name"])

    def __str__(self) -> str:
        return f"{self.path}:{self.name}"


def is_reference(text: object) -> bool:
    """Whether a text has the form ``path/to/file.py:name``."""
    return isinstance(text, str) and _REFERENCE.fullmatch(text) is not None


def resolve(text: str, base: Path, where: str = "policy") -> str:
    """The reference with an absolute path; a relative one starts at `base`. Raises InputError if there is no file.

    `where` is the field of the study file at which faults are placed, here and below.
    """
    reference = Reference.parse(text, base, where)
    if not reference.path.is_file():
        raise InputError(Fault(where, f"there is no file {reference.path} (from {text})"))
    return str(reference)


def load(reference: str, where: str = "policy", source: str | None = None) -> object:
    """The object that an absolute reference names. Its module runs once per process and content of its files.

    `source` asks for the content with that digest, which this process may still have loaded after the file has changed.
    Raises InputError if the file cannot be imported, naming the line, lacks the name, or has content other than
    `source`.
    """
    parsed = Reference.parse(reference, where=where)
    module = sys.modules.get(_module_name(parsed, source)) if source is not None else None
    if module is None:
        current = digest(reference, where)
        if source not in (None, current):
            raise InputError(Fault(where, f"the source of {reference} has changed since it was loaded first"))
        module = sys.modules.get(_module_name(parsed, current)) or _imported(parsed, current, where)
    if not hasattr(module, parsed.name):
        names = _defined(module)
        raise InputError(
            Fault(
                where,
                f"{parsed.path} has no {parsed.name!r}",
                valid=tuple(names),
                name=parsed.name,
                advice="" if names else "It defines no names.",
            )
        )
    named: object = getattr(module, parsed.name)
    return named


def digest(reference: str, where: str = "policy") -> str:
    """32 hexadecimal digits over the name, and the bytes of the file and of the modules beside it that it imports.

    Import statements are found anywhere in the source; a module that is imported under a computed name is missed.
    """
    parsed = Reference.parse(reference, where=where)
    total = blake2b(digest_size=16, person=b"lrstudy-source")
    total.update(f"{parsed.path.name}:{parsed.name}".encode())
    for file, content in _files(parsed.path, where).items():
        total.update(f"\n{file.relative_to(parsed.path.parent).as_posix()} {len(content)}\n".encode())
        total.update(content)
    return total.hexdigest()


def files(reference: str, where: str = "policy") -> list[Path]:
    """The files that the digest of a reference covers: its own, then the modules beside it, sorted."""
    return list(_files(Reference.parse(reference, where=where).path, where))


def keep(reference: str, folder: Path) -> None:
    """Copy the files of a reference to `folder`, below their digest, to rebuild an arm after they have changed."""
    path = Reference.parse(reference).path
    target = folder / digest(reference)
    if not (target / path.name).exists():
        for file in reversed(files(reference)):  # its own file last: if it is there, the copy is complete
            copy = target / file.relative_to(path.parent)
            copy.parent.mkdir(parents=True, exist_ok=True)
            with replacing(copy) as fresh:
                shutil.copyfile(file, fresh)


def kept(written: str, source: str, folder: Path) -> str:
    """The reference to the copy that `keep` has made in `folder` of a reference with the digest `source`."""
    reference = Reference.parse(written)
    return str(Reference((folder / source / reference.path.name).resolve(), reference.name))


def opened_at_import(reference: str, source: str) -> frozenset[str]:
    """The files that a reference's module, of the digest `source`, read when this process imported it.

    Absolute paths, without Python code; none if the module is not loaded.
    """
    module = sys.modules.get(_module_name(Reference.parse(reference), source))
    return getattr(module, _OPENED, frozenset())


def line_in(error: BaseException, folder: Path) -> str:
    """The innermost line below `folder` that raised an exception, as `` (line 3 of mine.py)``; empty if none did."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(frame.filename).is_relative_to(folder):
            return f" (line {frame.lineno} of {Path(frame.filename).relative_to(folder)})"
    return ""


def _files(path: Path, where: str) -> dict[Path, bytes]:
    """The bytes of a file and of the modules that it imports, directly or not, from its folder. Raises InputError.

    The file itself comes first, then the modules, sorted.
    """
    contents: dict[Path, bytes] = {}
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file in contents:
            continue
        try:
            contents[file] = file.read_bytes()
        except OSError as error:
            reason = f"there is no file {file}" if not file.exists() else f"{file} cannot be read ({error.strerror})"
            raise InputError(Fault(where, reason)) from None
        try:
            names = _imports(contents[file], _package(path.parent, file))
        except (SyntaxError, ValueError) as error:
            line = f" in line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
            problem = f"{file} is not valid Python{line}: {getattr(error, 'msg', error)}"
            raise InputError(Fault(where, problem)) from None
        waiting += [beside for name in names for beside in _beside(path.parent, name)]
    return {file: contents[file] for file in [path, *sorted(contents.keys() - {path})]}


def _package(folder: Path, file: Path) -> tuple[str, ...]:
    """The package of a file below `folder`, from which its relative imports start."""
    return file.relative_to(folder).parent.parts


@lru_cache(maxsize=256)
def _imports(source: bytes, package: tuple[str, ...]) -> tuple[str, ...]:
    """The absolute names of everything that a source imports and that may be a module."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            names += [module, *(f"{module}.{alias.name}".lstrip(".") for alias in node.names)]
    return tuple(dict.fromkeys(filter(None, names)))


def _beside(folder: Path, name: str) -> Iterator[Path]:
    """The files below `folder` that importing a module runs: its packages', then its own; up to the first missing."""
    parts = name.split(".")
    if parts[0] == "lrstudy":
        return
    for depth in range(1, len(parts) + 1):
        stem = folder.joinpath(*parts[:depth])
        file = next((f for f in (stem / "__init__.py", stem.with_name(f"{stem.name}.py")) if f.is_file()), None)
        if file is None:
            return
        yield file


def _module_name(reference: Reference, source: str) -> str:
    place = blake2b(str(reference.path.parent).encode(), digest_size=4).hexdigest()
    return f"lrstudy_own_{source}_{place}.{reference.path.stem}"


def _imported(reference: Reference, source: str, where: str) -> ModuleType:
    """Import the file of a reference as a new module. Raises InputError, naming the user's line that failed."""
    path, (package, _, stem) = reference.path, _module_name(reference, source).partition(".")
    try:
        with recording() as opened:
            module = _Folder(path.parent, package).module(stem)
        setattr(module, _OPENED, frozenset(opened))
        return module
    except InputError as error:
        raise error.within(f"{where}: importing {path}", ": ") from error
    except ModuleNotFoundError as error:
        line = line_in(error, path.parent)
        raise InputError(Fault(where, f"{path} imports {error.name}, which is not installed{line}")) from error
    except (Exception, SystemExit) as error:
        line = line_in(error, path.parent)
        raise InputError(Fault(where, f"importing {path} raised {type(error).__name__}: {error}{line}")) from error


class _Folder:
    """Imports the modules of one folder below a package of their own, without changing `sys.path`.

    When one of these modules imports something, at any time, the folder is searched first, as it is for a script. An
    import statement calls `__import__` of its module's builtins, which this class replaces.
    """

    def __init__(self, folder: Path, package: str) -> None:
        self._folder, self._package = folder, package
        root = ModuleType(package)
        root.__path__ = [str(folder)]
        sys.modules[package] = root

    def module(self, name: str) -> ModuleType:
        """The module with the dotted name `name`, relative to the folder; runs it if it is not loaded yet."""
        full = f"{self._package}.{name}"
        if full in sys.modules:
            return sys.modules[full]
        above, _, leaf = name.rpartition(".")
        parent = self.module(above) if above else sys.modules[self._package]
        *_, file = _beside(self._folder, name)
        inside = [str(file.parent)] if file.name == "__init__.py" else None
        spec = importlib.util.spec_from_file_location(full, file, submodule_search_locations=inside)
        assert spec is not None, file
        module = importlib.util.module_from_spec(spec)
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": self._import}
        sys.modules[full] = module  # before it runs, as dataclasses and type hints look their module up
        try:
            code = compile(file.read_bytes(), str(file), "exec", dont_inherit=True)
            exec(code, vars(module))  # not from a .pyc file, which would miss an edit within the same second
        except BaseException:
            del sys.modules[full]
            raise
        setattr(parent, leaf, module)
        return module

    def _has(self, name: str) -> bool:
        """Whether a module and all its packages are in the folder."""
        return len(list(_beside(self._folder, name))) > name.count(".")

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """Called by import statements in the folder's modules; replaces `__import__`, whose signature it has."""
        if level:
            package = str((globals or {}).get("__package__"))
            name = importlib.util.resolve_name("." * level + name, package).removeprefix(self._package).lstrip(".")
        if name and not self._has(name):
            if level or any(_beside(self._folder, name)):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            return builtins.__import__(name, globals, locals, fromlist or (), 0)
        module = self.module(name) if name else sys.modules[self._package]
        for item in fromlist or ():
            below = f"{name}.{item}".lstrip(".")
            if not hasattr(module, item) and self._has(below):
                self.module(below)
        return module if fromlist else sys.modules[f"{self._package}.{name.partition('.')[0]}"]


def _defined(module: ModuleType) -> list[str]:
    """The public names that a module defines itself, or, if there are none, all its public names."""
    public = [name for name in vars(module) if not name.startswith("_")]
    own = [name for name in public if getattr(vars(module)[name], "__module__", None) == module.__name__]
    return sorted(own or public)
