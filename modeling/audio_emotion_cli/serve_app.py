"""The application behind `audio-emotion serve`: bytes of sound in, JSON out, over HTTP and WebSocket."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI, Query, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.exceptions import RequestValidationError
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

logger = logging.getLogger(__name__)

SAMPLE_FORMATS = {"s16le": "<i2", "s32le": "<i4", "f32le": "<f4"}
NO_TELEMETRY = {"auto_configure": False, "tracing": False, "metrics": False, "logs": False, "operation_spans": False}
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # upper ends of a histogram


@dataclass(frozen=True)
class Limits:
    """What a client can use of the server.

    Attributes:
        max_bytes: of one upload.
        max_upload_bytes: of all uploads that are received, wait or are predicted.
        max_duration: seconds of one clip.
        max_clips: clips that wait or are predicted; one more is refused with status 503.
        max_streams: streams at once.
        max_stream_duration: seconds of sound of one stream.
        upload_timeout: seconds in which an upload has to arrive.
        idle_timeout: seconds within which a stream has to send samples, and to read its answers.
        answer_timeout: seconds after which a clip in the queue is given up.
    """

    max_bytes: int = 32 * 2**20
    max_upload_bytes: int = 256 * 2**20
    max_duration: float = 600.0
    max_clips: int = 64
    max_streams: int = 64
    max_stream_duration: float = 4 * 3600.0
    upload_timeout: float = 30.0
    idle_timeout: float = 30.0
    answer_timeout: float = 60.0


class RefusalError(Exception):
    """A request that is not answered with a prediction: its status, and the reason for the client."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status

    def response(self) -> Response:
        """As JSON, with the time of the next attempt, or the end of the connection: an upload's rest is not read."""
        headers = {"Retry-After": "1"} if self.status == 503 else {}
        if self.status in (408, 413, 503):
            headers["Connection"] = "close"
        return _json({"error": str(self)}, self.status, headers)


