"""`audio-emotion demo`: a page on this machine that runs the model in the browser."""

from __future__ import annotations

import argparse
import os
import sys
import webbrowser
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from huggingface_hub import snapshot_download

from audio_emotion.hub.browser_page import CONTENT_TYPES, EMBEDDED, GRAPH, find_or_export_graph, page_files
from audio_emotion.hub.browser_runtime import find_runtime
from audio_emotion_cli import EXIT_OK, UsageError, printable

ADDRESS = "127.0.0.1"
PORT = 8765


def run(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl+C."""
    try:
        folder, name = find_model(args.model, args.revision)
        runtime = find_runtime(Path(args.runtime_folder) if args.runtime_folder else None, report=_report)
        graph = find_or_export_graph(folder, _report)
        server = make_server(page_files(folder, graph, runtime, name), args.port)
    except (ImportError, ValueError, OSError) as error:  # what the Hub refuses is an OSError
        raise UsageError(str(error)) from error
    address = f"http://{ADDRESS}:{server.server_port}/"
    print(f"Open {address} in a browser. Ctrl+C stops the server.", flush=True)
    if args.browser:
        webbrowser.open(address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print("Stopped.")
    finally:
        server.server_close()
    return EXIT_OK


def find_model(model: str | None, revision: str | None) -> tuple[Path, str]:
    """The folder of a checkpoint, and its name.

    Args:
        model: a checkpoint, a run folder or a Hub id; the default model if None.
        revision: of a Hub id.

    Raises:
        ValueError: if there is no such model.
    """
    if model is None:
        folder, name = EMBEDDED / "lite", "lite"
    elif os.path.isdir(model):
        folder, name = Path(model), Path(model).resolve().name
        folder = folder / "checkpoints" / "last" if (folder / "checkpoints" / "last").is_dir() else folder
    elif model.count("/") == 1:
        small, name = ["config.json", "README.md", "results.json"], model
        folder = Path(snapshot_download(model, revision=revision, allow_patterns=[*small, "onnx/model*.onnx"]))
        if not (folder / GRAPH).is_file():
            weights = ["preprocessor_config.json", "*.safetensors", "*.safetensors.index.json"]
            folder = Path(snapshot_download(model, revision=revision, allow_patterns=[*small, *weights]))
    else:
        raise ValueError(f"expected a folder, or a Hub id such as owner/name, got {model}.")
    if not (folder / "config.json").is_file():
        raise ValueError(f"expected a checkpoint or a run folder, got {folder}, which has no config.json.")
    return folder, name


def _report(message: str) -> None:
    print(printable(message), file=sys.stderr, flush=True)


def make_server(files: Mapping[str, Path | bytes], port: int | None) -> ThreadingHTTPServer:
    """A server of these files and of nothing else, on the loopback address.

    Args:
        files: by address, see `page_files`.
        port: None for `PORT`, or where that is taken for any that is free; 0 for any.
    """
    handler = type("Handler", (PageHandler,), {"files": files})
    try:
        return ThreadingHTTPServer((ADDRESS, PORT if port is None else port), handler)
    except OSError as error:
        if port is not None:
            raise ValueError(
                f"port {port} cannot be used: {error.strerror}. Choose another one with --port."
            ) from error
        return ThreadingHTTPServer((ADDRESS, 0), handler)


class PageHandler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for the files of the page. There is no method by which a browser could send audio."""

    files: Mapping[str, Path | bytes]
    protocol_version = "HTTP/1.1"
    server_version = "audio-emotion"
    sys_version = ""

    def do_GET(self) -> None:
        """Send a file."""
        self._send(with_content=True)

    def do_HEAD(self) -> None:
        """Send the headers of a file."""
        self._send(with_content=False)

    def log_message(self, *_: object) -> None:
        """Log no request."""

    def _send(self, with_content: bool) -> None:
        # Another page's script could otherwise reach this server under a name that it makes point here.
        if self.headers.get("Host", "").rpartition(":")[0] not in (ADDRESS, "localhost"):
            return self._refuse(403, "Expected the host 127.0.0.1 or localhost.")
        name = unquote(urlsplit(self.path).path).removeprefix("/") or "index.html"
        if name not in self.files:
            return self._refuse(404, "No such file.")
        source = self.files[name]
        content = source if isinstance(source, bytes) else source.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPES[os.path.splitext(name)[1]])
        self._finish(content, with_content)

    def _refuse(self, status: int, reason: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self._finish(reason.encode(), self.command != "HEAD")

    def _finish(self, content: bytes, with_content: bool) -> None:
        headers = {
            "Content-Length": str(len(content)),
            "Cache-Control": "no-cache",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
            "Content-Security-Policy": "frame-ancestors 'none'",  # the rest is in the page itself
        }
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if with_content:
            self.wfile.write(content)
