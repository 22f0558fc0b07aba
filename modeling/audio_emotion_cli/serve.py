"""`audio-emotion serve`: a server of predictions over HTTP and WebSocket."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from audio_emotion.runtime import EmotionRuntime
from audio_emotion_cli import EXIT_OK, UsageError, printable
from audio_emotion_cli.inputs import labels_of, load_recognizer

HEADER_TIMEOUT = 10  # seconds until the headers of a request have to be complete, from the connection or answer on
MAX_CONNECTIONS = 512
MAX_MESSAGE = 2**20  # bytes of one message of a stream


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl+C or SIGTERM."""
    try:
        from audio_emotion_cli.serve_app import Limits, make_app
    except ImportError as error:
        raise UsageError(f'{error}. `serve` needs its extra: pip install "audio-emotion[serve]"') from error
    limits = replace(
        Limits(),
        max_bytes=args.max_megabytes * 10**6,
        max_upload_bytes=max(Limits.max_upload_bytes, 2 * args.max_megabytes * 10**6),
        max_duration=args.max_seconds,
        max_clips=args.max_clips,
        max_streams=args.max_streams,
    )
    recognizer = load_recognizer(args.model, args.revision, args.device)
    facts = describe(args.model, recognizer)
    if facts["engine"] == "torch":
        import torch

        torch.set_num_threads(1)  # workers run side by side
    server, socket = make_server(make_app(recognizer, facts, limits, args.workers), args.host, args.port)
    host, port = socket.getsockname()[:2]
    if ":" in host:
        host = f"[{host}]"
    print(f"Serving {printable(facts['model'])} ({facts['engine']}) on http://{host}:{port}. Ctrl+C ends.", flush=True)
    server.run(sockets=[socket])
    return EXIT_OK


def describe(model: str | None, recognizer: Any) -> dict[str, Any]:
    """What `/health` states about a model: of a folder, no more than its name."""
    dimensions, emotions = labels_of(recognizer)
    name = "lite" if model is None else Path(model).name
    engine = "onnx" if isinstance(recognizer, EmotionRuntime) else "torch"
    return {"model": name, "engine": engine, "dimensions": dimensions, "emotions": emotions}


def make_server(app: Any, host: str, port: int, header_timeout: float = HEADER_TIMEOUT) -> tuple[Any, Any]:
    """A server that is ready to run, and its bound socket.

    Raises:
        UsageError: if the address cannot be used.
    """
    import socket

    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class TimedProtocol(H11Protocol):
        """Ends connections that send no complete headers in time: uvicorn has no limit for that.

        Where an answer is sent before the upload is complete, the rest is not waited for longer either.
        """

        deadline: Any = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._set_deadline()

        def connection_lost(self, exc: Exception | None) -> None:
            self._cancel_deadline()
            super().connection_lost(exc)

        def on_response_complete(self) -> None:
            self._set_deadline()
            super().on_response_complete()  # can begin the next request, which cancels the deadline

        def handle_events(self) -> None:
            before = self.cycle
            super().handle_events()
            if self.cycle is not before:
                self._cancel_deadline()

        def handle_websocket_upgrade(self, event: Any) -> None:
            self._cancel_deadline()  # from here on, pings find dead clients
            super().handle_websocket_upgrade(event)

        def _set_deadline(self) -> None:
            self._cancel_deadline()
            self.deadline = self.loop.call_later(header_timeout, self.transport.abort)

        def _cancel_deadline(self) -> None:
            if self.deadline is not None:
                self.deadline.cancel()
                self.deadline = None

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)  # before the address is printed
    except (OSError, OverflowError) as error:  # OverflowError: no port
        listening.close()
        raise UsageError(f"cannot use {host} with port {port}: {error}. Choose others with --host, --port.") from error
    config = uvicorn.Config(
        app,
        http=TimedProtocol,
        ws="websockets-sansio",
        ws_max_size=MAX_MESSAGE,
        ws_per_message_deflate=False,  # samples do not shrink, and a small message could unpack to a large one
        ws_ping_interval=20,
        ws_ping_timeout=20,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=HEADER_TIMEOUT,
        timeout_graceful_shutdown=10,
        server_header=False,
        access_log=False,  # it names the clients
        log_level="warning",
    )
    return uvicorn.Server(config), listening
