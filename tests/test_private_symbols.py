"""Every private symbol of torch, transformers and numba that the package uses stands in one list, with its guard."""

from __future__ import annotations

import ast
import ctypes
import re

import numba.core.cgutils
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from batchchat.engines.cpu.kernels import compiled
from tests.support.jobs import ROOT

TABLE = re.compile(r"^\| `(?P<symbol>[^`]+)` \| (?P<files>[^|]+) \| (?P<guard>[^|]+) \|$", re.MULTILINE)
DOCUMENTED = {"_fields", "_replace", "_asdict", "_exit"}
"""For all the underscore: of named tuples, and of `os`."""
C_FUNCTION = re.compile(r"aoti_torch_\w+")


def listed() -> dict[str, set[str]]:
    """Symbol to files, as docs/ARCHITECTURE.md lists them."""
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8").partition("## Private symbols")[2]
    rows = {row["symbol"]: set(re.findall(r"`([^`]+)`", row["files"])) for row in TABLE.finditer(text)}
    assert len(rows) > 5
    return rows


def used() -> dict[str, set[str]]:
    """Symbol to files, as the source has them: attributes that begin with one underscore, on anything but the object
    itself, and the internals of numba."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "batchchat").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        names = set(C_FUNCTION.findall(text))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
                if not own and node.attr not in DOCUMENTED:
                    names.add(node.attr)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("numba.core"):
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
        for name in names:
            found.setdefault(name, set()).add(str(path.relative_to(ROOT / "batchchat")))
    return found


def test_the_list_is_what_the_source_uses() -> None:
    assert used() == listed()


def test_each_of_them_is_there() -> None:
    """Where one is gone, its guard takes over; this says so before a user meets it."""
    assert callable(torch.ops.mkldnn._reorder_linear_weight)
    assert callable(torch.ops.mkldnn._linear_pointwise.default)
    assert callable(torch.cpu._is_amx_tile_supported)
    assert callable(torch.cpu._init_amx)
    assert callable(torch._C._aoti.unsafe_alloc_void_ptr_from_tensor)
    assert numba.core.cgutils.voidptr_t is not None
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    )
    assert model.config._attn_implementation_internal == model.config._attn_implementation
    assert model._no_split_modules == ["LlamaDecoderLayer"] or model._no_split_modules == {"LlamaDecoderLayer"}


@pytest.mark.skipif(not compiled(), reason="torch computes with threads of another runtime than GNU OpenMP here")
def test_the_c_functions_are_there() -> None:
    library = ctypes.CDLL("libtorch_cpu.so")
    for name in listed():
        if C_FUNCTION.fullmatch(name):
            assert getattr(library, name)
