"""Steps that are replayed from recordings give what steps give that are not."""

from __future__ import annotations

from collections.abc import Iterator

from batchchat.benchmarks.contenders import continuous_engine
from batchchat.benchmarks.workloads import mixed
from batchchat.engines.rounding import tolerance
from scripts.gpu_check.bench import Bench, Noted, seconds
from scripts.gpu_check.findings import Finding, tried
from scripts.gpu_check.parts.answers import Answers, answered, differing, worst_gap

_TIES = 3
"""Times the tolerance of rounding, which is a mean over the vocabulary."""


def run(bench: Bench) -> Iterator[Finding]:
    model, codec = bench.shape("0.5b")
    asked = mixed(bench.pick(48, 6))
    for reproducible in ("fast", "strict"):
        plain: Answers = {}
        for recorded in (False, True):
            meter = Noted()
            rows = bench.pick(32, 4)
            engine = continuous_engine(model, codec, rows, meter=meter, cuda_graphs=recorded, reproducible=reproducible)
            answered(engine, asked[:2])
            found: dict[str, Answers] = {}
            taken = seconds(lambda engine=engine, found=found: found.update(all=answered(engine, asked)))  # type: ignore[misc]
            facts = engine.describe()
            engine.close()
            figures = {"seconds": taken, "replayed": facts.steps_replayed, "differ": 0, "largest gap": None}
            right = not recorded or not bench.on_gpu or facts.steps_replayed > 0
            if recorded:
                figures["differ"] = differing(plain, found["all"])
                if reproducible == "strict":
                    right = right and not figures["differ"]
            else:
                plain = found["all"]
            if reproducible == "fast":
                gap = figures["largest gap"] = worst_gap(model, list(found["all"].values())[:8])
                right = right and gap <= _TIES * tolerance(model.dtype)
            note = "; ".join(detail for event, detail in meter.events if event == "not_recorded")
            yield tried(f"{reproducible}, {'recorded' if recorded else 'not recorded'}", right, figures, note)
