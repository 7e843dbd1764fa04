"""A training set from four answers each: a reward model with a tokenizer of its own says which is the best, the counts
of all stages add up to the input, and the data set with its card is packed and sent to a hub that fails half-way once.

The reward model has random weights and the hub is a stand-in on this machine.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from batchchat.plugins.builtin import builtin_sample
from scripts.parts import require
from scripts.synthesis.job import batchchat, lines
from tests.support.hub import hub

SAMPLES = 4


def show(folder: Path, rows: int) -> Iterator[str]:
    run = folder / "run"
    settings = [f"source.path={_problems(rows, folder)}", f"sink.directory={run}", "max_error_rate=1.0"]
    rewards = f"rewards.reward.model.name={_reward_model(folder / 'reward')}"
    keep = "keep=[finish_reason == 'stop', {duplicates: {of: answer, near: 0.9}}, {best: {by: reward, pairs: worst}}]"
    batchchat("run", "builtin:keep", f"generation.samples={SAMPLES}", "scoring=[numeric]", rewards, keep, *settings)
    yield from _counted(run, rows)
    yield from _pushed(run)


def _counted(run: Path, rows: int) -> Iterator[str]:
    """Every answer is somewhere, once, and the report says how many are where."""
    kept = json.loads((run / "report.json").read_text(encoding="utf-8"))["keep"]
    yield f"{rows:,} rows of {SAMPLES} samples: {kept['samples']:,} samples, {kept['failed']:,} failed"
    left = kept["samples"] - kept["failed"]
    adds_up = kept["samples"] == rows * SAMPLES
    for stage in kept["stages"]:
        yield f"{stage['kind']} {stage['condition']}: {stage['samples']:,} in, {stage['removed']:,} removed"
        adds_up &= stage["samples"] == left
        left -= stage["removed"]
    yield f"kept {kept['kept']:,}, pairs {kept['pairs']:,}"
    kept_lines, removed_lines, failed_lines = (lines(run / f"{name}.jsonl") for name in ("kept", "removed", "errors"))
    places = Counter((one["batchchat"]["id"], one["batchchat"]["sample"]) for one in kept_lines)
    places += Counter((one["id"], one["sample"]) for one in removed_lines)
    places += Counter((one["id"], one.get("sample")) for one in failed_lines)
    adds_up &= left == kept["kept"] and len(places) == rows * SAMPLES and set(places.values()) == {1}
    require(adds_up, "the counts of the stages do not add up to the input")
    require(all(one["reason"] for one in removed_lines), "a removed row has no reason")
    yield f"the counts add up to the input: {sum(places.values()):,} lines"


def _pushed(run: Path) -> Iterator[str]:
    """The hub has the whole data set, and nothing while only half of it was there."""
    with hub() as place:
        place.fail_upload = 2
        sent = [run, "me/best-of-four", "--shard-rows", "100", "--license", "apache-2.0"]
        variables = {"HF_ENDPOINT": place.url, "HF_TOKEN": place.token, "HF_HUB_DISABLE_XET": "1"}
        broken = batchchat("push", *sent, fails=True, **variables)
        half = dict(place.files)
        place.fail_upload = None
        batchchat("push", *sent, **variables)
        card = place.files["README.md"].decode()
        shards = [name for name in place.files if name.endswith(".parquet")]
        private = place.created[0]["visibility"] == "private"
    require(broken != 0 and not half, f"a push that failed ended with {broken} and left {', '.join(half) or 'nothing'}")
    require(private and bool(shards), "the data set is not private, or holds no Parquet file")
    missing = [name for name in ("reward", "tiny-chat", "apache-2.0") if name not in card]
    require(not missing, f"the card does not name {', '.join(missing)}")
    yield f"push failed half-way with exit code {broken} and left nothing; then {len(place.files)} files, private"
    yield f"the card has {len(card.splitlines())} lines and names model, reward model and licence"


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
