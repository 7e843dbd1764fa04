"""The candidates for each product of a model on this processor, side by side."""

from __future__ import annotations

from typing import Any

from batchchat.benchmarks.results import Result, markdown


def compare_products(model: str, dtype: str) -> list[Result]:
    """Per shape of a product: milliseconds of each candidate for as many rows as `trial.ROWS` says (None from where one
    is hopeless), and which one is taken. Measured anew, whatever is kept. `model` is a shape, or any model that the
    recipe's `model.name` takes."""
    import torch

    from batchchat.engines.cpu.packing import product_shapes
    from batchchat.engines.cpu.trial import ROWS, best, measured

    found = []
    for shape, count in product_shapes(_empty(model), getattr(torch, dtype)).items():
        times = measured(shape, torch.randn(shape.outputs, shape.width).to(shape.dtype))
        taken = best(times, list(times))
        for name, seconds in times.items():
            by_rows = {str(rows): one and 1e3 * one for rows, one in zip(ROWS, seconds, strict=True)}
            found.append(
                {"product": shape.name, "count": count, "by": name, "milliseconds": by_rows, "taken": name == taken}
            )
    return found


def products_table(results: list[Result]) -> str:
    """The results as Markdown."""
    counts = list(results[0]["milliseconds"]) if results else []
    columns = ["product", "in the model", "by", *(f"ms, {rows} row{'' if rows == '1' else 's'}" for rows in counts), ""]
    rows = (
        (
            found["product"],
            str(found["count"]),
            found["by"],
            *("–" if one is None else f"{one:.3f}" for one in found["milliseconds"].values()),
            "taken" if found["taken"] else "",
        )
        for found in results
    )
    return "\n".join(markdown(columns, rows))


def _empty(name: str) -> Any:
    """A model without weights."""
    from transformers import AutoConfig

    from batchchat.benchmarks.shapes import SHAPES
    from batchchat.models import load_config
    from batchchat.models.shape import empty_model
    from batchchat.recipe.model import ModelSection

    if name not in SHAPES:
        return empty_model(load_config(ModelSection(name=name)))
    settings = dict(SHAPES[name])
    return empty_model(AutoConfig.for_model(settings.pop("model_type"), **settings))
