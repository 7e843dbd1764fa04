"""A stand-in for the hub on loopback: what `huggingface_hub` asks to make a data set and to send files to it."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Hub:
    """What it was given. `blobs` are contents by their SHA-256, `files` what the last commit made visible."""

    url: str = ""
    token: str = "hf_right"
    created: list[dict[str, Any]] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0
    uploads: int = 0
    fail_upload: int | None = None
    """The number of the upload (from 1) that it refuses, and all after it."""


@contextmanager
def hub() -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def say(self, status: int, body: Any = None) -> None:
            data = b"" if body is None else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                found = b""
                while size := int(self.rfile.readline(), 16):
                    found += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return found
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if self.headers.get("Authorization") != f"Bearer {state.token}":
                self.say(401, {"error": "Invalid username or password."})
            elif path.endswith("/tree/main"):
                kept = state.files.items()
                self.say(200, [{"type": "file", "path": p, "size": len(c), "oid": "0" * 40} for p, c in kept])
            elif path.startswith("/api/datasets/"):
                siblings = [{"rfilename": name} for name in state.files]
                self.say(200, {"id": "me/data", "sha": "0" * 40, "siblings": siblings, "tags": [], "private": True})
            else:
                self.say(404, {"error": "not found"})

        def do_POST(self) -> None:
            raw, path = self.body(), urlsplit(self.path).path
            if self.headers.get("Authorization") != f"Bearer {state.token}":
                self.say(401, {"error": "Invalid username or password."})
            elif path == "/api/repos/create":
                state.created.append(json.loads(raw))
                self.say(200, {"url": f"{state.url}/datasets/me/data"})
            elif path == "/api/validate-yaml":
                self.say(200, {"errors": [], "warnings": []})
            elif path.endswith("/preupload/main"):
                named = [file["path"] for file in json.loads(raw)["files"]]
                modes = [
                    {
                        "path": name,
                        "uploadMode": "lfs" if name.endswith(".parquet") else "regular",
                        "shouldIgnore": False,
                    }
                    for name in named
                ]
                self.say(200, {"files": modes})
            elif path.endswith("/info/lfs/objects/batch"):
                self.say(200, {"transfer": "basic", "objects": [self.object(o) for o in json.loads(raw)["objects"]]})
            elif path.endswith("/commit/main"):
                self.commit([json.loads(line) for line in raw.splitlines() if line])
            elif "/verify/" in path:
                self.say(200, {})
            else:
                self.say(404, {"error": f"what is {path}?"})

        def object(self, wanted: dict[str, Any]) -> dict[str, Any]:
            if wanted["oid"] in state.blobs:
                return dict(wanted)  # it is there: nothing is to be sent
            return {**wanted, "actions": {"upload": {"href": f"{state.url}/upload/{wanted['oid']}"}}}

        def do_PUT(self) -> None:
            raw = self.body()
            state.uploads += 1
            if state.fail_upload is not None and state.uploads >= state.fail_upload:
                self.say(507, {"error": "no room is left here"})
                return
            oid = urlsplit(self.path).path.rpartition("/")[2]
            assert hashlib.sha256(raw).hexdigest() == oid
            state.blobs[oid] = raw
            self.say(200)

        def commit(self, lines: list[dict[str, Any]]) -> None:
            for line in lines:
                value = line["value"]
                if line["key"] == "file":
                    state.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    state.files[value["path"]] = state.blobs[value["oid"]]
                elif line["key"] == "deletedFile":
                    del state.files[value["path"]]
            state.commits += 1
            self.say(
                200, {"success": True, "commitOid": "1" * 40, "commitUrl": f"{state.url}/datasets/me/data/commit/1"}
            )

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
