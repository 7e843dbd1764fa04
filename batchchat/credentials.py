"""Credentials in addresses: refused where they are given, and never shown."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://[^\s\"'<>]+")
_USER = re.compile(r"://[^/?#@]+@")
_NAMES = (
    "access_?token|api_?key|auth|authorization|aws_?access_?key_?id|client_?secret|credential|key|passwd|password|"
    "private_?token|pwd|secret|sig|signature|token|x-(?:amz|goog|oss)-(?:credential|security-token|signature)"
)
_PARAMETER = re.compile(rf"(?<=[?&;#])((?:{_NAMES})=)[^&;#]+", re.IGNORECASE)


def without_credentials(text: str) -> str:
    """`text` with the user, the password and the keys of every address in it left out."""
    return _ADDRESS.sub(_hidden, text) if "://" in text else text


def holds_credentials(text: str) -> bool:
    """Whether an address in `text` says more than where something lies."""
    return without_credentials(text) != text


def _hidden(found: re.Match[str]) -> str:
    address = _PARAMETER.sub(r"\1…", found[0])
    if found["scheme"].lower().endswith("ssh") and ":" not in address.partition("://")[2].partition("@")[0]:
        return address  # git@host is no secret
    return _USER.sub("://…@", address, count=1)
