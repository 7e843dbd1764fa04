"""A data set's folder to the hub, in one commit: what is there is whole, or not there yet."""

from __future__ import annotations

import re
from pathlib import Path

from batchchat.errors import EnvironmentFault, UsageError

_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def push(folder: Path, repository: str, *, public: bool = False, message: str | None = None) -> str:
    """Send a packed data set to the hub (`HF_ENDPOINT`, with the token of `hf auth login` or `HF_TOKEN`); returns its
    address. A new repository is private unless `public`; one that is there stays as it is.

    All files appear in one commit. A failure leaves what was there before; the same call again sends only what did not
    arrive, since the hub knows contents by their hashes. Raises UsageError for a name or a token that cannot be used,
    EnvironmentFault where the hub or the network fails.
    """
    if not _ID.fullmatch(repository):
        raise UsageError(f"{repository!r} is no data set's id; write it as OWNER/NAME")
    if not (folder / "README.md").exists():
        raise UsageError(f"{folder} holds no data set; make one with: batchchat pack RUN --output {folder}")
    from httpx2 import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api = HfApi()
    again = "nothing of this push is visible there; run the same command again, and what arrived is not sent twice"
    try:
        made = api.create_repo(repository, repo_type="dataset", private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            repo_type="dataset",
            folder_path=folder,
            commit_message=message or "Data set made with batchchat",
            delete_patterns=["data/*.parquet", "pairs/*.parquet", "recipes/*"],
        )
    except LocalTokenNotFoundError as error:
        raise UsageError("the hub asks who you are; log in with `hf auth login`, or set HF_TOKEN") from error
    except (HfHubHTTPError, HTTPError, OSError, RuntimeError) as error:
        said = _answer(error)
        if said is None:
            words = " ".join(str(error).split())[:300] or type(error).__name__
            raise EnvironmentFault(f"the hub cannot be reached, or broke off ({words}): {again}") from error
        status, words = said
        if status in (401, 403, 404):
            raise UsageError(
                f"the hub refuses to write {repository} ({status}: {words}); log in with `hf auth login` as somebody "
                "who may, or set HF_TOKEN"
            ) from error
        raise EnvironmentFault(f"the hub failed on the way ({status}: {words}): {again}") from error
    return str(made)


def _answer(error: BaseException | None) -> tuple[int, str] | None:
    """Status and words of what the hub answered, where an error came from that: the library wraps them."""
    from huggingface_hub.errors import HfHubHTTPError

    while error is not None:
        if isinstance(error, HfHubHTTPError):
            return error.response.status_code, " ".join(str(error.server_message or error).split())[:300]
        error = error.__cause__
    return None
