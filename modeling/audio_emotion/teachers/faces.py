"""Whose face speaks: faces found, followed through a clip, and told apart by mouth motion against loudness."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from audio_emotion.teachers.video import Video, check_durations

# From pixels `(H, W, 3)` to boxes `(N, 4)`: left, top, right, bottom in pixels, right and bottom outside.
Detector = Callable[[np.ndarray], np.ndarray]

EVERY = 0.24  # seconds between pictures that are searched for faces; Albanie et al. 2018 take each 6th of 25 a second
HAIR = 1e-3  # seconds; times of frames are rounded to ticks of the file's clock
LONGEST_GAP = 0.75  # seconds that a face may be lost and still be the same one
SMALLEST_OVERLAP = 0.3  # intersection over union of the boxes of one face in two pictures
PASSER_BY = 0.25  # a face seen in a smaller share of the pictures is nobody, or a false alarm of the detector
CLEAR = 0.2  # correlation of mouth and loudness that a speaker has at least, and leads the next face by half of it
MARGIN = 0.1  # of a box's side that a crop shows around it
CROP = 224  # pixels of the side of a crop
MOUTH = (0.62, 0.98, 0.22, 0.78)  # top, bottom, left, right as shares of a face's box
BROW = (0.02, 0.38, 0.22, 0.78)  # the same patch of the upper face: what moves there is the head
PATCH = (32, 20)  # pixels, width and height, to which both are brought before they are compared
SMOOTHING = 0.2  # seconds over which mouth motion and loudness are averaged


class NoFaceError(ValueError):
    """No face of which one may say that it is the speaker's.

    Attributes:
        faces: how many were followed through the clip.
        rate: share of the pictures with the best of them.
    """

    def __init__(self, reason: str, faces: int, rate: float) -> None:
        super().__init__(reason)
        self.faces = faces
        self.rate = rate


@dataclass
class Track:
    """One face through a clip.

    Attributes:
        times: seconds since the sound began.
        boxes: `(4,)` each.
        crops: `(CROP, CROP, 3)` each.
    """

    times: list[float] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)
    crops: list[np.ndarray] = field(default_factory=list)

    def box(self, time: float) -> np.ndarray:
        """`(4,)` at any time, between two pictures on the way from one to the other."""
        boxes = np.stack(self.boxes)  # (N, 4)
        return np.array([np.interp(time, self.times, boxes[:, side]) for side in range(4)])


@dataclass(frozen=True)
class SpeakingFace:
    """The face of a clip's speaker.

    Attributes:
        times: `(N,)` seconds since the sound began.
        crops: `(N, CROP, CROP, 3)`.
        rate: share of the clip's pictures that it is in.
        faces: how many were followed through the clip.
    """

    times: np.ndarray
    crops: np.ndarray
    rate: float
    faces: int


class HaarDetector:
    """OpenCV's frontal faces (Viola & Jones 2001; Lienhart & Maydt 2002): small, fast, its weights in the package.

    Raises:
        ImportError: without OpenCV 4; OpenCV 5 no longer has it.
    """

    side = 360  # pixels of the longer side that is searched: the same faces as at 480 in two thirds of the time

    def __init__(self) -> None:
        install = "`pip install 'audio-emotion[video]'`, or `pip install 'opencv-python-headless<5'`."
        try:
            self.opencv = importlib.import_module("cv2")  # by name: optional, and slow to import
        except ImportError as error:
            raise ImportError(f"Finding faces needs OpenCV 4, got none: {install}") from error
        if not self.opencv.__version__.startswith("4."):
            raise ImportError(f"Finding faces needs OpenCV 4, got {self.opencv.__version__}: {install}")
        self.opencv.setNumThreads(1)  # processes share the cores, not threads
        weights = Path(self.opencv.data.haarcascades) / "haarcascade_frontalface_alt2.xml"
        self.cascade = self.opencv.CascadeClassifier(str(weights))

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Boxes `(N, 4)` of the faces in `(H, W, 3)`."""
        scale = min(1.0, self.side / max(pixels.shape[:2]))
        gray = self.opencv.cvtColor(pixels, self.opencv.COLOR_RGB2GRAY)
        gray = self.opencv.resize(gray, None, fx=scale, fy=scale, interpolation=self.opencv.INTER_AREA)
        smallest = max(24, min(gray.shape) // 10)
        found = self.cascade.detectMultiScale(gray, scaleFactor=1.1, minNeighbors=4, minSize=(smallest, smallest))
        boxes = np.asarray(found, np.float64).reshape(-1, 4) / scale  # left, top, width, height
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def speaking_face(
    video: Video, waveform: np.ndarray, detect: Detector, sampling_rate: int = 16000, least_rate: float = 0.5
) -> SpeakingFace:
    """The face that speaks in a clip: the only one, or the one whose mouth moves with the loudness.

    Args:
        video: of the clip.
        waveform: `(S,)` of the clip.
        detect: finds faces in a picture.
        sampling_rate: of the waveform, in hertz.
        least_rate: smallest share of the clip's pictures in which the face must be.

    Raises:
        VideoError: for pictures that cannot be read, or do not last as long as the sound.
        NoFaceError: without such a face, or with several that may be it.
    """
    duration = len(waveform) / sampling_rate
    tracks: list[Track] = []
    times: list[float] = []
    due = 0.0
    for picture in video.pictures():
        times.append(picture.time)
        if due <= picture.time + HAIR and picture.time <= duration:
            follow(tracks, picture.time, picture.pixels, detect(picture.pixels))
            due = (math.floor((picture.time + HAIR) / EVERY) + 1) * EVERY
    check_durations(duration, times[-1] + float(np.median(np.diff(times))))
    expected = max(1.0, duration / EVERY)
    rates = [min(1.0, len(track.times) / expected) for track in tracks]
    present = [place for place, rate in enumerate(rates) if rate >= PASSER_BY]
    best = max(rates, default=0.0)
    if not present:
        raise NoFaceError("no face", 0, best)
    if len(present) > 1:
        chosen = present[_who_speaks([tracks[place] for place in present], video, waveform, sampling_rate, best)]
    else:
        (chosen,) = present
    if rates[chosen] < least_rate:
        raise NoFaceError(f"the face is in {rates[chosen]:.0%} of the pictures", len(present), rates[chosen])
    track = tracks[chosen]
    return SpeakingFace(np.array(track.times, np.float32), np.stack(track.crops), rates[chosen], len(present))


def follow(tracks: list[Track], time: float, pixels: np.ndarray, boxes: np.ndarray) -> None:
    """Add the faces of a picture to the tracks that they continue, the best overlaps first, or begin new ones.

    Args:
        tracks: so far; they are changed.
        time: of the picture, later than all before.
        pixels: `(H, W, 3)`.
        boxes: `(N, 4)`.
    """
    pairs = [
        (overlap(track.boxes[-1], box), place, number)
        for place, track in enumerate(tracks)
        if time - track.times[-1] <= LONGEST_GAP
        for number, box in enumerate(boxes)
    ]
    taken_tracks, taken_boxes = set(), set()
    for shared, place, number in sorted(pairs, key=lambda pair: -pair[0]):
        if shared >= SMALLEST_OVERLAP and place not in taken_tracks and number not in taken_boxes:
            taken_tracks.add(place)
            taken_boxes.add(number)
            _add(tracks[place], time, pixels, boxes[number])
    for number, box in enumerate(boxes):
        if number not in taken_boxes:
            tracks.append(Track())
            _add(tracks[-1], time, pixels, box)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes `(4,)`."""
    width, height = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = max(0.0, width) * max(0.0, height)
    areas = [float(np.prod(box[2:] - box[:2])) for box in (one, other)]
    return shared / (sum(areas) - shared)


def crop(pixels: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The square around a box and its margin, `(CROP, CROP, 3)`; the picture's edge is repeated beyond it."""
    center = (box[:2] + box[2:]) / 2
    half = max(box[2:] - box[:2]) * (0.5 + MARGIN)
    left, top, right, bottom = (round(value) for value in (*(center - half), *(center + half)))
    rows = np.clip(np.arange(top, max(bottom, top + 1)), 0, pixels.shape[0] - 1)
    columns = np.clip(np.arange(left, max(right, left + 1)), 0, pixels.shape[1] - 1)
    square = np.ascontiguousarray(pixels[rows[:, None], columns])
    return np.asarray(Image.fromarray(square).resize((CROP, CROP), Image.Resampling.BILINEAR))


def _add(track: Track, time: float, pixels: np.ndarray, box: np.ndarray) -> None:
    track.times.append(time)
    track.boxes.append(np.asarray(box, np.float64))
    track.crops.append(crop(pixels, track.boxes[-1]))


def _who_speaks(tracks: list[Track], video: Video, waveform: np.ndarray, sampling_rate: int, best: float) -> int:
    """Place of the track whose mouth moves with the loudness; all pictures are read once more for it."""
    times, motion = mouth_motion(tracks, video)
    steps = np.diff(times)
    width = min(max(1, round(SMOOTHING / float(np.median(steps)))), len(times)) if len(steps) else 1
    heard = _smooth(loudness(waveform, times, sampling_rate), width)
    scores = [_correlation(_smooth(moves, width), heard) for moves in motion]
    order = np.argsort(scores)[::-1]
    if scores[order[0]] < CLEAR or scores[order[0]] - scores[order[1]] < CLEAR / 2:
        told = ", ".join(f"{score:.2f}" for score in scores)
        raise NoFaceError(
            f"{len(tracks)} faces, and none whose mouth alone moves with the loudness (correlations {told})",
            len(tracks),
            best,
        )
    return int(order[0])


def mouth_motion(tracks: list[Track], video: Video) -> tuple[np.ndarray, np.ndarray]:
    """How much each mouth moves, less what the upper face moves.

    Returns:
        times `(F,)` of all pictures but the first, in seconds, and motion `(N, F)`, NaN where a face is not in sight.
    """
    times: list[float] = []
    motion: list[list[float]] = []
    before: list[tuple[np.ndarray, np.ndarray] | None] = [None] * len(tracks)
    for count, picture in enumerate(video.pictures()):
        moved = []
        for place, track in enumerate(tracks):
            if not track.times[0] - EVERY <= picture.time <= track.times[-1] + EVERY:
                before[place] = None
                moved.append(np.nan)
                continue
            box = track.box(picture.time)
            patches = _patch(picture.pixels, box, MOUTH), _patch(picture.pixels, box, BROW)
            last, before[place] = before[place], patches
            changes = [float(np.abs(new - old).mean()) for new, old in zip(patches, last or patches, strict=True)]
            moved.append(np.nan if last is None else changes[0] - changes[1])
        if count:
            times.append(picture.time)
            motion.append(moved)
    return np.array(times), np.array(motion).reshape(-1, len(tracks)).T


def loudness(waveform: np.ndarray, times: Iterable[float], sampling_rate: int) -> np.ndarray:
    """Root mean square of the 40 ms around each time, `(F,)`; 0 outside the sound."""
    half = sampling_rate // 50
    levels = []
    for time in times:
        middle = round(time * sampling_rate)
        part = waveform[max(0, middle - half) : max(0, middle + half)]
        levels.append(float(np.sqrt(np.square(part, dtype=np.float64).mean())) if len(part) else 0.0)
    return np.array(levels)


def _patch(pixels: np.ndarray, box: np.ndarray, place: tuple[float, float, float, float]) -> np.ndarray:
    """A part of a face in gray, `(height, width)` of `PATCH`, 0..1."""
    top, bottom, left, right = place
    width, height = box[2:] - box[:2]
    across = np.clip(box[0] + np.array([left, right]) * width, 0, pixels.shape[1])
    down = np.clip(box[1] + np.array([top, bottom]) * height, 0, pixels.shape[0])
    if across[1] - across[0] < 1 or down[1] - down[0] < 1:  # outside the picture
        return np.zeros(PATCH[::-1])
    # `resize` with a box reads between pixels: a box that glides does not make the patch jump.
    inside = (float(across[0]), float(down[0]), float(across[1]), float(down[1]))
    part = Image.fromarray(pixels).convert("L").resize(PATCH, Image.Resampling.BILINEAR, box=inside)
    return np.asarray(part, np.float64) / 255


def _smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Running mean over `width` values, of those that are numbers; `(F,)`."""
    known = np.isfinite(values)
    window = np.ones(width)
    total = np.convolve(np.where(known, values, 0.0), window, mode="same")
    count = np.convolve(known.astype(float), window, mode="same")
    return np.where(known, total / np.maximum(count, 1.0), np.nan)


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's, over the places where both are numbers; 0 where one of them never changes."""
    known = np.isfinite(one) & np.isfinite(other)
    one, other = one[known], other[known]
    if len(one) < 3 or one.std() < 1e-9 or other.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])
