"""Active speaker detection: faces are detected, tracked, and the speaker's is chosen by mouth motion and loudness."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from audio_emotion.teachers.video import Video, check_durations

SAMPLING_RATE = 16000  # hertz, of waveforms

# From pixels `(H, W, 3)` to boxes `(N, 4)`: left, top, right, bottom in pixels, right and bottom exclusive.
Detector = Callable[[np.ndarray], np.ndarray]

DETECTION_INTERVAL_SECONDS = 0.24  # as in Albanie et al. 2018, who take each 6th of 25 frames a second
TIME_TOLERANCE_SECONDS = 1e-3  # frame times are rounded to ticks of the file's clock
MAX_GAP_SECONDS = 0.75  # without a detection, after which a track ends
MIN_OVERLAP = 0.3  # intersection over union of a face's boxes in consecutive detections
MIN_TRACK_RATE = 0.25  # fraction of the searched frames; shorter tracks are passers-by or false detections
MIN_CORRELATION = 0.2  # of the speaker's mouth motion with the loudness
MIN_CORRELATION_LEAD = 0.1  # of the speaker over the next face
CROP_MARGIN = 0.1  # of the box's side, on each side of the box
CROP_PIXELS = 224  # side of a crop
MOUTH = (0.62, 0.98, 0.22, 0.78)  # top, bottom, left, right as fractions of the box
UPPER_FACE = (0.02, 0.38, 0.22, 0.78)  # its motion is head motion, which is subtracted from the mouth's
PATCH_PIXELS = (32, 20)  # width and height to which both patches are resized
SMOOTHING_SECONDS = 0.2  # window of the moving average over mouth motion and loudness


class NoFaceError(ValueError):
    """No face can be attributed to the speaker; of `num_faces` tracked, the best is in a `rate` of the frames."""

    def __init__(self, reason: str, num_faces: int, rate: float) -> None:
        super().__init__(reason)
        self.num_faces = num_faces
        self.rate = rate


@dataclass
class FaceTrack:
    """One face through a clip."""

    times: list[float] = field(default_factory=list)  # seconds since the start of the audio
    boxes: list[np.ndarray] = field(default_factory=list)  # (4,) each
    crops: list[np.ndarray] = field(default_factory=list)  # (CROP_PIXELS, CROP_PIXELS, 3) each

    def add(self, time: float, pixels: np.ndarray, box: np.ndarray) -> None:
        """Append a detection in a frame `(H, W, 3)`."""
        self.times.append(time)
        self.boxes.append(np.asarray(box, np.float64))
        self.crops.append(crop_face(pixels, self.boxes[-1]))

    def box_at(self, time: float) -> np.ndarray:
        """`(4,)` at any time, interpolated linearly between detections."""
        boxes = np.stack(self.boxes)  # (N, 4)
        return np.array([np.interp(time, self.times, boxes[:, side]) for side in range(4)])


@dataclass(frozen=True)
class SpeakingFace:
    """The face of a clip's speaker."""

    times: np.ndarray  # (N,) seconds since the start of the audio
    crops: np.ndarray  # (N, CROP_PIXELS, CROP_PIXELS, 3)
    rate: float  # fraction of the searched frames with this face
    num_faces: int  # tracked through the clip


