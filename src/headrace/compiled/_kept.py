"""The loops' machine code: read where it is kept, else compiled and kept, once for a kind of processor.

numba can keep what it compiled, but only numba can read it: to import numba and to rebuild its types takes ten times as long
as to load the code.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from headrace.errors import HeadraceError
from headrace.files import atomic_file, cache_folder

_log = logging.getLogger(__name__)

_COMPILER = "headrace.compiled._compiler"
_engines: list[Any] = []  # their code lasts as long as they do


class Code(NamedTuple):
    """What was compiled.

    Attributes:
        objects: Of each loop an object file, which wants nothing but the C library.
        has_16_bits: Whether the processor multiplies numbers of bfloat16.
        multiplies_and_adds: Whether it multiplies and adds in one step.
    """

    objects: Mapping[str, bytes]
    has_16_bits: bool
    multiplies_and_adds: bool


class Loops(NamedTuple):
    """Loops that are ready to run.

    Attributes:
        addresses: Of each.
        has_16_bits, multiplies_and_adds: As in `Code`.
    """

    addresses: Mapping[str, int]
    has_16_bits: bool
    multiplies_and_adds: bool


@cache
def loops() -> Loops:
    """Return the loops; the first time on a machine that takes some seconds.

    Raises:
        ModuleNotFoundError: There is no compiler.
        Exception: It fails, in whatever way.
    """
    name = f"loops-{_key()}.bin"
    found = next(filter(None, (_read(place / name) for place in _places())), None)
    if found is None:
        found = importlib.import_module(_COMPILER).compiled()
        _keep(name, found)
    return Loops(_loaded(found.objects), found.has_16_bits, found.multiplies_and_adds)


def _places() -> Iterator[Path]:
    """Yield where code may be kept: beside its sources as Python's own is, or where it is this user's."""
    yield Path(__file__).parent / "__pycache__"
    yield cache_folder() / "loops"


def _key() -> str:
    """Return a digest of all that the code hangs on: its sources, its compiler and the compiler's settings, the processor."""
    from llvmlite import binding

    found = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        found.update(file.read_bytes())
    said = {
        "versions": [version("numba"), version("llvmlite")],
        "processor": [binding.get_default_triple(), binding.get_host_cpu_name(), *sorted(_features(binding))],
        "settings": sorted(item for item in os.environ.items() if item[0].startswith("NUMBA_")),
    }
    found.update(json.dumps(said).encode())
    return found.hexdigest()[:32]


def _features(binding: Any) -> Iterator[str]:
    with suppress(RuntimeError):  # of some processors LLVM knows only the name
        yield from (name for name, is_there in binding.get_host_cpu_features().items() if is_there)


def _read(path: Path) -> Code | None:
    """Return the code of a file; None where there is none, or not what was written."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    head, _, rest = content.partition(b"\n")
    try:
        about = json.loads(head)
        if about["sha256"] != hashlib.sha256(rest).hexdigest():
            raise ValueError("its content is not what was written")
        objects, start = {}, 0
        for name, size in about["sizes"].items():
            objects[name] = rest[start : start + size]
            start += size
        return Code(objects, bool(about["has_16_bits"]), bool(about["multiplies_and_adds"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        _log.debug("%s is made anew: %s", path, error)
        return None


def _keep(name: str, code: Code) -> None:
    """Write the code where there is a place for it."""
    rest = b"".join(code.objects.values())
    about = {
        "sha256": hashlib.sha256(rest).hexdigest(),
        "sizes": {name: len(one) for name, one in code.objects.items()},
        "has_16_bits": code.has_16_bits,
        "multiplies_and_adds": code.multiplies_and_adds,
    }
    for place in _places():
        try:
            with atomic_file(place / name) as file:
                file.write(json.dumps(about).encode() + b"\n" + rest)
        except HeadraceError as error:
            _log.debug("compiled loops are not kept in %s: %s", place, error)
        else:
            return
    _log.warning(
        "the loops that are compiled for this processor can be kept nowhere, so that each process compiles them anew, some "
        "seconds long: name a folder in the environment variable HEADRACE_CACHE"
    )


def _loaded(objects: Mapping[str, bytes]) -> dict[str, int]:
    """Return the addresses of the loops of object files, each called by its own name."""
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine()
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
    for content in objects.values():
        engine.add_object_file(binding.ObjectFileRef.from_data(content))
    engine.finalize_object()
    _engines.append(engine)
    return {name: engine.get_function_address(name) for name in objects}
