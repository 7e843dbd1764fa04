"""The address of a server, and what may not be in it."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

_CHAT = "/chat/completions"
_SECRET = re.compile(r"key|token|secret|password|signature|^sig$|^auth", re.IGNORECASE)


def checked_url(url: str) -> str:
    """The URL without a last slash. Raises ValueError where it is none or holds a secret, which is then not shown."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"is no URL ({error}); write one such as http://localhost:8000/v1") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds a user name or password; leave them out, and name the key's variable in api_key_env")
    if any(_SECRET.search(name) for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        raise ValueError("holds a key among its parameters; leave it out, and name the key's variable in api_key_env")
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(f"is {url!r}, which is no address of a server; write one such as http://localhost:8000/v1")
    if parts.fragment or not url.isascii() or any(mark.isspace() or not mark.isprintable() for mark in url):
        raise ValueError(f"is {url!r}, which holds what no address does; write one such as http://localhost:8000/v1")
    path = parts.path.rstrip("/")
    if path.endswith(_CHAT):
        raise ValueError(f"ends in {_CHAT}, which is added by itself; write {path_url(url, '', path[: -len(_CHAT)])}")
    return path_url(url, "", path)


def path_url(url: str, end: str, path: str | None = None) -> str:
    """`url` with `end` behind its path (or behind `path` in place of it) and before its parameters."""
    parts = urlsplit(url)
    return parts._replace(path=(parts.path.rstrip("/") if path is None else path) + end).geturl()


def chat_url(url: str, prompts: str = "messages") -> str:
    """Where chats are answered."""
    return path_url(url, _CHAT) if prompts == "messages" else text_url(url)


def text_url(url: str) -> str:
    """Where prompts are answered that are no chats."""
    return path_url(url, "/completions")


def with_version(url: str) -> str | None:
    """The address with the version that it may lack; None where it has one."""
    return None if re.search(r"/v\d+\w*(/|$)", urlsplit(url).path) else path_url(url, "/v1")
