"""Makes the built-in model: trains it (or goes on where it stopped), exports it, measures it, writes its model card.

python -m scripts.tiny_chat
"""

from __future__ import annotations

from pathlib import Path

from scripts.tiny_chat.evaluate import MODEL_FOLDER, accuracy, evaluate, load
from scripts.tiny_chat.export import export, write_card
from scripts.tiny_chat.facts import CAPITALS, COLOURS
from scripts.tiny_chat.team import run_team
from scripts.tiny_chat.train import Settings, train, trained

BUILD = Path(__file__).resolve().parents[2] / "build" / "tiny_chat"
PER_SKILL = 200


def main() -> None:
    run, finished = BUILD / "run", BUILD / "finished"
    if finished.exists():
        print(f"{MODEL_FOLDER} is finished; remove {BUILD} to make it anew")
        return
    settings = Settings()
    run_team(settings.processes, train, settings, run)
    model, seconds = trained(settings, run)
    export(model, run / "tokenizer", MODEL_FOLDER)
    shares = {
        name: accuracy(evaluate(*load(MODEL_FOLDER, dtype), PER_SKILL))
        for name, dtype in (("bfloat16, as shipped", "bfloat16"), ("float32", "float32"))
    }
    facts = {
        "parameters": f"{model.num_parameters():,}",
        "megabytes": f"{(MODEL_FOLDER / 'model.safetensors').stat().st_size / 1e6:.1f}",
        "tokens": f"{settings.tokens / 1e6:.1f}",
        "minutes": f"{seconds / 60:.0f}",
        "countries": str(len(CAPITALS)),
        "things": str(len(COLOURS)),
        "per_skill": str(PER_SKILL),
        "context": f"{settings.context:,}",
        "vocabulary": f"{model.config.vocab_size:,}",
    }
    write_card(MODEL_FOLDER, facts, shares)
    for name, share in shares.items():
        print(name, *(f"{skill} {value:.1%}" for skill, value in share.items()), sep="\n  ")
    finished.touch()


if __name__ == "__main__":
    main()