class HaarDetector:
    """OpenCV's frontal face cascade (Viola & Jones 2001; Lienhart & Maydt 2002), which OpenCV 5 no longer has."""

    max_side_pixels = 360  # of the searched image: detects the same faces as 480 in two thirds of the time

    def __init__(self) -> None:
        install = "`pip install 'audio-emotion[video]'`, or `pip install 'opencv-python-headless<5'`."
        try:
            self.opencv = importlib.import_module("cv2")  # by name: optional, and slow to import
        except ImportError as error:
            raise ImportError(f"Detecting faces needs OpenCV 4, got none: {install}") from error
        if not self.opencv.__version__.startswith("4."):
            raise ImportError(f"Detecting faces needs OpenCV 4, got {self.opencv.__version__}: {install}")
        self.opencv.setNumThreads(1)  # cores are shared by processes, not threads
        weights = Path(self.opencv.data.haarcascades) / "haarcascade_frontalface_alt2.xml"
        self.cascade = self.opencv.CascadeClassifier(str(weights))

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Boxes `(N, 4)` of the faces in `(H, W, 3)`."""
        scale = min(1.0, self.max_side_pixels / max(pixels.shape[:2]))
        gray = self.opencv.cvtColor(pixels, self.opencv.COLOR_RGB2GRAY)
        gray = self.opencv.resize(gray, None, fx=scale, fy=scale, interpolation=self.opencv.INTER_AREA)
        smallest = max(24, min(gray.shape) // 10)
        found = self.cascade.detectMultiScale(gray, scaleFactor=1.1, minNeighbors=4, minSize=(smallest, smallest))
        boxes = np.asarray(found, np.float64).reshape(-1, 4) / scale  # left, top, width, height
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def find_speaking_face(video: Video, waveform: np.ndarray, detect: Detector, min_rate: float = 0.5) -> SpeakingFace:
    """The face of the speaker: the only face, or the one whose mouth motion correlates with the loudness.

    The face must be in at least a `min_rate` of the searched frames. The waveform is `(S,)`.

    Raises:
        VideoError: if the video cannot be read, or differs from the audio in duration.
        NoFaceError: if no face, or no single one, can be attributed to the speaker.
    """
    duration = len(waveform) / SAMPLING_RATE
    tracks: list[FaceTrack] = []
    times: list[float] = []
    next_detection = 0.0
    for frame in video.frames():
        times.append(frame.time)
        if next_detection <= frame.time + TIME_TOLERANCE_SECONDS and frame.time <= duration:
            update_tracks(tracks, frame.time, frame.pixels, detect(frame.pixels))
            interval = math.floor((frame.time + TIME_TOLERANCE_SECONDS) / DETECTION_INTERVAL_SECONDS)
            next_detection = (interval + 1) * DETECTION_INTERVAL_SECONDS
    check_durations(duration, times[-1] + float(np.median(np.diff(times))))

    searched = max(1.0, duration / DETECTION_INTERVAL_SECONDS)
    rates = [min(1.0, len(track.times) / searched) for track in tracks]
    candidates = [index for index, rate in enumerate(rates) if rate >= MIN_TRACK_RATE]
    best_rate = max(rates, default=0.0)
    if not candidates:
        raise NoFaceError("no face", 0, best_rate)
    speaker = candidates[0]
    if len(candidates) > 1:
        scores = speech_correlations([tracks[index] for index in candidates], video, waveform)
        order = np.argsort(scores)[::-1]
        if scores[order[0]] < MIN_CORRELATION or scores[order[0]] - scores[order[1]] < MIN_CORRELATION_LEAD:
            raise NoFaceError(
                f"{len(candidates)} faces, and the speaker is ambiguous (correlations of mouth motion and loudness "
                f"{', '.join(f'{score:.2f}' for score in scores)})",
                len(candidates),
                best_rate,
            )
        speaker = candidates[order[0]]
    if rates[speaker] < min_rate:
        raise NoFaceError(f"the face is in {rates[speaker]:.0%} of the frames", len(candidates), rates[speaker])
    track = tracks[speaker]
    return SpeakingFace(np.array(track.times, np.float32), np.stack(track.crops), rates[speaker], len(candidates))


def update_tracks(tracks: list[FaceTrack], time: float, pixels: np.ndarray, boxes: np.ndarray) -> None:
    """Assign boxes `(N, 4)` in a frame `(H, W, 3)` to tracks, the largest overlaps first; start tracks for the others.

    Changes `tracks`, all of which end before `time`.
    """
    pairs = [
        (intersection_over_union(track.boxes[-1], box), index, number)
        for index, track in enumerate(tracks)
        if time - track.times[-1] <= MAX_GAP_SECONDS
        for number, box in enumerate(boxes)
    ]
    assigned_tracks, assigned_boxes = set(), set()
    for overlap, index, number in sorted(pairs, key=lambda pair: -pair[0]):
        if overlap >= MIN_OVERLAP and index not in assigned_tracks and number not in assigned_boxes:
            assigned_tracks.add(index)
            assigned_boxes.add(number)
            tracks[index].add(time, pixels, boxes[number])
    for number, box in enumerate(boxes):
        if number not in assigned_boxes:
            tracks.append(FaceTrack())
            tracks[-1].add(time, pixels, box)


def intersection_over_union(box: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes `(4,)`."""
    width, height = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
    intersection = max(0.0, width) * max(0.0, height)
    areas = [float(np.prod(each[2:] - each[:2])) for each in (box, other)]
    return intersection / (sum(areas) - intersection)


