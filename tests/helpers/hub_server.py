"""A hub on this machine: the parts of its HTTP interface that huggingface_hub uses to list, download and upload."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LARGE_SUFFIXES = (".npz", ".safetensors", ".pt")  # what the hub keeps as large files, named by SHA-256


class FakeHub:
    """Repositories in memory.

    Attributes:
      url: for HF_ENDPOINT.
      requests: how often each (method, path) was asked for.
      authorizations: every Authorization header that came.
      private, token: repositories that want the token, which uploads want, too.
      cuts: file name → (bytes of the file after which the connection breaks, how many times that happens).
      stalls: file name → the number of its bytes after which nothing more comes; `stalled` is set then.
      swapped: file name → content that is sent in place of the real one of the same size, under the real hash.
    """

    def __init__(self, url: str):
        self.url = url
        self.requests: Counter = Counter()
        self.authorizations: list[str | None] = []
        self.private: set[str] = set()
        self.token = "hf_aTokenThatNobodyMaySee"
        self.cuts: dict[str, tuple[int, int]] = {}
        self.stalls: dict[str, int] = {}
        self.stalled, self._closing = threading.Event(), threading.Event()
        self.swapped: dict[str, bytes] = {}
        self._commits: dict[str, dict[str, dict[str, bytes]]] = {}  # repository → commit → path → content
        self._refs: dict[str, dict[str, str]] = {}
        self._uploaded: dict[str, bytes] = {}

    def add(self, repository: str, files: dict[str, bytes], *, branch: str = "main") -> str:
        """Puts the files in place of a branch's and returns the commit."""
        content = json.dumps({path: hashlib.sha1(data).hexdigest() for path, data in sorted(files.items())})
        commit = hashlib.sha1(content.encode()).hexdigest()
        self._commits.setdefault(repository, {})[commit] = dict(files)
        self._refs.setdefault(repository, {})[branch] = commit
        return commit

    def files(self, repository: str, revision: str = "main") -> dict[str, bytes] | None:
        """Path → content; None: there is no such repository or revision."""
        commit = self._refs.get(repository, {}).get(revision, revision)
        return self._commits.get(repository, {}).get(commit)

    def commit_of(self, repository: str, revision: str) -> str:
        return self._refs[repository].get(revision, revision)

    def stall(self) -> None:
        """Waits for the end of the hub."""
        self.stalled.set()
        self._closing.wait()

    def close(self) -> None:
        self._closing.set()

    def has_repository(self, repository: str) -> bool:
        return repository in self._refs

    def create(self, repository: str) -> None:
        if repository not in self._refs:
            self.add(repository, {})

    def branch(self, repository: str, name: str) -> bool:
        """False: it exists."""
        refs = self._refs[repository]
        return name not in refs and bool(refs.setdefault(name, refs["main"]))

    def receive(self, oid: str, data: bytes) -> None:
        self._uploaded[oid] = data

    def commit(self, repository: str, branch: str, lines: list[dict]) -> str:
        files = dict(self.files(repository, branch) or {})
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self._uploaded[value["oid"]]
            elif line["key"] == "deletedFile":
                files.pop(value["path"], None)
        return self.add(repository, files, branch=branch)