class Metrics:
    """What Prometheus reads: counts, durations and sizes, nothing of the clips or the clients."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        prefix, registry = "audio_emotion_", self.registry
        self.requests = Counter(f"{prefix}requests", "Answers by status.", ["status"], registry=registry)
        self.seconds = Histogram(
            f"{prefix}request_seconds", "From a clip's arrival to its answer.", buckets=SECONDS, registry=registry
        )
        self.audio = Counter(f"{prefix}audio_seconds", "Sound that was predicted.", registry=registry)
        self.clips = Gauge(f"{prefix}clips", "Clips that wait or are predicted.", registry=registry)
        self.streams = Gauge(f"{prefix}streams", "Open streams.", registry=registry)
        self.upload_bytes = Gauge(f"{prefix}upload_bytes", "Uploads in memory.", registry=registry)


class Predictor:
    """Predictions in threads of their own, a bounded number at a time.

    Args:
        recognizer: a pipeline or a runtime.
        limits: see [`Limits`].
        workers: clips that are predicted at once. Streams have one more thread, so that long clips do not delay them.
        metrics: updated.
    """

    def __init__(self, recognizer: Any, limits: Limits, workers: int, metrics: Metrics):
        self.recognizer, self.limits, self.metrics = recognizer, limits, metrics
        self._clip_threads = ThreadPoolExecutor(workers, "clip")
        self._stream_thread = ThreadPoolExecutor(1, "stream")
        self._clips = self._streams = self._bytes = 0

    def check_free(self) -> None:
        """Refuse a clip where the queue is full."""
        if self._clips >= self.limits.max_clips:
            raise RefusalError(503, f"Expected fewer clips at once, got {self._clips} that wait. Try again.")

    def reserve(self, size: int) -> None:
        """Count bytes of an upload, which `release` returns."""
        if self._bytes + size > self.limits.max_upload_bytes:
            raise RefusalError(503, "Expected fewer uploads at once: their memory is used up. Try again.")
        self._bytes += size
        self.metrics.upload_bytes.set(self._bytes)

    def release(self, size: int) -> None:
        """Return reserved bytes."""
        self._bytes -= size
        self.metrics.upload_bytes.set(self._bytes)

    async def predict(self, content: bytes | bytearray, reserved: int, parameters: dict[str, Any]) -> dict[str, Any]:
        """The prediction for an audio file; its slot and its bytes are free when it is out of the thread.

        Raises:
            RefusalError: if it is no audio, or takes too long.
        """
        loop = asyncio.get_running_loop()
        self._clips += 1
        self.metrics.clips.set(self._clips)

        def done() -> None:
            self._clips -= 1
            self.metrics.clips.set(self._clips)
            self.release(reserved)

        job = self._clip_threads.submit(self._predict, content, parameters)
        job.add_done_callback(lambda _: loop.call_soon_threadsafe(done))
        try:
            async with asyncio.timeout(self.limits.answer_timeout):
                found = await asyncio.wrap_future(job)  # cancels the job if it has not begun
        except TimeoutError as error:
            raise RefusalError(503, f"Expected an answer in {self.limits.answer_timeout:g} s. Try again.") from error
        except ValueError as error:
            raise RefusalError(422, str(error)) from error
        self.metrics.audio.inc(found["duration"])
        return found

    def _predict(self, content: bytes | bytearray, parameters: dict[str, Any]) -> dict[str, Any]:
        # Wrapped: bare bytes and this mean the same, and no string can ever get here, which would be a path.
        clip = {"bytes": bytes(content), "path": None}
        return self.recognizer(clip, max_duration=self.limits.max_duration, **parameters)

    @contextmanager
    def stream_slot(self) -> Iterator[None]:
        """Count one stream.

        Raises:
            RefusalError: if there are too many.
        """
        if self._streams >= self.limits.max_streams:
            raise RefusalError(503, f"Expected fewer streams at once, got {self._streams}. Try again.")
        self._streams += 1
        self.metrics.streams.set(self._streams)
        try:
            yield
        finally:
            self._streams -= 1
            self.metrics.streams.set(self._streams)

    async def in_stream_thread(self, step: Callable[..., Any], *arguments: Any) -> Any:
        """Run one step of a stream."""
        return await asyncio.get_running_loop().run_in_executor(self._stream_thread, step, *arguments)

    def close(self) -> None:
        """End the threads, and drop what waits."""
        for each in (self._clip_threads, self._stream_thread):
            each.shutdown(wait=False, cancel_futures=True)


def make_app(
    recognizer: Any, facts: dict[str, Any] | None = None, limits: Limits | None = None, workers: int = 1
) -> FastAPI:
    """The application of one model.

    Args:
        recognizer: a pipeline or a runtime.
        facts: about the model, for `/health`.
        limits: see [`Limits`].
        workers: clips that are predicted at once.
    """
    limits, metrics = limits or Limits(), Metrics()
    predictor = Predictor(recognizer, limits, workers, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        predictor.close()

    # Its pages of documentation load scripts from elsewhere; the schema, /openapi.json, has none.
    app = FastAPI(title="audio-emotion", docs_url=None, redoc_url=None, lifespan=lifespan, telemetry=NO_TELEMETRY)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        reasons = [f"{each['loc'][-1]}: {each['msg']}" for each in error.errors()]
        metrics.requests.labels(400).inc()
        return _json({"error": "; ".join(reasons)}, 400)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", **(facts or {})}

    @app.get("/metrics")
    async def read_metrics() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.post("/predict")
    async def predict(
        request: Request,
        top_k: Annotated[int | None, Query(ge=1)] = None,
        low: float = 0.0,
        high: float = 1.0,
        window: Annotated[float | None, Query(ge=0.5, allow_inf_nan=False)] = None,
        hop: Annotated[float | None, Query(gt=0, allow_inf_nan=False)] = None,
        return_embedding: bool = False,
        return_uncertainty: bool = False,
    ) -> Response:
        begin = time.monotonic()
        parameters: dict[str, Any] = {"scale": (low, high), "top_k": top_k, "window": window, "hop": hop}
        parameters = {name: each for name, each in parameters.items() if each is not None}
        parameters |= {"return_embedding": True} if return_embedding else {}
        parameters |= {"return_uncertainty": True} if return_uncertainty else {}
        try:
            known = {"top_k", "low", "high", "window", "hop", "return_embedding", "return_uncertainty"}
            if unknown := sorted(set(request.query_params) - known):
                raise RefusalError(400, f"Expected parameters of {sorted(known)}, got {unknown}.")
            if hop is not None and (window is None or hop < window / 4):  # overlap multiplies the work
                raise RefusalError(400, f"Expected `hop` of at least a quarter of `window`, got {hop} with {window}.")
            predictor.check_free()
            response = _json(await _answer(request, predictor, parameters))
            metrics.seconds.observe(time.monotonic() - begin)
        except RefusalError as refusal:
            response = refusal.response()
        except ClientDisconnect:
            response = Response(status_code=400)
        except Exception:  # a fault of ours: the reason is for the log, not for the client
            logger.exception("A prediction failed.")
            response = _json({"error": "The server failed; the reason is in its log."}, 500)
        metrics.requests.labels(response.status_code).inc()
        return response

    @app.websocket("/stream")
    async def stream(
        socket: WebSocket,
        sampling_rate: Annotated[int, Query(ge=8000, le=192_000)] = 16_000,
        channels: Annotated[int, Query(ge=1, le=8)] = 1,
        sample_format: Literal["s16le", "s32le", "f32le"] = "s16le",
        interval: Annotated[float, Query(ge=0.02, allow_inf_nan=False)] = 0.5,
        top_k: Annotated[int | None, Query(ge=1)] = None,
    ) -> None:
        try:
            with predictor.stream_slot():
                parameters = {} if top_k is None else {"top_k": top_k}
                lives = [recognizer.stream(sampling_rate=sampling_rate, **parameters) for _ in range(channels)]
                await socket.accept()
                with suppress(WebSocketDisconnect):
                    await _Stream(socket, predictor, lives, SAMPLE_FORMATS[sample_format], interval).run()
        except RefusalError as refusal:
            await socket.send_denial_response(refusal.response())

    return app


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(content, allow_nan=False), status, headers, "application/json")


async def _answer(request: Request, predictor: Predictor, parameters: dict[str, Any]) -> dict[str, Any]:
    """Read the upload of a request, and predict."""
    reserved = 0
    body = bytearray()
    kind = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    is_form = kind == "multipart/form-data"
    if not (is_form or kind == "application/octet-stream" or kind.startswith(("audio/", "video/"))):
        raise RefusalError(415, f"Expected the bytes of an audio file, or a form with one, got {kind!r}.")
    largest = predictor.limits.max_bytes + (2**16 if is_form else 0)  # the headers of a form
    # Not a prepared exception: a local one refers to this frame, and the body would be kept until the next collection.
    too_large = f"Expected at most {predictor.limits.max_bytes} bytes, got more."
    try:
        if int(request.headers.get("content-length") or 0) > largest:
            raise RefusalError(413, too_large)
        async with asyncio.timeout(predictor.limits.upload_timeout):
            async for chunk in request.stream():
                if len(body) + len(chunk) > largest:
                    raise RefusalError(413, too_large)
                predictor.reserve(len(chunk))
                reserved += len(chunk)
                body += chunk
        content: bytes | bytearray = await _file_of_form(request, body) if is_form else body
        predictor.check_free()  # again: other uploads have arrived meanwhile
    except TimeoutError as error:
        predictor.release(reserved)
        seconds = predictor.limits.upload_timeout
        raise RefusalError(408, f"Expected an upload within {seconds:g} s, got {len(body)} bytes.") from error
    except BaseException:
        predictor.release(reserved)
        raise
    return await predictor.predict(content, reserved, parameters)


async def _file_of_form(request: Request, body: bytearray) -> bytes:
    """The content of the one file in a form."""

    async def whole() -> AsyncIterator[bytes]:
        yield bytes(body)

    parser = MultiPartParser(request.headers, whole(), max_files=1, max_fields=0)  # type: ignore[arg-type]
    parser.spool_max_size = len(body) + 1  # nothing on disk
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:  # KeyError: no boundary
        raise RefusalError(400, f"Expected a form with one file and nothing else, got {error}.") from error
    try:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise RefusalError(400, f"Expected a form with one file under the name `file`, got {list(form)}.")
        return await file.read()
    finally:
        await form.close()


class _Stream:
    """A conversation: interleaved samples come in, predictions of each channel go out at every interval."""

    def __init__(
        self, socket: WebSocket, predictor: Predictor, lives: list[Any], sample_format: str, interval: float
    ) -> None:
        self.socket, self.predictor, self.lives, self.interval = socket, predictor, lives, interval
        self.limits, self.kind = predictor.limits, np.dtype(sample_format)
        self.left, self.due = b"", interval

    async def run(self) -> None:
        """Answer until the client sends `end` or closes."""
        while True:
            try:
                message = await asyncio.wait_for(self.socket.receive(), self.limits.idle_timeout)
            except TimeoutError:
                return await self._close(1008, f"expected samples within {self.limits.idle_timeout:g} s, got none")
            if message["type"] == "websocket.disconnect":
                return None
            text = message.get("text")
            try:
                if text == "end":
                    await self._send([await self.predictor.in_stream_thread(each.result) for each in self.lives], True)
                    return await self._close(1000, "end")
                if text is not None:
                    return await self._close(1003, "expected samples as bytes, or the text `end`, got another text")
                await self._feed(message["bytes"])
            except ValueError as error:
                await self._send_json({"error": str(error)})
                return await self._close(1007, "unusable samples")
            if self.lives[0].duration > self.limits.max_stream_duration:
                return await self._close(1008, f"expected at most {self.limits.max_stream_duration:g} s, got more")

    async def _feed(self, chunk: bytes) -> None:
        chunk, size = self.left + chunk, self.kind.itemsize * len(self.lives)
        whole = len(chunk) // size * size
        self.left = chunk[whole:]
        if not whole:
            return
        samples = np.frombuffer(bytearray(chunk[:whole]), self.kind).reshape(-1, len(self.lives))  # (S, C)
        found = await self.predictor.in_stream_thread(self._feed_channels, samples)
        self.predictor.metrics.audio.inc(len(samples) / self.lives[0].sampling_rate)
        duration = self.lives[0].duration
        if duration >= self.due and None not in found:
            self.due = (duration // self.interval + 1) * self.interval
            await self._send(found, False)

    def _feed_channels(self, samples: np.ndarray) -> list[dict[str, Any] | None]:
        return [each.feed(samples[:, channel]) for channel, each in enumerate(self.lives)]

    async def _send(self, predictions: list[Any], final: bool) -> None:
        for channel, each in enumerate(predictions, start=1):
            await self._send_json({"channel": channel, "final": final, **each})

    async def _send_json(self, content: dict[str, Any]) -> None:
        text = json.dumps(content, allow_nan=False)
        try:
            await asyncio.wait_for(self.socket.send_text(text), self.limits.idle_timeout)
        except TimeoutError as error:  # a client that does not read
            raise WebSocketDisconnect(1008) from error

    async def _close(self, code: int, reason: str) -> None:
        await self.socket.close(code, reason)
