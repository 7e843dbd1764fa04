"""Reward models as scorers: their numbers are those of transformers itself, by their own tokenizers and templates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from tests.support import zoo
from tests.support.jobs import Command, read_jsonl, scripted_recipe, write_jsonl

SENTENCES = ["one", "one [SEP] two", "one two three", "three two <|im_end|> one", "two " * 30]


def of_llama(folder: Path) -> Path:
    """A reward model whose template ends in the token that is also its tokenizer's pad."""
    tokenizer = zoo.byte_bpe()
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=480, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=512, initializer_range=0.4, num_labels=1, pad_token_id=None,
    )  # fmt: skip
    LlamaForSequenceClassification(config).save_pretrained(folder)
    return folder


def of_bert(folder: Path) -> Path:
    """A classifier of pairs of texts, with three labels and no template."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "one", "two", "three", "say", "<", "|", ">", "im_end"]
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(4)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=256, initializer_range=0.4, num_labels=3,
        id2label={0: "bad", 1: "fair", 2: "good"}, label2id={"bad": 0, "fair": 1, "good": 2},
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def asked(folder: Path, rewards: dict[str, Any], **sections: Any) -> Path:
    rows = [
        {"id": f"c{n}", "messages": [{"role": "user", "content": f"say {text}"}]} for n, text in enumerate(SENTENCES)
    ]
    return scripted_recipe(
        folder / "r.yaml",
        write_jsonl(folder / "in.jsonl", rows),
        engine={"scripted": {"answer": "echo"}},
        generation={"samples": 2},
        rewards=rewards,
        **sections,
    )


def numbers(run: Path, metric: str) -> dict[tuple[str, int], float]:
    lines = read_jsonl(run / "scores.jsonl")
    return {(line["id"], line["sample"]): line["value"] for line in lines if line["metric"] == metric}


def test_the_numbers_are_those_of_the_model_alone(tmp_path: Path, batchchat: Command) -> None:
    llama, bert = of_llama(tmp_path / "llama"), of_bert(tmp_path / "bert")
    rewards = {
        "reward": {"model": {"name": str(llama)}, "max_batch_rows": 3},
        "kind": {"model": {"name": str(bert)}, "label": "good"},
    }
    recipe = asked(tmp_path, rewards, keep=[{"best": {"by": "reward", "pairs": "worst"}}])
    ended = batchchat("run", recipe)
    assert ended.code == 0, ended.err
    run = tmp_path / "runs/test"
    model = LlamaForSequenceClassification.from_pretrained(llama).eval()
    pairs = BertForSequenceClassification.from_pretrained(bert).eval()
    tokenizer, of_pairs = zoo.byte_bpe(), PreTrainedTokenizerFast.from_pretrained(bert)
    rewarded, kinds = numbers(run, "reward"), numbers(run, "kind")
    assert len(rewarded) == len(kinds) == 2 * len(SENTENCES)
    for row in read_jsonl(run / "outputs.jsonl"):
        key = (row["batchchat"]["id"], row["batchchat"]["sample"])
        question, answer = (message["content"] for message in row["messages"])
        with torch.inference_mode():
            if "<|im_end|>" not in question + answer:
                ids = tokenizer.apply_chat_template(row["messages"], return_dict=False)
                alone = model(input_ids=torch.tensor([ids])).logits[0, 0].item()
                assert rewarded[key] == pytest.approx(alone, abs=1e-4)
            encoded = of_pairs(question, answer, return_tensors="pt", split_special_tokens=True)
            assert (encoded["input_ids"] == of_pairs.sep_token_id).sum() == 2, "what a user writes ends no text"
            alone = pairs(**encoded).logits.softmax(-1)[0, 2].item()
            assert kinds[key] == pytest.approx(alone, abs=1e-4)
    assert len(set(rewarded.values())) > 3
    for kept in read_jsonl(run / "kept.jsonl"):
        here = [value for (chat, _), value in rewarded.items() if chat == kept["batchchat"]["id"]]
        assert kept["scores"]["reward"] == max(here)
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert report["scoring"]["metrics"]["kind"]["options"]["label"] == "good"


def test_scoring_again_computes_nothing_that_is_known(
    tmp_path: Path, batchchat: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from batchchat.models.reward import RewardModel

    recipe = asked(tmp_path, {"reward": {"model": {"name": str(of_llama(tmp_path / "llama"))}}})
    assert batchchat("run", recipe).code == 0
    before = numbers(tmp_path / "runs/test", "reward")
    with monkeypatch.context() as patch:
        patch.setattr(RewardModel, "__init__", lambda *_: pytest.fail("nothing is left to compute"))
        assert batchchat("score", tmp_path / "runs/test").code == 0
    assert numbers(tmp_path / "runs/test", "reward") == before


def test_what_a_reward_model_cannot_read_costs_that_answer(tmp_path: Path, batchchat: Command) -> None:
    folder = of_llama(tmp_path / "llama")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 60}), encoding="utf-8")
    recipe = asked(tmp_path, {"reward": {"model": {"name": str(folder)}}})
    assert batchchat("run", recipe).code == 0
    lines = read_jsonl(tmp_path / "runs/test/scores.jsonl")
    long = [line for line in lines if line["id"] == "c4"]
    assert [line["status"] for line in long] == ["error", "error"]
    assert "and the reward model takes 60" in long[0]["reason"]
    assert {line["status"] for line in lines if line["id"] == "c0"} == {"scored"}


def test_what_is_no_reward_model_is_refused(tmp_path: Path, small_model: Path, batchchat: Command) -> None:
    bert = str(of_bert(tmp_path / "bert"))
    for rewards, said in (
        ({"r": {"model": {"name": bert}}}, "has 3 labels; say which one counts: rewards.r.label=bad"),
        ({"r": {"model": {"name": bert}, "label": "great"}}, "it has bad, fair, good"),
        ({"r": {"model": {"name": bert}, "label": 0, "input": "template"}}, "has no chat template"),
        ({"r": {"model": {"name": bert, "quantization": "8bit"}}}, "model.quantization"),
        ({"r": {"model": {"name": str(tmp_path / "gone")}}}, "gone"),
        ({"r": {"model": {"name": str(small_model)}}}, "score"),
    ):
        ended = batchchat("run", asked(tmp_path, rewards), f"name=n{abs(hash(said))}")
        assert ended.code == 2, (said, ended.err)
        assert said in ended.err
