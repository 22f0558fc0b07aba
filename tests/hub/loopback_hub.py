"""A Hub on loopback, as far as the real client needs one: commits, large files, branches, tags, downloads.

    python tests/hub/loopback_hub.py     # prints its address, serves until it is stopped

Everything lives in memory. Large files are checked against their hash, writing and what is private
need the token.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_loopback"
DATE = "2026-01-01T00:00:00.000Z"
KINDS = {"models": "", "datasets": "datasets/", "spaces": "spaces/"}
LARGE = (".safetensors", ".parquet", ".png")  # go through the store of large files, whatever their size


@dataclass
class Repository:
    """Files by commit, and names of commits."""

    private: bool = False
    sdk: str | None = None  # of a Space
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)  # hash to the whole tree
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, tree: dict[str, bytes], message: str = "") -> str:
        """Add a commit on a branch and return its hash."""
        parent = self.branches.get(branch, "")
        listing = json.dumps([parent, len(self.commits), message, sorted((n, _sha256(b)) for n, b in tree.items())])
        oid = hashlib.sha1(listing.encode()).hexdigest()
        self.commits[oid] = tree
        self.branches[branch] = oid
        return oid

    def resolve(self, revision: str) -> str | None:
        """The hash that a branch, tag or hash means."""
        named = self.branches.get(revision) or self.tags.get(revision)
        return named or (revision if revision in self.commits else None)


class LoopbackHub:
    """The server and what it holds.

    Attributes:
        repositories: by kind ("models", "datasets", "spaces") and id.
        large: content of large files by sha256.
        requests: method and path of every request, in order.
    """

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> LoopbackHub:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def put(self, repo: str, tree: dict[str, bytes], kind: str = "models") -> str:
        """Commit files behind the client's back: what no honest client would upload."""
        return self.repositories.setdefault((kind, repo), Repository()).commit("main", tree)

    def environment(self, home: object) -> dict[str, str]:
        """Variables with which the real client talks to this Hub; they are read when it is imported."""
        return {
            "HF_ENDPOINT": self.address,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",  # else it asks for another store than that of large files
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_OFFLINE": "0",
        }


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def _answer(self) -> None:
        self.path_only, self.query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        self.body = self._read_body()
        self.hub.requests.append(f"{self.command} {self.path_only}")
        if self.path_only == "/api/whoami-v2":
            return self._json({"name": "somebody", "type": "user", "orgs": [], "auth": {"accessToken": {}}})
        if self.path_only == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if self.path_only == "/api/repos/create":
            return self._create()
        if found := re.fullmatch(r"/large/([0-9a-f]{64})", self.path_only):
            return self._put_large(found[1])
        if found := re.fullmatch(r"/(datasets/|spaces/|)([^/]+/[^/]+)\.git/info/lfs/objects/batch", self.path_only):
            return self._batch()
        if found := re.fullmatch(
            r"/api/(models|datasets|spaces)/([^/]+/[^/]+)(?:/([\w-]+)(?:/(.+))?)?", self.path_only
        ):
            return self._api(found[1], found[2], found[3] or "", unquote(found[4] or ""))
        if found := re.fullmatch(r"/(datasets/|spaces/|)([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path_only):
            kind = next(kind for kind, prefix in KINDS.items() if prefix == found[1])
            return self._file(kind, found[2], unquote(found[3]), unquote(found[4]))
        return self._error(404, "EntryNotFound")

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value: object, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str) -> None:
        self._send(status, json.dumps({"error": code}).encode(), {"X-Error-Code": code, "X-Error-Message": code})

    def _known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _create(self) -> None:
        if not self._known():
            return self._error(401, "Unauthorized")
        asked = json.loads(self.body)
        kind = f"{asked.get('type') or 'model'}s"
        repo = f"{asked.get('organization') or 'somebody'}/{asked['name']}"
        url = {"url": f"{self.hub.address}/{KINDS[kind]}{repo}", "name": repo}
        if (kind, repo) in self.hub.repositories:
            return self._json({**url, "error": "You already created this repo"}, 409)
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        if kind == "spaces" and asked.get("sdk") not in ("static", "gradio", "docker"):
            return self._error(400, "BadSdk")
        made = self.hub.repositories[kind, repo] = Repository(private, asked.get("sdk"))
        made.commit("main", {".gitattributes": b""}, "initial commit")
        return self._json(url)

    def _batch(self) -> None:
        if not self._known():
            return self._error(401, "Unauthorized")
        objects = []
        for each in json.loads(self.body)["objects"]:
            here = each["oid"] in self.hub.large  # then there is nothing to send
            upload = {"upload": {"href": f"{self.hub.address}/large/{each['oid']}", "header": {}}}
            objects.append({**each, **({} if here else {"actions": upload})})
        return self._json({"transfer": "basic", "objects": objects})

    def _put_large(self, oid: str) -> None:
        if _sha256(self.body) != oid:
            return self._error(400, "HashMismatch")
        self.hub.large[oid] = self.body
        return self._json({})

    def _api(self, kind: str, repo: str, verb: str, rest: str) -> None:
        repository = self.hub.repositories.get((kind, repo))
        if repository is None or (repository.private and not self._known()):
            return self._error(401 if repository is None and not self._known() else 404, "RepoNotFound")
        if self.command != "GET" and verb != "paths-info" and not self._known():
            return self._error(401, "Unauthorized")
        if verb == "refs":
            names = {"branches": ("heads", repository.branches), "tags": ("tags", repository.tags)}
            said = {
                name: [
                    {"name": each, "ref": f"refs/{place}/{each}", "targetCommit": oid} for each, oid in refs.items()
                ]
                for name, (place, refs) in names.items()
            }
            return self._json({**said, "converts": []})
        if verb in ("tag", "branch") and self.command == "POST":
            return self._name_commit(repository, verb, rest)
        revision, _, below = rest.partition("/")
        oid = repository.resolve(revision or "main")
        if oid is None:
            return self._error(404, "RevisionNotFound")
        tree = repository.commits[oid]
        if verb in ("", "revision"):
            siblings = [{"rfilename": name} for name in sorted(tree)]
            facts = {"id": repo, "sha": oid, "private": repository.private, "siblings": siblings, "tags": []}
            return self._json({**facts, "lastModified": DATE, "createdAt": DATE, "downloads": 0, "likes": 0})
        if verb == "commits":
            return self._json([{"id": oid, "title": "", "message": "", "authors": [], "date": DATE}])
        if verb == "preupload":
            return self._json({"files": [self._mode(each, tree) for each in json.loads(self.body)["files"]]})
        if verb == "commit":
            return self._commit(repository, revision, tree, f"{self.hub.address}/{KINDS[kind]}{repo}")
        if verb == "tree":
            return self._tree(tree, below)
        if verb == "paths-info":
            form = parse_qs(self.body.decode()) if not self.body.startswith(b"{") else json.loads(self.body)
            wanted = form.get("paths", [])
            found = [_entry(name, tree[name]) for name in wanted if name in tree]
            folders = [name for name in wanted if any(each.startswith(f"{name}/") for each in tree)]
            return self._json(found + [{"type": "directory", "path": name, "oid": "0" * 40} for name in folders])
        return self._error(404, "EntryNotFound")

    def _name_commit(self, repository: Repository, verb: str, rest: str) -> None:
        asked = json.loads(self.body or b"{}")
        name, start = (asked["tag"], rest) if verb == "tag" else (rest, asked.get("startingPoint") or "main")
        names = repository.tags if verb == "tag" else repository.branches
        if name in names:
            return self._error(409, "Conflict")
        if (oid := repository.resolve(start)) is None:
            return self._error(404, "RevisionNotFound")
        names[name] = oid
        return self._json({})

    @staticmethod
    def _mode(asked: dict, tree: dict[str, bytes]) -> dict:
        large = asked["path"].endswith(LARGE) or asked["size"] > 5_000_000
        oid = _git_sha1(tree[asked["path"]]) if asked["path"] in tree else None
        return {"path": asked["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}

    def _commit(self, repository: Repository, branch: str, tree: dict[str, bytes], page: str) -> None:
        tree, message = dict(tree), ""
        for line in self.body.splitlines():
            operation = json.loads(line)
            key, value = operation["key"], operation["value"]
            if key == "header":
                message = value["summary"]
            elif key == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.hub.large:
                    return self._error(400, "MissingLargeFile")
                tree[value["path"]] = self.hub.large[value["oid"]]
            elif key == "deletedFile":
                del tree[value["path"]]
            elif key == "deletedFolder":
                tree = {name: each for name, each in tree.items() if not name.startswith(value["path"])}
            else:
                return self._error(400, f"Unknown{key}")
        oid = repository.commit(branch, tree, message)
        return self._json({"success": True, "commitOid": oid, "commitUrl": f"{page}/commit/{oid}"})

    def _tree(self, tree: dict[str, bytes], below: str) -> None:
        prefix = f"{below.rstrip('/')}/" if below else ""
        inside = {name: content for name, content in tree.items() if name.startswith(prefix)}
        if prefix and not inside:
            return self._error(404, "EntryNotFound")
        recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        folders = {
            prefix + "/".join(parts[:depth])
            for name in inside
            for parts in [name.removeprefix(prefix).split("/")]
            for depth in range(1, len(parts) if recursive else min(len(parts), 2))
        }
        entries = [{"type": "directory", "path": name, "oid": "0" * 40, "size": 0} for name in sorted(folders)]
        entries += [
            _entry(name, content)
            for name, content in sorted(inside.items())
            if recursive or "/" not in name.removeprefix(prefix)
        ]
        return self._json(entries)

    def _file(self, kind: str, repo: str, revision: str, name: str) -> None:
        repository = self.hub.repositories.get((kind, repo))
        if repository is None or (repository.private and not self._known()):
            return self._error(404, "RepoNotFound")
        oid = repository.resolve(revision)
        if oid is None:
            return self._error(404, "RevisionNotFound")
        if name not in repository.commits[oid]:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": oid})
        content = repository.commits[oid][name]
        headers = {"X-Repo-Commit": oid, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        large = name.endswith(LARGE)
        headers["ETag"] = f'"{_sha256(content) if large else _git_sha1(content)}"'
        if large:
            headers |= {"X-Linked-ETag": headers["ETag"], "X-Linked-Size": str(len(content))}
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            return self._send(206, content[first : last + 1], headers)
        return self._send(200, content, headers)


def _entry(name: str, content: bytes) -> dict:
    """A file as trees list it."""
    entry = {"type": "file", "path": name, "size": len(content), "oid": _git_sha1(content)}
    if name.endswith(LARGE):
        entry["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 134}
    return entry


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


if __name__ == "__main__":
    hub = LoopbackHub()
    print(hub.address, flush=True)
    hub.server.serve_forever()
