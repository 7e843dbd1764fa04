"""What is exported for trainers, trained on for two steps. Skipped where TRL is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchchat.models.names import resolve_name
from tests.support.jobs import Command

trl = pytest.importorskip("trl", reason="no TRL here (pip install 'batchchat[training]')")
pytestmark = pytest.mark.filterwarnings("ignore")  # another library's

FORMS = {
    "messages": ("sft.parquet", "SFT"),
    "prompt-completion": ("sft.jsonl", "SFT"),
    "preference": ("pairs.jsonl", "DPO"),
}


def test_a_trainer_takes_calls_with_their_tools(
    tmp_path: Path, batchchat: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of Parquet, where tools are JSON text, and of lines of JSON."""
    monkeypatch.chdir(tmp_path)
    assert batchchat("run", "builtin:tools").code == 0
    for number, file in enumerate(("sft.parquet", "sft.jsonl")):
        assert batchchat("export", "runs/tools", "--output", file, "--form", "messages").code == 0
        trained(tmp_path / file, "SFT", tmp_path / f"out{number}")


@pytest.mark.parametrize("form", FORMS)
def test_a_trainer_takes_the_export(
    form: str, tmp_path: Path, batchchat: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file, kind = FORMS[form]
    made = [
        "model.name=scripted",
        "engine.kind=scripted",
        "engine.scripted.answer=counting",
        "generation.logprobs=null",
    ]
    scoring = "scoring=[{length: {unit: characters}}]"
    ended = batchchat("run", "builtin:synthesize", "source.limit=6", *made, scoring)
    assert ended.code == 0, ended.err
    ended = batchchat("export", "runs/synthesize", "--output", file, "--form", form)
    assert ended.code == 0, ended.err
    trained(tmp_path / file, kind, tmp_path / "out")


def trained(file: Path, kind: str, out: Path) -> None:
    """Two steps of a trainer on a file."""
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    reader = "parquet" if file.suffix == ".parquet" else "json"
    data = load_dataset(reader, data_files=str(file), split="train", cache_dir=str(out / "cache"))
    assert len(data) >= 2
    tokenizer = AutoTokenizer.from_pretrained(resolve_name("builtin:tiny-chat"))
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    settings: dict[str, Any] = {"output_dir": str(out), "max_steps": 2, "use_cpu": True, "bf16": False}
    settings |= {"per_device_train_batch_size": 2, "report_to": [], "logging_steps": 1, "save_strategy": "no"}
    trainer = getattr(trl, f"{kind}Trainer")(
        model=AutoModelForCausalLM.from_pretrained(resolve_name("builtin:tiny-chat")),
        processing_class=tokenizer,
        train_dataset=data,
        args=getattr(trl, f"{kind}Config")(**settings),
    )
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert len(losses) == 2
    assert all(0 < loss < 100 for loss in losses)
