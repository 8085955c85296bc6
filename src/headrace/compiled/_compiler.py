"""Compiles the loops by numba, to machine code that wants nothing of numba."""

from __future__ import annotations

from typing import Any

from llvmlite import binding
from numba.core.registry import cpu_target

from headrace.compiled import _attention, _dropout
from headrace.compiled._kept import Code
from headrace.compiled._vectors import HAS_16_BITS, MULTIPLIES_AND_ADDS

_LOOPS = {"attention": _attention.attention, "gradients": _attention.gradients, "dropout": _dropout.dropout}
# numba's functions get where to put a result and an error, too, and return how it went: a loop has neither and cannot fail.
_ENTRY = """
target datalayout = "{layout}"
target triple = "{triple}"
declare i32 @"{own}"(ptr, ptr, ptr)
define void @"{name}"(ptr %given) {{
  %result = alloca ptr
  %error = alloca ptr
  %status = call i32 @"{own}"(ptr %result, ptr %error, ptr %given)
  ret void
}}
"""


def compiled() -> Code:
    """Return the loops' machine code for this processor.

    Raises:
        RuntimeError: It would call what only numba has.
    """
    return Code({name: _object(name, loop) for name, loop in _LOOPS.items()}, HAS_16_BITS, MULTIPLIES_AND_ADDS)


def _object(name: str, loop: Any) -> bytes:
    """Return the object file of one loop, which is called by that name in it."""
    (signature,) = loop.signatures
    own = loop.overloads[signature].fndesc.llvm_func_name
    module = binding.parse_assembly(loop.inspect_llvm(signature))
    entry = _ENTRY.format(layout=module.data_layout, triple=module.triple, own=own, name=name)
    module.link_in(binding.parse_assembly(entry))
    for function in module.functions:
        if not function.is_declaration and function.name != name:
            function.linkage = "internal"
    machine = cpu_target.target_context.codegen()._tm
    passes = binding.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, binding.create_pass_builder(machine, binding.create_pipeline_tuning_options()))
    named = [*module.functions, *module.global_variables]
    wanted = [one.name for one in named if one.is_declaration and not one.name.startswith("llvm.")]
    if wanted:
        raise RuntimeError(f"the loop {name!r} calls {', '.join(wanted)}")
    found: bytes = machine.emit_object(module)
    return found
