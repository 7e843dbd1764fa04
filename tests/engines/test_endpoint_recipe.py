"""What a recipe may say of a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchchat.engines.endpoint.address import chat_url, checked_url
from batchchat.recipe import load_recipe
from batchchat.recipe.mistakes import RecipeError
from tests.support.jobs import scripted_recipe


def recipe(folder: Path, url: str = "http://localhost:8000/v1", endpoint: Any = (), **sections: Any) -> Path:
    engine = {"kind": "endpoint", "endpoint": {"url": url, **dict(endpoint)}}
    sections = {"model": {"name": "served"}, **sections}
    return scripted_recipe(folder / "recipe.yaml", folder / "in.jsonl", engine=engine, **sections)


@pytest.mark.parametrize(
    ("url", "chat"),
    [
        ("http://localhost:8000/v1/", "http://localhost:8000/v1/chat/completions"),
        ("https://api.openai.com/v1", "https://api.openai.com/v1/chat/completions"),
        ("https://me.openai.azure.com/x?api-version=1", "https://me.openai.azure.com/x/chat/completions?api-version=1"),
        ("http://[::1]:80/v1", "http://[::1]:80/v1/chat/completions"),
    ],
)
def test_addresses(url: str, chat: str) -> None:
    assert chat_url(checked_url(url)) == chat


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://me:hunter2@localhost/v1", "password or a key"),
        ("http://hunter2@localhost/v1", "password or a key"),
        ("http://localhost/v1?api_key=hunter2", "password or a key"),
        ("https://localhost/v1?sig=hunter2", "password or a key"),
        ("localhost:8000", "no address of a server"),
        ("ftp://localhost", "no address of a server"),
        ("http://", "no address of a server"),
        ("http://localhost:99999/v1", "no URL"),
        ("http://[::1/v1", "no URL"),
        ("http://local host/v1", "what no address does"),
        ("http://localhost/v1/chat/completions", "write http://localhost/v1"),
    ],
)
def test_an_address_that_is_none_or_holds_a_secret_is_refused_without_showing_it(
    url: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe(tmp_path, url))
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("endpoint", "sections", "said"),
    [
        ({"api_key_env": "sk-hunter2"}, {}, "no name of an environment variable"),
        ({"headers": {"Authorization": "Bearer hunter2"}}, {}, "api_key_env"),
        ({"headers": {"X-Api-Key": "hunter2"}}, {}, "api_key_env"),
        ({"headers": {"X\n": "y"}}, {}, "HTTP cannot carry"),
        ({"extra_body": {"stream": True}}, {}, "batchchat sets itself"),
        ({"max_cost": 1.0}, {}, "needs engine.endpoint.prices"),
        ({}, {"generation": {"num_beams": 4}}, "num_beams"),
        ({}, {"generation": {"ignore_eos": True}}, "extra_body"),
        ({}, {"generation": {"bad_words": ["x"]}}, "no server's API has it"),
        ({}, {"generation": {"logprobs": 2, "logprobs_of": "processed"}}, "logprobs_of"),
        ({}, {"chat": {"template": "t.jinja"}}, "chat.template"),
        ({}, {"chat": {"max_context": 100}}, "max_context"),
    ],
)
def test_what_no_server_does_is_refused_at_start(
    endpoint: dict[str, Any], sections: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe(tmp_path, endpoint=endpoint, **sections))
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "override",
    ["api_key_env=sk-hunter2", "url=http://me:hunter2@localhost/v1", "headers={Authorization: hunter2}", "key=hunter2"],
)
def test_a_secret_in_an_override_is_not_shown(override: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe(tmp_path), [f"engine.endpoint.{override}"])
    assert "hunter2" not in str(caught.value)


def test_settings_by_token_ids_are_the_servers_own(tmp_path: Path) -> None:
    loaded = load_recipe(recipe(tmp_path, generation={"logit_bias": {15: -100.0}, "stop_token_ids": [2]}))
    assert loaded.generation.stop_token_ids == (2,)
