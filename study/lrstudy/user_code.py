"""A user's own code: `./mine.py:name` to the object that it names, and the digest of the source behind it.

A reference is resolved once, against the folder of the study file, to an absolute path; workers load it by that path.
The digest covers the file and the modules beside it that it imports, found without running them, so a name in the memo
stands for the code that trained it. A file and the modules beside it are imported under names that no other content
has: two folders may both have a `helpers.py`, and an edited file is another module.
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

_REFERENCE = re.compile(r"(?P<path>.+\.py):(?P<name>[A-Za-z_]\w*)")


@dataclass(frozen=True)
class Reference:
    """A name in a Python file."""

    path: Path
    name: str

    @staticmethod
    def parse(text: str, base: Path | None = None, where: str = "policy") -> Reference:
        """The reference that ``path/to/file.py:name`` is; a relative path starts at `base`. Raises InputError."""
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

    `where` is the field of the study file that a fault names; also below.
    """
    reference = Reference.parse(text, base, where)
    if not reference.path.is_file():
        raise InputError(Fault(where, f"there is no file {reference.path} (from {text})"))
    return str(reference)


def load(reference: str, where: str = "policy", source: str | None = None) -> object:
    """The object that an absolute reference names; its module runs once per process and content of its files.

    `source` asks for the content with that digest, which this process may still have while the file has changed.
    Raises InputError if the file cannot be imported, with the line at fault, has no such name, or other content.
    """
    parsed = Reference.parse(reference, where=where)
    module = sys.modules.get(_module_name(parsed, source)) if source is not None else None
    if module is None:
        found = digest(reference, where)
        if source not in (None, found):
            raise InputError(Fault(where, f"the source of {reference} has changed since it was loaded first"))
        module = sys.modules.get(_module_name(parsed, found)) or _imported(parsed, found, where)
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
    """32 hexadecimal digits over the bytes of the file and of the modules beside it that it imports, and the name.

    Imports are found in the source, wherever in it they stand; a module that is imported by a computed name is not.
    """
    parsed = Reference.parse(reference, where=where)
    total = blake2b(digest_size=16, person=b"lrstudy-source")
    total.update(f"{parsed.path.name}:{parsed.name}".encode())
    for file, content in _files(parsed.path, where).items():
        total.update(f"\n{file.relative_to(parsed.path.parent).as_posix()} {len(content)}\n".encode())
        total.update(content)
    return total.hexdigest()


def files(reference: str, where: str = "policy") -> list[Path]:
    """The files that the digest of a reference covers: its own, then those beside it, sorted."""
    return list(_files(Reference.parse(reference, where=where).path, where))


def keep(reference: str, folder: Path) -> None:
    """Copy the source behind a reference below `folder`, so that an arm can be rebuilt after the file has changed."""
    path = Reference.parse(reference).path
    target = folder / digest(reference)
    if not (target / path.name).exists():
        for file in reversed(files(reference)):  # the file itself last: it says that the copy is complete
            copy = target / file.relative_to(path.parent)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def kept(written: str, source: str, folder: Path) -> str:
    """The reference to what `keep` has copied below `folder` for a reference with the digest `source`."""
    reference = Reference.parse(written)
    return str(Reference((folder / source / reference.path.name).resolve(), reference.name))


def line_in(error: BaseException, folder: Path) -> str:
    """Where below `folder` an exception arose, as `` (line 3 of mine.py)``, or nothing."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(frame.filename).is_relative_to(folder):
            return f" (line {frame.lineno} of {Path(frame.filename).relative_to(folder)})"
    return ""


def _files(path: Path, where: str) -> dict[Path, bytes]:
    """The file, then, sorted, what it imports from its own folder, directly or not, with their bytes. Raises InputError."""
    found: dict[Path, bytes] = {}
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        try:
            found[file] = file.read_bytes()
        except OSError as error:
            reason = f"there is no file {file}" if not file.exists() else f"{file} cannot be read ({error.strerror})"
            raise InputError(Fault(where, reason)) from None
        try:
            names = _imports(found[file], _package(path.parent, file))
        except (SyntaxError, ValueError) as error:
            line = f" in line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
            raise InputError(
                Fault(where, f"{file} is not valid Python{line}: {getattr(error, 'msg', error)}")
            ) from None
        waiting += [beside for name in names for beside in _beside(path.parent, name)]
    return {file: found[file] for file in [path, *sorted(found.keys() - {path})]}


def _package(folder: Path, file: Path) -> tuple[str, ...]:
    """The package that a file below `folder` lies in, from which its relative imports start."""
    return file.relative_to(folder).parent.parts


@lru_cache(maxsize=256)
def _imports(source: bytes, package: tuple[str, ...]) -> tuple[str, ...]:
    """The names of all modules, and of what may be modules, that a source imports, relative ones made absolute."""
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
    """The files below `folder` that importing a module runs: its packages', then its own; none if it lies elsewhere."""
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
    """Run the file of a reference as a module of its own. Raises InputError, with the line of the user's at fault."""
    path, (package, _, stem) = reference.path, _module_name(reference, source).partition(".")
    try:
        return _Folder(path.parent, package).module(stem)
    except InputError as error:
        raise error.within(f"{where}: importing {path}", ": ") from error
    except ModuleNotFoundError as error:
        line = line_in(error, path.parent)
        raise InputError(Fault(where, f"{path} imports {error.name}, which is not installed{line}")) from error
    except (Exception, SystemExit) as error:
        line = line_in(error, path.parent)
        raise InputError(Fault(where, f"importing {path} raised {type(error).__name__}: {error}{line}")) from error


class _Folder:
    """The modules of one folder, imported below a package of their own; `sys.path` stays as it is.

    What a module imports from the folder, at whatever time, is found there first, as it is for a script; the
    import statement asks the module's builtins, where this class puts itself in the way.
    """

    def __init__(self, folder: Path, package: str) -> None:
        self._folder, self._package = folder, package
        root = ModuleType(package)
        root.__path__ = [str(folder)]
        sys.modules[package] = root

    def module(self, name: str) -> ModuleType:
        """The module `name`, dotted, relative to the folder."""
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
        sys.modules[full] = module  # dataclasses and type hints look their module up
        try:
            code = compile(file.read_bytes(), str(file), "exec", dont_inherit=True)
            exec(code, vars(module))  # never from a .pyc file, which goes by whole seconds
        except BaseException:
            del sys.modules[full]
            raise
        setattr(parent, leaf, module)
        return module

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """What an import statement in one of the folder's modules calls (the signature is `__import__`'s)."""
        if level:
            package = str((globals or {}).get("__package__"))
            name = importlib.util.resolve_name("." * level + name, package).removeprefix(self._package).lstrip(".")
        if name and len(list(_beside(self._folder, name))) <= name.count("."):  # not all of it lies here
            if level or any(_beside(self._folder, name)):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            return builtins.__import__(name, globals, locals, fromlist or (), 0)
        module = self.module(name) if name else sys.modules[self._package]
        for item in fromlist or ():
            below = f"{name}.{item}".lstrip(".")
            if not hasattr(module, item) and len(list(_beside(self._folder, below))) > below.count("."):
                self.module(below)
        return module if fromlist else sys.modules[f"{self._package}.{name.partition('.')[0]}"]


def _defined(module: ModuleType) -> list[str]:
    """The public names that a module defines itself, or, if there are none, all its public names."""
    public = [name for name in vars(module) if not name.startswith("_")]
    own = [name for name in public if getattr(vars(module)[name], "__module__", None) == module.__name__]
    return sorted(own or public)