def folder_content(folder: Path, prefix: str = "") -> dict[str, bytes]:
    """Path → content of all files below a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {prefix + path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def blob_hash(path: str, data: bytes) -> str:
    """The hash that the hub names a file by."""
    if path.endswith(_LARGE_SUFFIXES):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextlib.contextmanager
def running_hub() -> Iterator[FakeHub]:
    """A hub that listens on a free port of this machine."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.hub = FakeHub(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.hub
    finally:
        server.hub.close()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> FakeHub:
        return self.server.hub

    def do_GET(self):
        self._route(
            (r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", self._info),
            (r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", self._tree),
            (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._file),
        )

    do_HEAD = do_GET

    def do_POST(self):
        self._route(
            (r"/api/validate-yaml", lambda: (self._body(), self._json({"errors": [], "warnings": []}))),
            (r"/api/repos/create", self._create),
            (r"/api/models/([^/]+/[^/]+)/branch/(.+)", self._branch),
            (r"/api/models/([^/]+/[^/]+)/preupload/([^/]+)", self._preupload),
            (r"/api/models/([^/]+/[^/]+)/commit/([^/]+)", self._commit),
            (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self._batch),
        )

    def do_PUT(self):
        self._route((r"/uploads/(.+)", lambda oid: (self.hub.receive(oid, self._body()), self._json({}))))

    def _route(self, *routes) -> None:
        path = urlsplit(self.path).path
        self.hub.requests[self.command, unquote(path)] += 1
        self.hub.authorizations.append(self.headers.get("Authorization"))
        for pattern, handle in routes:
            match = re.fullmatch(pattern, path)
            if match:
                handle(*(group and unquote(group) for group in match.groups()))
                return
        self._refuse(404, "EntryNotFound")

    def _info(self, repository: str, revision: str | None) -> None:
        files = self._files(repository, revision or "main")
        if files is not None:
            commit = self.hub.commit_of(repository, revision or "main")
            siblings = [{"rfilename": path} for path in files]
            self._json({"id": repository, "sha": commit, "siblings": siblings, "private": False, "tags": []})

    def _tree(self, repository: str, revision: str) -> None:
        entries = []
        files = self._files(repository, revision)
        if files is None:
            return
        for path, data in files.items():
            entry = {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            if path.endswith(_LARGE_SUFFIXES):
                entry["lfs"] = {"oid": blob_hash(path, data), "size": len(data), "pointerSize": 130}
            entries.append(entry)
        self._json(entries)

    def _file(self, repository: str, revision: str, path: str) -> None:
        files = self._files(repository, revision)
        if files is None:
            return
        if path not in files:
            self._refuse(404, "EntryNotFound")
            return
        data = files[path]
        headers = {
            "ETag": f'"{blob_hash(path, data)}"',
            "X-Repo-Commit": self.hub.commit_of(repository, revision),
            "Accept-Ranges": "bytes",
        }
        self._send(200, self.hub.swapped.get(path, data), headers, cut=path)

    def _create(self) -> None:
        asked = json.loads(self._body())
        if self._may_write():
            repository = f"{asked.get('organization') or 'me'}/{asked['name']}"
            exists = self.hub.has_repository(repository)
            self.hub.create(repository)
            self._json({"url": f"{self.hub.url}/{repository}", "id": repository}, status=409 if exists else 200)

    def _branch(self, repository: str, name: str) -> None:
        self._body()
        if self._may_write():
            self._json({}, status=200 if self.hub.branch(repository, name) else 409)

    def _preupload(self, repository: str, branch: str) -> None:
        files = json.loads(self._body())["files"]
        modes = {True: "lfs", False: "regular"}
        answer = [
            {"path": file["path"], "uploadMode": modes[file["path"].endswith(_LARGE_SUFFIXES)], "shouldIgnore": False}
            for file in files
        ]
        self._json({"files": answer})

    def _batch(self, repository: str) -> None:
        objects = json.loads(self._body())["objects"]
        answer = [{**o, "actions": {"upload": {"href": f"{self.hub.url}/uploads/{o['oid']}"}}} for o in objects]
        self._json({"transfer": "basic", "objects": answer})

    def _commit(self, repository: str, branch: str) -> None:
        lines = [json.loads(line) for line in self._body().splitlines()]
        if self._may_write():
            commit = self.hub.commit(repository, branch, lines)
            self._json({"commitOid": commit, "commitUrl": f"{self.hub.url}/{repository}/commit/{commit}"})

    def _may_write(self) -> bool:
        allowed = self._has_token()
        if not allowed:
            self._refuse(401, message="Invalid username or password.")
        return allowed

    def _has_token(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def _files(self, repository: str, revision: str) -> dict[str, bytes] | None:
        """The files of a revision; None: refused."""
        hidden = repository in self.hub.private and not self._has_token()
        if hidden or not self.hub.has_repository(repository):
            self._refuse(401, "RepoNotFound", "Repository not found")
            return None
        files = self.hub.files(repository, revision)
        if files is None:
            self._refuse(404, "RevisionNotFound")
        return files

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _json(self, value: object, *, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str = "", message: str = "") -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        self._send(status, b"{}", {name: value for name, value in headers.items() if value})

    def _send(self, status: int, data: bytes, headers: dict[str, str], *, cut: str | None = None) -> None:
        first = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if status == 200 and asked and cut is not None:
            first, status = int(asked[1]), 206
            headers = {**headers, "Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) - first))
        self.end_headers()
        if self.command == "HEAD":
            return
        after, times = self.hub.cuts.get(cut, (0, 0))
        if times:
            self.hub.cuts[cut] = after, times - 1
            self.wfile.write(data[first : first + after])
            self.close_connection = True
            self.connection.close()
            return
        if cut in self.hub.stalls:
            self.wfile.write(data[first : first + self.hub.stalls[cut]])
            self.hub.stall()
            return
        self.wfile.write(data[first:])

    def log_message(self, *_) -> None:
        pass
