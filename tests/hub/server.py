"""A hub on this machine that speaks the calls of huggingface_hub: repositories, commits, large files, downloads."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_test"  # noqa: S105 - of this server alone


@dataclass
class Repository:
    """A model: who may see it, its branches, and the files of each commit by name."""

    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        told = json.dumps([branch, len(self.commits), sorted(files)]).encode()
        name = hashlib.sha1(told, usedforsecurity=False).hexdigest()
        self.commits[name] = files
        self.branches[branch] = name
        return name

    def find(self, revision: str) -> str | None:
        name = self.branches.get(revision, revision)
        return name if name in self.commits else None


@dataclass
class Hub:
    """What the server holds, and what it was asked.

    Attributes:
        repositories: by USER/NAME.
        blobs: large files by their SHA-256.
        asked: method and path of each request.
        status: answered to everything, where set.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    status: int | None = None
    address: str = ""

    def add(self, name: str, files: dict[str, bytes], *, private: bool = True) -> Repository:
        found = self.repositories[name] = Repository(private)
        found.commit("main", files)
        return found

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        repository = self.repositories[name]
        return repository.commits[repository.branches[revision]]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, status: int, body: bytes | Any = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, path))
        if self.hub.status is not None:
            self._answer(self.hub.status, {"error": "no luck today"})
            return
        if path.startswith("/lfs/"):  # signed addresses ask for no token
            self.hub.blobs[path.removeprefix("/lfs/")] = body
            self._answer(200)
            return
        knows = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        for method, pattern, answer in _ROUTES:
            if self.command in method and (found := re.fullmatch(pattern, path)):
                getattr(self, answer)(body, knows, *found.groups())
                return
        self._answer(404, {"error": f"no such call: {self.command} {path}"})

    do_GET = do_HEAD = do_POST = do_PUT = _serve

    def _visible(self, name: str, knows: bool, revision: str = "main") -> tuple[Repository, str] | None:
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not knows):
            self._answer(404 if knows else 401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            return None
        commit = repository.find(revision)
        if commit is None:
            self._answer(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
            return None
        return repository, commit

    def _create(self, body: bytes, knows: bool) -> None:
        if not knows:
            self._answer(401, {"error": "Invalid credentials"})
            return
        told = json.loads(body)
        name = f"{told.get('organization') or 'me'}/{told['name']}"
        if not name.startswith("me/"):
            self._answer(403, {"error": "You don't have the rights to create a model under this namespace"})
            return
        url = {"url": f"{self.hub.address}/{name}"}
        if name in self.hub.repositories:
            self._answer(409, url | {"error": "You already created this model repo"})
            return
        self.hub.add(name, {".gitattributes": b""}, private=told.get("visibility") == "private")
        self._answer(200, url)

    def _info(self, body: bytes, knows: bool, name: str, revision: str | None = None) -> None:
        if (found := self._visible(name, knows, revision or "main")) is not None:
            repository, commit = found
            files = [{"rfilename": one} for one in repository.commits[commit]]
            told = {"id": name, "sha": commit, "private": repository.private, "siblings": files, "tags": []}
            self._answer(200, told)

    def _tree(self, body: bytes, knows: bool, name: str, revision: str) -> None:
        if (found := self._visible(name, knows, revision)) is not None:
            files = found[0].commits[found[1]]
            rows = [
                {"type": "file", "path": path, "size": len(data), "oid": _git_hash(data)}
                for path, data in files.items()
            ]
            self._answer(200, rows)

    def _branch(self, body: bytes, knows: bool, name: str, branch: str) -> None:
        if (found := self._visible(name, knows)) is not None:
            code = 409 if branch in found[0].branches else 200
            found[0].branches.setdefault(branch, found[1])
            self._answer(code, {})

    def _yaml(self, body: bytes, knows: bool) -> None:
        self._answer(200, {"errors": [], "warnings": []})

    def _preupload(self, body: bytes, knows: bool, name: str, revision: str) -> None:
        if self._visible(name, knows, revision) is not None:
            rows = [
                {"path": one["path"], "shouldIgnore": False, "uploadMode": _mode(one["path"])}
                for one in json.loads(body)["files"]
            ]
            self._answer(200, {"files": rows})

    def _batch(self, body: bytes, knows: bool, name: str) -> None:
        rows = [
            {**one, "actions": {"upload": {"href": f"{self.hub.address}/lfs/{one['oid']}"}}}
            for one in json.loads(body)["objects"]
        ]
        self._answer(200, {"transfer": "basic", "objects": rows}, Content_Type="application/vnd.git-lfs+json")

    def _commit(self, body: bytes, knows: bool, name: str, revision: str) -> None:
        if (found := self._visible(name, knows, revision)) is None:
            return
        files = dict(found[0].commits[found[1]])
        for line in body.splitlines():
            row = json.loads(line)
            kind, value = row["key"], row["value"]
            if kind == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif kind == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            elif kind == "deletedFile":
                del files[value["path"]]
        commit = found[0].commit(revision, files)
        self._answer(200, {"commitUrl": f"{self.hub.address}/{name}/commit/{commit}", "commitOid": commit})

    def _resolve(self, body: bytes, knows: bool, name: str, revision: str, path: str) -> None:
        if (found := self._visible(name, knows, revision)) is None:
            return
        data = found[0].commits[found[1]].get(path)
        if data is None:
            self._answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound", X_Repo_Commit=found[1])
            return
        self._answer(200, data, ETag=f'"{_git_hash(data)}"', X_Repo_Commit=found[1])


_NAME = r"([^/]+/[^/]+)"
_ROUTES = (
    ("POST", "/api/repos/create", "_create"),
    ("POST", "/api/validate-yaml", "_yaml"),
    ("GET", rf"/api/models/{_NAME}(?:/revision/(.+))?", "_info"),
    ("GET", rf"/api/models/{_NAME}/tree/([^/]+)", "_tree"),
    ("POST", rf"/api/models/{_NAME}/branch/(.+)", "_branch"),
    ("POST", rf"/api/models/{_NAME}/preupload/(.+)", "_preupload"),
    ("POST", rf"/api/models/{_NAME}/commit/(.+)", "_commit"),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", "_batch"),
    ("GET HEAD", rf"/{_NAME}/resolve/([^/]+)/(.+)", "_resolve"),
)


def _mode(path: str) -> str:
    return "lfs" if path.endswith(".safetensors") else "regular"


def _git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub at `address`, which ends with the block."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
