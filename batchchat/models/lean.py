"""transformers without the parts that running a text model has no use for, for the processes of the command line.

With a model's code transformers imports torch's compiler, its distributed tensors, sympy and scipy: as long as torch
itself takes. What it can do without, by its own tests of what is installed, it is told not to find; the compiler, whose
decorators it always uses, is imported by whoever wants more of it than those.
"""

from __future__ import annotations

import functools
import gc
import importlib
import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from batchchat.cache import read_cache, write_cache
from batchchat.errors import UsageError
from batchchat.models.identity import folder_at_hand
from batchchat.models.names import resolve_name
from batchchat.recipe import Recipe
from batchchat.recipe.model import ModelSection

TRIED = {"transformers": ("5.23",), "torch": ("2.13",), "bitsandbytes": ("0.50",)}
"""Versions with which the tests have done it; with others everything is imported."""
NOT_FOUND = ("is_torch_distributed_available", "is_scipy_available", "is_torch_flex_attn_available")
"""What transformers asks, and is told that it is not there."""
_STRUCTURE = "transformers.json"
Structure = Callable[..., dict[frozenset[str], dict[str, set[str]]]]
_TESTS = "transformers.utils.import_utils"
_COMPILER = "torch._dynamo"
_MASKS = "torch._dynamo._trace_wrapped_higher_order_op"
_IN_MASKS = "TransformGetItemToIndex"
_UNUSUAL = ("flex_attention", "auto_map")
"""What in a config may need more of torch."""
_QUANTIZED, _QUANTIZER = "quantization_config", "bitsandbytes"


def import_lean(recipe: Recipe) -> None:
    """To be called before the first import of transformers, in a process that does nothing but this recipe. Does
    nothing where a part that is left out might be needed."""
    is_first = not {"transformers", _COMPILER} & set(sys.modules)
    if is_first and _are_tried() and all(map(_is_plain, _sections(recipe))):
        sys.meta_path[:0] = [_Finder(_TESTS, _tests_told), _Finder(_QUANTIZER, _compiled_later)]
        sys.modules[_COMPILER] = _Compiler()
        sys.modules[_MASKS] = _Masks()
    if "parquet" in recipe.sink.formats and "pandas" not in sys.modules:
        _know_arrow_without_pandas()


def settle() -> None:
    """To be called when most is imported, which then stays: where it was made lean, the collector of cycles leaves it
    out from now on."""
    if isinstance(sys.modules.get(_COMPILER), _Compiler):
        gc.freeze()


@contextmanager
def unfilled() -> Iterator[None]:
    """Within, where it was made lean, little is computed of tensors without memory, of which transformers makes a model
    before it reads the weights: torch's code for it imports sympy."""
    if not isinstance(sys.modules.get(_COMPILER), _Compiler):
        yield
        return
    import torch
    from torch.nn import init
    from torch.overrides import TorchFunctionMode

    class Unfilled(TorchFunctionMode):
        """Fills nothing with random numbers, and counts in memory, until the numbers meet a tensor without."""

        def __torch_function__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
            named = named or {}
            if function is init.normal_ and named["tensor"].is_meta:
                return named["tensor"]
            if function is torch.arange and str(named.get("device")) == "meta":
                named = {**named, "device": "cpu"}
            elif any(isinstance(one, torch.Tensor) and one.is_meta for one in given):
                given = [one.to("meta") if isinstance(one, torch.Tensor) and one.ndim else one for one in given]
            return function(*given, **named)

    with Unfilled():
        yield


def _know_arrow_without_pandas() -> None:
    """pyarrow imports pandas to see whether the first list that it gets is one of pandas'. It does so again where
    something has to be, so this time it may find none."""
    import pyarrow

    without = _Without("pandas")
    sys.meta_path.insert(0, without)
    try:
        pyarrow.array([])
    finally:
        sys.meta_path.remove(without)


def _are_tried() -> bool:
    try:
        return all(version(name).startswith(tuple(f"{one}." for one in tried)) for name, tried in TRIED.items())
    except PackageNotFoundError:
        return False


def _sections(section: BaseModel) -> Iterator[ModelSection]:
    """All models that a recipe names."""
    if isinstance(section, ModelSection):
        yield section
        return
    for name in type(section).model_fields:
        value = getattr(section, name)
        for part in value.values() if isinstance(value, Mapping) else [value]:
            if isinstance(part, BaseModel):
                yield from _sections(part)


def _is_plain(section: ModelSection) -> bool:
    """Whether a model is loaded without other libraries, code of its own or other processes."""
    if (
        section.parallel != "none"
        or section.adapter is not None
        or section.gguf_file is not None
        or section.trust_remote_code
        or section.attn_implementation not in (None, "sdpa", "eager")
    ):
        return False
    try:
        folder = folder_at_hand(resolve_name(section.name), "config.json", section)
    except UsageError:  # of a name that is none, which is said where the model is loaded
        return False
    config = None if folder is None else folder / "config.json"
    if config is None or not config.is_file():
        return False
    words = config.read_text(encoding="utf-8", errors="replace")
    by_others = _QUANTIZED in words and f'"{_QUANTIZER}"' not in words
    return not by_others and not any(word in words for word in _UNUSUAL)