def crop_face(pixels: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The square around a box and its margin, `(CROP_PIXELS, CROP_PIXELS, 3)`; beyond the frame, its edge repeats."""
    center = (box[:2] + box[2:]) / 2
    half = max(box[2:] - box[:2]) * (0.5 + CROP_MARGIN)
    left, top, right, bottom = (round(value) for value in (*(center - half), *(center + half)))
    rows = np.clip(np.arange(top, max(bottom, top + 1)), 0, pixels.shape[0] - 1)
    columns = np.clip(np.arange(left, max(right, left + 1)), 0, pixels.shape[1] - 1)
    square = np.ascontiguousarray(pixels[rows[:, None], columns])
    return np.asarray(Image.fromarray(square).resize((CROP_PIXELS, CROP_PIXELS), Image.Resampling.BILINEAR))


def speech_correlations(tracks: list[FaceTrack], video: Video, waveform: np.ndarray) -> list[float]:
    """Correlation of each track's mouth motion with the loudness; reads all frames of the video once more."""
    times, motion = mouth_motion(tracks, video)
    steps = np.diff(times)
    width = min(max(1, round(SMOOTHING_SECONDS / float(np.median(steps)))), len(times)) if len(steps) else 1
    level = _moving_average(loudness(waveform, times), width)
    return [_correlation(_moving_average(each, width), level) for each in motion]


def mouth_motion(tracks: list[FaceTrack], video: Video) -> tuple[np.ndarray, np.ndarray]:
    """Times `(F,)` of all frames but the first, and motion `(N, F)`: change of the mouth minus that of the upper face.

    NaN where a face is out of view.
    """
    times: list[float] = []
    motion: list[list[float]] = []
    previous: list[tuple[np.ndarray, np.ndarray] | None] = [None] * len(tracks)
    for count, frame in enumerate(video.frames()):
        changes = []
        for index, track in enumerate(tracks):
            first, last = track.times[0] - DETECTION_INTERVAL_SECONDS, track.times[-1] + DETECTION_INTERVAL_SECONDS
            if not first <= frame.time <= last:
                previous[index] = None
                changes.append(np.nan)
                continue
            box = track.box_at(frame.time)
            patches = _patch(frame.pixels, box, MOUTH), _patch(frame.pixels, box, UPPER_FACE)
            before, previous[index] = previous[index], patches
            mouth, upper_face = (
                float(np.abs(new - old).mean()) for new, old in zip(patches, before or patches, strict=True)
            )
            changes.append(np.nan if before is None else mouth - upper_face)
        if count:
            times.append(frame.time)
            motion.append(changes)
    return np.array(times), np.array(motion).reshape(-1, len(tracks)).T


def loudness(waveform: np.ndarray, times: Iterable[float]) -> np.ndarray:
    """Root mean square of the 40 ms around each time, `(F,)`; 0 outside the waveform."""
    half = SAMPLING_RATE // 50
    levels = []
    for time in times:
        middle = round(time * SAMPLING_RATE)
        part = waveform[max(0, middle - half) : max(0, middle + half)]
        levels.append(float(np.sqrt(np.square(part, dtype=np.float64).mean())) if len(part) else 0.0)
    return np.array(levels)


def _patch(pixels: np.ndarray, box: np.ndarray, region: tuple[float, float, float, float]) -> np.ndarray:
    """A region of a face in gray, `(height, width)` of `PATCH_PIXELS`, 0..1."""
    top, bottom, left, right = region
    width, height = box[2:] - box[:2]
    x = np.clip(box[0] + np.array([left, right]) * width, 0, pixels.shape[1])
    y = np.clip(box[1] + np.array([top, bottom]) * height, 0, pixels.shape[0])
    if x[1] - x[0] < 1 or y[1] - y[0] < 1:  # outside the frame
        return np.zeros(PATCH_PIXELS[::-1])
    # `resize` with a box interpolates at its edges, so that a smoothly moving box gives smoothly changing patches.
    inside = (float(x[0]), float(y[0]), float(x[1]), float(y[1]))
    patch = Image.fromarray(pixels).convert("L").resize(PATCH_PIXELS, Image.Resampling.BILINEAR, box=inside)
    return np.asarray(patch, np.float64) / 255


def _moving_average(values: np.ndarray, width: int) -> np.ndarray:
    """Moving average `(F,)` of the finite values in each window of `width`; NaN stays NaN."""
    finite = np.isfinite(values)
    window = np.ones(width)
    total = np.convolve(np.where(finite, values, 0.0), window, mode="same")
    count = np.convolve(finite.astype(float), window, mode="same")
    return np.where(finite, total / np.maximum(count, 1.0), np.nan)


def _correlation(values: np.ndarray, others: np.ndarray) -> float:
    """Pearson correlation where both are finite; 0 if one of them is constant."""
    finite = np.isfinite(values) & np.isfinite(others)
    values, others = values[finite], others[finite]
    if len(values) < 3 or values.std() < 1e-9 or others.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(values, others)[0, 1])
