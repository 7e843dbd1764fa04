"""`python -m scripts.gpu_check`, or `make gpu`: see the package."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from batchchat.errors import BatchchatError, EnvironmentFault, UsageError
from scripts.gpu_check.bench import Bench
from scripts.gpu_check.findings import Outcome, read
from scripts.gpu_check.plan import PARTS, Part
from scripts.gpu_check.supervise import RESULTS, TABLE, Supervisor
from scripts.gpu_check.table import document

SECONDS = 540


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0 where everything that was tried is right, 4 where not, 5 without a GPU."""
    options = _options(arguments)
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["TRITON_INTERPRET"] = "1"
    # Processes that are ended leave their locks behind, which is no news.
    os.environ.setdefault("PYTHONWARNINGS", "ignore::UserWarning:multiprocessing.resource_tracker")
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # else CUDA cannot be forked any more
    try:
        parts = chosen(options.parts)
        if options.device != "cpu":
            require_gpu()
    except BatchchatError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    bench = Bench("cpu" if options.device == "cpu" else "cuda", options.toy)
    return check(parts, bench, options.output, options.seconds)


def check(parts: list[Part], bench: Bench, output: Path, seconds: float) -> int:
    """Carry parts out and write the table, which is written anew after each part."""
    output.mkdir(parents=True, exist_ok=True)
    results, table = output / RESULTS, output / TABLE
    results.unlink(missing_ok=True)

    def say(words: str) -> None:
        print(words, flush=True)
        table.write_text(document(parts, read(results), bench), encoding="utf-8")

    signal.signal(signal.SIGTERM, _terminated)  # so that what runs is ended too
    outcomes = Supervisor(bench, output, seconds, say).run(parts)
    text = document(parts, read(results), bench)
    table.write_text(text, encoding="utf-8")
    print(f"\n{text}")
    return _verdict(outcomes, Counter(one.verdict for found in read(results).values() for one in found.findings))


def chosen(names: list[str]) -> list[Part]:
    """Parts by their names, in the plan's order; all of them where none is named. Raises UsageError."""
    known = [part.name for part in PARTS]
    for name in names:
        if name not in known:
            raise UsageError(f"there is no part {name!r} to check; it is one of {', '.join(known)}")
    return [part for part in PARTS if part.name in names or not names]


def require_gpu() -> None:
    """Raises EnvironmentFault, with what is missing, where torch sees no CUDA device."""
    import torch

    if torch.cuda.is_available():
        return
    built = f"is built for CUDA {torch.version.cuda} but sees no device" if torch.version.cuda else "is built without"
    raise EnvironmentFault(
        f"the check of the GPU path needs an NVIDIA GPU, its driver and a CUDA build of torch, and torch "
        f"{torch.__version__} {built}; run it where there is one, or try its parts on a CPU with --device cpu --toy"
    )


def _verdict(outcomes: list[Outcome], verdicts: Counter[str]) -> int:
    broken = [one for one in outcomes if one.ended not in ("done", "left out")]
    return 4 if broken or verdicts["wrong"] else 0


def _terminated(*_: Any) -> None:
    raise SystemExit(143)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.gpu_check", description=__doc__)
    parser.add_argument("--parts", nargs="*", default=[], metavar="PART", help="these parts alone")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"for all parts; {SECONDS} if not given")
    parser.add_argument("--output", type=Path, default=Path("gpu-check"), help="folder for what is found")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: only to try the parts")
    parser.add_argument("--toy", action="store_true", help="small models and little work")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
