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
# What of numba's settings changes the code.
_SETTINGS = ("CPU_NAME", "CPU_FEATURES", "ENABLE_AVX", "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "DISABLE_INTEL_SVML")
_SETTINGS_FILE = ".numba_config.yaml"
_16_BITS = "avx512bf16"
_engines: list[Any] = []  # their code lasts as long as they do


class Code(NamedTuple):
    """What was compiled.

    Attributes:
        objects: Of each loop an object file, which wants nothing but the libraries of C and its mathematics.
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
    found = next(filter(None, (_read(place / name, is_shared=is_shared) for place, is_shared in _places())), None)
    if found is None:
        found = importlib.import_module(_COMPILER).compiled()
        _keep(name, found)
    return Loops(_loaded(found.objects), found.has_16_bits, found.multiplies_and_adds)


@cache
def may_have_16_bits() -> bool:
    """Return whether the processor multiplies numbers of bfloat16, without a compilation; False where there is no compiler."""
    named = os.environ.get("NUMBA_CPU_FEATURES")
    if named is not None:
        return f"+{_16_BITS}" in named.split(",")
    try:
        from llvmlite import binding
    except ModuleNotFoundError:
        return False
    return _16_BITS in _features(binding)


def _places() -> Iterator[tuple[Path, bool]]:
    """Yield where code may be kept, and whether others than those who change the package may write there."""
    yield Path(__file__).parent / "__pycache__", False
    with suppress(RuntimeError):  # a user without a home
        yield cache_folder() / "loops", True


def _key() -> str:
    """Return a digest of all that the code hangs on: its sources, its compiler and the compiler's settings, the processor."""
    from llvmlite import binding

    found = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        found.update(file.read_bytes())
    said = {
        "versions": [version("headrace"), version("numba"), version("llvmlite")],
        "processor": [binding.get_default_triple(), binding.get_host_cpu_name(), *sorted(_features(binding))],
        "settings": [os.environ.get(f"NUMBA_{name}") for name in _SETTINGS],
    }
    found.update(json.dumps(said).encode())
    return found.hexdigest()[:32]


def _features(binding: Any) -> set[str]:
    try:
        return {name for name, is_there in binding.get_host_cpu_features().items() if is_there}
    except RuntimeError:  # of some processors LLVM knows only the name
        return set()


def _read(path: Path, *, is_shared: bool) -> Code | None:
    """Return the code of a file; None where there is none, or not what was written, or by another user."""
    try:
        with open(path, "rb") as file:
            facts, content = os.fstat(file.fileno()), file.read()
    except OSError:
        return None
    if is_shared and (facts.st_uid not in (0, os.getuid()) or facts.st_mode & 0o022):
        _log.debug("%s is not run: others than its user could have written it", path)
        return None
    digest, _, rest = content.partition(b"\n")
    if digest.decode("ascii", "replace") != hashlib.sha256(rest).hexdigest():
        _log.debug("%s is made anew: it is not what was written", path)
        return None
    head, _, body = rest.partition(b"\n")
    about = json.loads(head)
    objects, start = {}, 0
    for name, size in about["sizes"].items():
        objects[name] = body[start : start + size]
        start += size
    return Code(objects, bool(about["has_16_bits"]), bool(about["multiplies_and_adds"]))


def _keep(name: str, code: Code) -> None:
    """Write the code where there is a place for it."""
    if Path(_SETTINGS_FILE).exists():  # what stands in it is not in the name
        return
    about = {
        "sizes": {name: len(one) for name, one in code.objects.items()},
        "has_16_bits": code.has_16_bits,
        "multiplies_and_adds": code.multiplies_and_adds,
    }
    content = b"\n".join((json.dumps(about).encode(), b"".join(code.objects.values())))
    for place, _ in _places():
        try:
            with atomic_file(place / name) as file:
                file.write(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
            os.chmod(place / name, 0o644)
        except (HeadraceError, OSError, RuntimeError) as error:
            _log.debug("compiled loops are not kept in %s: %s", place, error)
        else:
            return
    _log.warning(
        "the loops that are compiled for this processor can be kept nowhere, so that each process compiles them anew, some "
        "seconds long: name a folder of your own in the environment variable HEADRACE_CACHE"
    )


def _loaded(objects: Mapping[str, bytes]) -> dict[str, int]:
    """Return the addresses of the loops of object files, each called by its own name.

    Raises:
        OSError: The system lets no process run what it has written.
    """
    from llvmlite import binding

    binding.check_jit_execution()
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine()
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
    for content in objects.values():
        engine.add_object_file(binding.ObjectFileRef.from_data(content))
    engine.finalize_object()
    _engines.append(engine)
    return {name: engine.get_function_address(name) for name in objects}
