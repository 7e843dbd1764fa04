"""What holds for every scorer: options, references, turns, reasoning, errors, and what scoring imports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from batchchat.chats import Message
from batchchat.errors import UsageError
from batchchat.scoring import SCORERS, Score, Scorer, make_scorer
from batchchat.scoring.reasoning import without_reasoning

NEEDED: dict[str, dict[str, Any]] = {"regex": {"pattern": "x"}, "python": {"function": "builtins:max"}}


def said(*texts: str) -> list[Message]:
    return [Message("assistant", text) for text in texts]


def scored(
    scorer: Scorer,
    answers: list[Message],
    columns: Mapping[str, Any] = MappingProxyType({}),
    reference: Any = None,
    references: Sequence[str | None] = (),
) -> list[tuple[int, Score]]:
    """(turn from 0, score) of every turn that the options ask for."""
    wanted = scorer.turns(len(answers))
    return [(turn, scorer.score_turn(turn, answers, columns, reference, references)) for turn in wanted]


@pytest.mark.parametrize("name", SCORERS)
def test_every_option_is_described_and_strict(name: str) -> None:
    model = SCORERS[name].Options
    for field, details in model.model_fields.items():
        assert details.description, f"{name}.{field} has no description"
    with pytest.raises(ValidationError, match="colour"):
        make_scorer(name, {**NEEDED.get(name, {}), "colour": "red"})
    with pytest.raises(ValidationError, match="reasoning"):
        make_scorer(name, {**NEEDED.get(name, {}), "reasoning": "no"})
    options = make_scorer(name, NEEDED.get(name)).options
    with pytest.raises(ValidationError, match="frozen"):
        options.turn = "all"
    assert model.model_validate_json(options.model_dump_json()) == options
    assert model.model_json_schema()["additionalProperties"] is False


@pytest.mark.parametrize("name", SCORERS)
@settings(max_examples=25, deadline=None)
@given(
    text=st.text(max_size=80), reference=st.one_of(st.none(), st.text(max_size=20), st.integers(), st.lists(st.text()))
)
def test_no_scorer_raises_whatever_the_row_holds(name: str, text: str, reference: Any) -> None:
    score = make_scorer(name, NEEDED.get(name)).score(Message("assistant", text), {}, reference)
    assert (score.value is None) == (score.status != "scored")
    assert score.reason


def test_an_unknown_scorer_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'numeric'"):
        make_scorer("numerc")


@pytest.mark.parametrize("reference", [None, "", "  ", [], [None, ""]])
def test_a_missing_reference_leaves_the_row_unscored_and_says_where_it_looked(reference: Any) -> None:
    score = make_scorer("exact", {"reference": "gold"}).score(Message("assistant", "x"), {"gold": reference})
    assert (score.value, score.status) == (None, "unscored")
    assert "gold" in score.reason


def test_turns_are_the_last_all_or_one_by_number() -> None:
    answers = said("a", "b", "c")
    for turn, expected in (("last", [2]), ("all", [0, 1, 2]), (1, [0]), (3, [2])):
        scores = scored(make_scorer("exact", {"turn": turn}), answers, reference="c")
        assert [place for place, _ in scores] == expected
        assert [score.value for _, score in scores] == [float(place == 2) for place in expected]
    missing = scored(make_scorer("exact", {"turn": 4}), answers, reference="c")
    assert missing[0][1].status == "unscored"
    assert "3 answers" in missing[0][1].reason
    with pytest.raises(ValidationError):
        make_scorer("exact", {"turn": 0})


def test_a_reference_per_turn_goes_to_its_turn() -> None:
    answers = said("a", "b")
    own = make_scorer("exact", {"turn": "all", "reference_per_turn": True, "reference": "gold"})
    assert [score.value for _, score in scored(own, answers, {"gold": ["a", "x"]})] == [1.0, 0.0]
    assert [score.status for _, score in scored(own, answers, {"gold": ["a"]})] == ["scored", "unscored"]
    assert scored(own, answers, {"gold": "a"})[0][1].status == "error"
    from_input = scored(make_scorer("exact", {"turn": "all"}), answers, references=("a", "b"))
    assert [score.value for _, score in from_input] == [1.0, 1.0]


def test_reasoning_is_removed_unless_asked_for() -> None:
    inline = Message("assistant", "<think>maybe 3</think>\n4")
    apart = Message("assistant", "4", reasoning="maybe 3")
    for message in (inline, apart):
        assert make_scorer("includes").score(message, {}, "maybe").value == 0.0
        assert make_scorer("includes", {"reasoning": True}).score(message, {}, "maybe").value == 1.0


@pytest.mark.parametrize(
    ("text", "visible"),
    [
        ("<think>a</think>b", "b"),
        ("a</think>b", "b"),
        ("<think>a", ""),
        ("<think>a</think>b<think>c</think>d", "bd"),
        ("<Think>a</Think>\n\nb", "b"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("use the <think> tag", "use the <think> tag"),
        ("  spaced  ", "  spaced  "),
    ],
)
def test_the_shapes_of_reasoning(text: str, visible: str) -> None:
    assert without_reasoning(text) == visible


def test_scoring_imports_neither_torch_nor_transformers_nor_numpy_before_it_is_used() -> None:
    code = (
        "import sys, batchchat.scoring as s, batchchat.scoring.gates\n"
        "assert 'numpy' not in sys.modules and 'scipy' not in sys.modules, 'heavy'\n"
        "import batchchat.scoring.aggregates, batchchat.scoring.judging\n"
        "needed = {'regex': {'pattern': 'x'}, 'python': {'function': 'builtins:max'}}\n"
        "[s.make_scorer(name, needed.get(name)) for name in s.SCORERS]\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