class _Without(MetaPathFinder):
    """Finds that a module is not there."""

    def __init__(self, name: str):
        self._name = name

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname == self._name:
            raise ModuleNotFoundError(f"no module named {fullname!r}", name=fullname)
        return None


class _Finder(MetaPathFinder):
    """Has a module executed `within` something, which is called with how that is done and with the module."""

    def __init__(self, name: str, within: Callable[[Callable[[Any], None], Any], None]):
        self._name = name
        self._within = within

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = None if fullname != self._name else PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def executed(module: Any) -> None:
                sys.meta_path.remove(self)  # others may have asked only whether there is such a module
                self._within(execute, module)

            spec.loader.exec_module = executed  # type: ignore[method-assign]
        return spec


def _tests_told(execute: Callable[[Any], None], module: Any) -> None:
    """Change transformers' tests of what is installed as soon as they are there."""
    execute(module)
    for name in NOT_FOUND:
        setattr(module, name, _is_not_found)
    module.define_import_structure = _kept(module.define_import_structure)


def _compiled_later(execute: Callable[[Any], None], module: Any) -> None:
    """bitsandbytes has functions compiled when it is imported, most of which are never called."""
    import torch

    really = torch.compile
    torch.compile = functools.partial(_at_first_call, really)
    try:
        execute(module)
    finally:
        torch.compile = really


def _at_first_call(really: Callable[..., Any], function: Callable[..., Any], **named: Any) -> Callable[..., Any]:
    """A function that is compiled when it is called."""
    compiled: Callable[..., Any] | None = None

    @functools.wraps(function)
    def called(*arguments: Any, **others: Any) -> Any:
        nonlocal compiled
        compiled = compiled or really(function, **named)
        return compiled(*arguments, **others)

    return called


def _is_not_found() -> bool:
    return False


def _kept(define: Structure) -> Structure:
    """transformers looks through the sources of all its models for what they need, each time that it is imported: once
    is enough for the same files."""

    def define_kept(module_path: Any, prefix: str | None = None) -> dict[frozenset[str], dict[str, set[str]]]:
        path = Path(module_path)
        folder = path if path.is_dir() else path.parent
        if folder.name != "models":
            return define(module_path, prefix=prefix)
        state = [version("transformers"), str(folder), folder.stat().st_mtime_ns]
        kept = read_cache(_STRUCTURE)
        if kept.get("of") != state:
            kept = {"of": state}
        if str(prefix) not in kept:
            found = define(module_path, prefix=prefix)
            kept[str(prefix)] = [
                [sorted(needed), {name: sorted(names) for name, names in modules.items()}]
                for needed, modules in found.items()
            ]
            write_cache(_STRUCTURE, kept)
        return {
            frozenset(needed): {name: set(names) for name, names in modules.items()}
            for needed, modules in kept[str(prefix)]
        }

    return define_kept


class _Compiler(ModuleType):
    """Stands for `torch._dynamo`: its decorators, and the real one for whoever asks for anything else."""

    def __init__(self) -> None:
        super().__init__(_COMPILER)
        self._lock = threading.RLock()
        self._real: ModuleType | None = None
        self._allowed: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        return getattr(self.imported(), name)

    def imported(self) -> ModuleType:
        """The real one, which takes its own place."""
        with self._lock:
            if self._real is None:
                for name in (_COMPILER, _MASKS):
                    del sys.modules[name]
                vars(sys.modules["torch"]).pop("_dynamo", None)
                self._real = importlib.import_module(_COMPILER)
                for function in self._allowed:
                    self._real.allow_in_graph(function)
            return self._real

    def assume_constant_result(self, function: Any) -> Any:
        function._dynamo_marked_constant = True  # as the real one does
        return function

    def allow_in_graph(self, function: Any) -> Any:
        if self._real is not None:
            return self._real.allow_in_graph(function)
        self._allowed.append(function)
        return function

    def disable(self, function: Any = None, recursive: bool = True, **named: Any) -> Any:
        """A function that is not compiled: itself, until there is a compiler."""
        if function is None:
            return functools.partial(self.disable, recursive=recursive, **named)
        if self._real is not None or inspect.isclass(function):
            return self.imported().disable(function, recursive, **named)
        really: Callable[..., Any] | None = None

        @functools.wraps(function)
        def disabled(*arguments: Any, **others: Any) -> Any:
            nonlocal really
            if self._real is None:
                return function(*arguments, **others)
            if really is None:
                really = self._real.disable(function, recursive, **named)
            return really(*arguments, **others)

        return disabled


class _Masks(ModuleType):
    """Stands for the module of which transformers wants one class, for masks that are compiled."""

    def __init__(self) -> None:
        super().__init__(_MASKS)
        setattr(self, _IN_MASKS, _made_really)


def _made_really() -> Any:
    importlib.import_module(_COMPILER)
    compiler = sys.modules[_COMPILER]
    if isinstance(compiler, _Compiler):
        compiler.imported()
    return getattr(importlib.import_module(_MASKS), _IN_MASKS)()
