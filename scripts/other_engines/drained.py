"""The engine alone: requests to a server, as many as its ceiling, and what each takes.

    python -m scripts.other_engines.drained URL REQUESTS IN_FLIGHT

Prints a JSON list for each tenth: requests answered, seconds, processor seconds of this process, MiB resident.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator

import psutil

from batchchat.chats import Message, Request, Settings
from batchchat.engines import EngineContext, build_engine
from batchchat.prompts import MessagesCodec
from batchchat.recipe import recipe_from_mapping
from batchchat.reporting.meters import Meters
from batchchat.schedule import Feed

TEXT = "hello " * 40


def main(url: str, count: int, in_flight: int) -> None:
    endpoint = {"url": url, "max_in_flight": in_flight}
    recipe = recipe_from_mapping(
        {
            "model": {"name": "served"},
            "source": {"path": "-"},
            "engine": {"kind": "endpoint", "endpoint": endpoint},
        }
    )
    engine = build_engine("endpoint", EngineContext(recipe, MessagesCodec(), Meters()))
    began, used = time.perf_counter(), time.process_time()
    for number, completion in enumerate(engine.run(Feed(_requests(count), 512)), 1):
        assert completion.finish_reason == "stop", completion.error
        if number % (count // 10) == 0:
            mark = (time.perf_counter() - began, time.process_time() - used, psutil.Process().memory_info().rss / 2**20)
            print(json.dumps([number, *mark]), flush=True)


def _requests(count: int) -> Iterator[Request]:
    for number in range(count):
        yield Request(f"c{number}", number, 0, 0, (), Settings(100), number, (Message("user", TEXT),))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
