"""A folder that `datasets.load_dataset` reads as one: sharded Parquet, the card, and the recipes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchchat.chats.json_text import read_exact
from batchchat.errors import UsageError
from batchchat.publish.card import Stage, folder_of, render_card
from batchchat.reporting.reading import read_report
from batchchat.reporting.report import Report
from batchchat.results import open_results
from batchchat.results.files import write_shards
from batchchat.results.forms import FORMS
from batchchat.results.handing import handed
from batchchat.selection.files import KEPT, PAIRS, REMOVED
from batchchat.store import RunDirectory
from batchchat.store.directory import make_folder

_PIPELINE = "pipeline.json"


@dataclass(frozen=True)
class Packed:
    """A data set's folder, and its rows by configuration."""

    folder: Path
    counts: dict[str, int]
    files: tuple[Path, ...]


def pack(
    run: str | Path,
    folder: Path | None = None,
    form: str = "rows",
    licenses: Sequence[str] = (),
    shard_rows: int = 50_000,
) -> Packed:
    """Make a data set of what a finished run or pipeline keeps (of a pipeline, its last step): in `folder`, by default
    `dataset` in its directory, which is made anew. `form` is one of the `FORMS`, `shard_rows` the most rows of a file.

    Raises UsageError where there is no finished run or nothing was kept, and for a folder that holds something else.
    """
    place = Path(run).expanduser()
    if form not in FORMS:
        raise UsageError(f"{form!r} is no form; say --form {', '.join(FORMS)}")
    name, stages = _stages(place)
    last = place / stages[-1].name if (place / _PIPELINE).exists() else place
    target = place / "dataset" if folder is None else folder
    _refuse_others(target)
    fresh = target.with_name(f".{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    make_folder(fresh)
    counts: dict[str, int] = {}
    files: list[Path] = []
    for config, rows in _configs(last, form).items():
        counts[config], written = write_shards(rows, fresh / folder_of(config), "train", shard_rows)
        files += written
    if not counts["default"]:
        shutil.rmtree(fresh)
        raise UsageError(f"{last} kept no answer, so there is nothing to hand over; look at its {REMOVED}")
    sample = next(_configs(last, form)["default"]())
    card = render_card(name, stages, counts, sample, licenses)
    (fresh / "README.md").write_text(card, encoding="utf-8")
    recipes = fresh / "recipes"
    recipes.mkdir()
    for stage in stages:
        (recipes / f"{stage.name}.yaml").write_text(stage.recipe, encoding="utf-8")
    if (place / _PIPELINE).exists():
        shutil.copyfile(place / _PIPELINE, recipes / _PIPELINE)
    if target.exists():
        shutil.rmtree(target)
    fresh.rename(target)
    moved = (target / file.relative_to(fresh) for file in files)
    return Packed(target, counts, tuple(moved))


def _stages(place: Path) -> tuple[str, list[Stage]]:
    """The name, and the runs that the data went through."""
    if not (place / _PIPELINE).exists():
        return (stage := _stage(place)).name, [stage]
    manifest = json.loads((place / _PIPELINE).read_text(encoding="utf-8"))
    undone = [name for name, step in manifest["steps"].items() if step["state"] != "done"]
    if undone or not manifest["steps"]:
        raise UsageError(f"the step {undone[0] if undone else 1} of {place} is not finished; run the pipeline again")
    return manifest["name"], [_stage(place / name, name) for name in manifest["steps"]]


def _stage(place: Path, name: str | None = None) -> Stage:
    directory = RunDirectory(place)
    if not directory.report_json.exists():
        raise UsageError(f"{place} is no finished run; name a run directory, or that of a pipeline")
    report = read_report(directory.report_json)
    if isinstance(report, Report):
        sources = json.loads(directory.manifest.read_text(encoding="utf-8"))["input"]
    else:
        sources = [{"path": report.answers_in}]
    return Stage(name or report.name, report, sources, directory.recipe.read_text(encoding="utf-8"))


def _configs(place: Path, form: str) -> dict[str, Callable[[], Iterator[dict[str, Any]]]]:
    kept = place / KEPT

    def rows() -> Iterator[dict[str, Any]]:
        with open_results(kept if kept.exists() else place) as results:
            for sample in results:
                if sample.state == "answered":
                    row = handed(sample, form)
                    row.pop("batchchat", None)
                    yield row

    def pairs() -> Iterator[dict[str, Any]]:
        with open(place / PAIRS, encoding="utf-8", newline="\n") as lines:
            yield from map(read_exact, lines)

    pairing = (place / PAIRS).exists() and (place / PAIRS).stat().st_size > 0
    return {"default": rows, **({"pairs": pairs} if pairing else {})}


def is_packed(folder: Path) -> bool:
    """Whether a folder is what `pack` makes."""
    return (folder / "recipes").is_dir() and (folder / "README.md").is_file() and (folder / "data").is_dir()


def _refuse_others(folder: Path) -> None:
    """Raises UsageError where something else than a data set of ours would be replaced."""
    if folder.exists() and not is_packed(folder):
        raise UsageError(f"{folder} exists and is no data set that batchchat made; choose another with --output")
