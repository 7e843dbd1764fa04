"""A training set from four answers each: a reward model with a tokenizer of its own says which is the best, the counts
of all stages add up to the input, and the data set with its card is packed and sent to a hub that fails half-way once.

    python -m scripts.synthesis.best_of_four [--rows 250]

The reward model has random weights and the hub is a stand-in on this machine. Ends with 1 where anything is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from batchchat.plugins.builtin import builtin_sample
from tests.support.hub import hub

SAMPLES = 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=250)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run = folder / "run"
        settings = [f"source.path={_problems(rows, folder)}", f"sink.directory={run}", "max_error_rate=1.0"]
        rewards = f"rewards.reward.model.name={_reward_model(folder / 'reward')}"
        keep = (
            "keep=[finish_reason == 'stop', {duplicates: {of: answer, near: 0.9}}, {best: {by: reward, pairs: worst}}]"
        )
        _batchchat(
            "run", "builtin:keep", f"generation.samples={SAMPLES}", "scoring=[numeric]", rewards, keep, *settings
        )
        wrong = _counted(run, rows)
        return wrong or _pushed(run)


def _counted(run: Path, rows: int) -> int:
    """Whether every answer is somewhere, once, and the report says how many are where."""
    kept = json.loads((run / "report.json").read_text(encoding="utf-8"))["keep"]
    print(f"{rows:,} rows of {SAMPLES} samples: {kept['samples']:,} samples, {kept['failed']:,} failed")
    left = kept["samples"] - kept["failed"]
    adds_up = kept["samples"] == rows * SAMPLES
    for stage in kept["stages"]:
        print(f"  {stage['kind']} {stage['condition']}: {stage['samples']:,} in, {stage['removed']:,} removed")
        adds_up &= stage["samples"] == left
        left -= stage["removed"]
    print(f"  kept {kept['kept']:,}, pairs {kept['pairs']:,}")
    adds_up &= left == kept["kept"]
    kept_lines, removed_lines, failed_lines = (_lines(run / f"{name}.jsonl") for name in ("kept", "removed", "errors"))
    places = Counter((one["batchchat"]["id"], one["batchchat"]["sample"]) for one in kept_lines)
    places += Counter((one["id"], one["sample"]) for one in removed_lines)
    places += Counter((one["id"], one.get("sample")) for one in failed_lines)
    adds_up &= len(places) == rows * SAMPLES and set(places.values()) == {1}
    adds_up &= all(one["reason"] for one in removed_lines)
    print(f"  counts {'add up' if adds_up else 'DO NOT ADD UP'} to the input: {sum(places.values()):,} lines")
    return 0 if adds_up else 1


def _pushed(run: Path) -> int:
    """Whether the hub has the whole data set, and nothing while only half of it was there."""
    with hub() as place:
        place.fail_upload = 2
        sent = [run, "me/best-of-four", "--shard-rows", "100", "--license", "apache-2.0"]
        variables = {"HF_ENDPOINT": place.url, "HF_TOKEN": place.token, "HF_HUB_DISABLE_XET": "1"}
        broken = _batchchat("push", *sent, fails=True, **variables)
        half = dict(place.files)
        place.fail_upload = None
        _batchchat("push", *sent, **variables)
        card = place.files["README.md"].decode()
        shards = [name for name in place.files if name.endswith(".parquet")]
        private = place.created[0]["visibility"] == "private"
    whole = broken != 0 and not half and private and bool(shards)
    print(
        f"push: failed half-way with exit code {broken} and left nothing to see; then {len(place.files)} files, private"
    )
    print("\n".join(f"    {line}" for line in card.splitlines()[:60]))
    return 0 if whole and all(name in card for name in ("reward", "tiny-chat", "apache-2.0")) else 1


def _problems(rows: int, folder: Path) -> Path:
    """Word problems, each in words of its own."""
    known = [json.loads(line) for line in builtin_sample("gsm8k").read_text(encoding="utf-8").splitlines()]
    path = folder / "problems.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            row = known[number % len(known)]
            file.write(json.dumps({**row, "question": f"{row['question']} ({number})", "id": f"p{number}"}) + "\n")
    return path


def _reward_model(folder: Path) -> Path:
    """A classifier of texts with words of its own and random weights."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz0123456789.,?!#=+-*/"]
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=2048, initializer_range=0.4, num_labels=1,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def _batchchat(*arguments: Any, fails: bool = False, **variables: str) -> int:
    command = [sys.executable, "-m", "batchchat", *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True)
    if done.returncode and not fails:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.returncode


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    sys.exit(main())
