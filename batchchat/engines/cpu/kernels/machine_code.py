"""Machine code of kernels: compiled from `source` when it is needed first, and kept on the disk as object files.

A process that finds it there imports no compiler, which would take it a second.
"""

from __future__ import annotations

import hashlib
import importlib
import platform
import tempfile
from functools import cache
from importlib.metadata import version
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding as llvm

from batchchat.cache import cache_file
from batchchat.engines.cpu.kernels.processor import host

THREAD, THREADS = "batchchat_thread_number", "batchchat_thread_count"
"""Names under which the functions of the OpenMP runtime are known to the compiled code."""
_ENTRY = "batchchat_kernel"
_SOURCE = "batchchat.engines.cpu.kernels.source"
_OWN = "define void @{entry}(ptr %block) {{\n{slots}\n  ret void\n}}\n"
_CALL = """\
  %result = alloca ptr
  %raised = alloca ptr
  %status = call i32 @{function}(ptr %result, ptr %raised, ptr %block)"""
"""numba's functions also tell of errors; kernels know none."""
_DIGEST = hashlib.sha256().digest_size

llvm.initialize_native_target()
llvm.initialize_native_asmprinter()
llvm.initialize_native_asmparser()


class Loaded(NamedTuple):
    """A function in memory, as long as `engine` lives."""

    address: int
    engine: Any


def load(name: str, *parameters: Any) -> Loaded:
    """The kernel that a function of `source` makes of parameters, by `module.function`. What parameters are printed as
    tells them apart. Raises ImportError where it has to be compiled and there is no compiler."""
    file = _file(name, parameters)
    code = _kept(file)
    if code is None:
        code = _compiled(name, parameters)
        _keep(file, code)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return Loaded(engine.get_function_address(_ENTRY), engine)


def _compiled(name: str, parameters: tuple[Any, ...]) -> bytes:
    from numba import cfunc, types

    module_name, function_name = name.split(".")
    function = getattr(importlib.import_module(f"{_SOURCE}.{module_name}"), function_name)
    options = importlib.import_module(f"{_SOURCE}.code").OPTIONS
    made = cfunc(types.void(types.voidptr), **options)(function(*parameters))
    called = _CALL.format(function=made.native_name.removeprefix("cfunc."))
    module = llvm.parse_assembly(made.inspect_llvm() + _OWN.format(entry=_ENTRY, slots=called))
    for one in module.functions:
        if not one.is_declaration and one.name != _ENTRY:
            one.linkage = "internal"
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, llvm.create_pass_builder(_machine(), llvm.create_pipeline_tuning_options()))
    needed = [one.name for one in module.functions if one.is_declaration and not one.name.startswith("llvm.")]
    missing = [one for one in needed if llvm.address_of_symbol(one) is None]
    if missing:  # it would end the process when it is loaded
        raise RuntimeError(f"the kernel {name} needs {', '.join(missing)}, which nothing here has")
    code: bytes = _machine().emit_object(module)
    return code


@cache
def _machine() -> Any:
    """What code is made for: this processor, or the one that numba is told."""
    cpu, features = host()
    target = llvm.Target.from_default_triple()
    reloc = "static" if target.name.startswith("x86") else "default"
    return target.create_target_machine(
        cpu=cpu, features=features, opt=3, reloc=reloc, codemodel="jitdefault", jit=True
    )


def _file(name: str, parameters: tuple[Any, ...]) -> Path:
    what = "\n".join([state(), name, repr(parameters)])
    return _folder() / f"{name}-{hashlib.sha256(what.encode()).hexdigest()[:32]}.o"


@cache
def state() -> str:
    """All that compiled code depends on but its parameters."""
    own = Path(__file__).parent
    sources = [file.read_text(encoding="utf-8") for file in sorted(own.rglob("*.py"))]
    read = hashlib.sha256("\0".join(sources).encode()).hexdigest()
    return repr([read, version("numba"), version("llvmlite"), platform.machine(), *host()])


@cache
def _folder() -> Path:
    """Beside the compiled Python if that can be written, or else the user's."""
    beside = Path(cache_from_source(__file__)).parent
    try:
        beside.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=beside):
            return beside
    except OSError:
        return cache_file("kernels")


def _kept(file: Path) -> bytes | None:
    """Code that was kept whole."""
    try:
        found = file.read_bytes()
    except OSError:
        return None
    code = found[_DIGEST:]
    return code if hashlib.sha256(code).digest() == found[:_DIGEST] else None


def _keep(file: Path, code: bytes) -> None:
    """Where no folder can be written, each process compiles anew."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as written:
            written.write(hashlib.sha256(code).digest() + code)
        Path(written.name).replace(file)
    except OSError:
        return
