"""One measurement of vLLM: `python vllm_worker.py JOB.json`, with the Python of an environment that has vLLM.

It stands alone: that environment has neither batchchat nor its version of transformers. The job names the model's
`folder`, `dtype`, `rows`, `mark`, and `requests` as pairs of prompt ids and answer length. Prints one marked JSON line.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

_BEGUN = time.time()


def main(job: dict[str, Any]) -> dict[str, Any]:
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # in this process, so that its memory is counted
    import vllm  # type: ignore[import-not-found, unused-ignore]

    model = vllm.LLM(
        model=job["folder"],
        dtype=job["dtype"],
        max_model_len=job["max_model_len"],
        max_num_seqs=job["rows"],
        enable_prefix_caching=True,
    )
    loaded = time.time() - _BEGUN

    def drain(requests: list[Any], name: str) -> tuple[float, float, int]:
        """Seconds, seconds to the first completion, tokens."""
        start = time.perf_counter()
        for number, (ids, length) in enumerate(requests):
            settings = vllm.SamplingParams(temperature=0.0, max_tokens=length, ignore_eos=True, detokenize=False)
            model.llm_engine.add_request(f"{name}-{number}", {"prompt_token_ids": ids}, settings)
        first, tokens = 0.0, 0
        while model.llm_engine.has_unfinished_requests():
            for output in model.llm_engine.step():
                if output.finished:
                    first = first or time.perf_counter() - start
                    tokens += len(output.outputs[0].token_ids)
        return time.perf_counter() - start, first, tokens

    drain([(ids, 2) for ids, _ in job["requests"][:2]], "warm")
    to_first = time.time() - _BEGUN
    seconds, first, tokens = drain(job["requests"], "request")
    return {
        "seconds": seconds,
        "load_seconds": loaded,
        "process_to_first_completion": to_first,
        "to_first_completion": first,
        "requests": len(job["requests"]),
        "prompt_tokens": sum(len(ids) for ids, _ in job["requests"]),
        "generated_tokens": tokens,
        "host_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "device_peaks": {},
        "facts": {"engine": "vllm", "version": vllm.__version__, "max_num_seqs": job["rows"]},
    }


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(given["mark"] + json.dumps(main(given)), flush=True)
