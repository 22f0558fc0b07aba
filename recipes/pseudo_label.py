"""Let speech and face teachers say what they hear and see in clips without labels: a data set of their answers.

    accelerate launch recipes/pseudo_label.py --corpus voxceleb2 --output runs/pseudo_labels \
        --teachers speech:runs/teacher_ravdess/checkpoints/last face:owner/face-expression-model

What comes out, and how a student learns from it: docs/pseudo_labels.md. A killed run goes on with the next shard when
started again with the same command, with any number of processes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from datasets import Dataset
from huggingface_hub.dataclasses import strict
from tqdm.auto import tqdm

import audio_emotion
from audio_emotion.audio_io import read_audio
from audio_emotion.data.dataset import TooManyBadClipsError
from audio_emotion.data.registry import corpus_info, corpus_table, shard_files
from audio_emotion.data.shards import parquet_features, read_shard, read_videos, write_atomically
from audio_emotion.hub.card import render_card
from audio_emotion.hub.card_sections import card_facts
from audio_emotion.teachers.face import FaceTeacher
from audio_emotion.teachers.faces import Detector, HaarDetector, NoFaceError, speaking_face
from audio_emotion.teachers.outputs import Clip
from audio_emotion.teachers.pseudo_labels import CLIP, row_of, summary, write_shard, write_teachers
from audio_emotion.teachers.speech import SpeechTeacher
from audio_emotion.teachers.video import NoVideoFramesError, Video, VideoError
from audio_emotion.teachers.votes import VotesTeacher
from audio_emotion.training.arguments import parse_arguments
from audio_emotion.training.trainer_state import RunFolder

RESERVED = {name for name, _ in CLIP}  # columns that are not teachers
LONGEST_WAIT = timedelta(days=30)  # of a process for a slower one


@strict
@dataclass(kw_only=True)
class PseudoLabelArguments:
    """What one run needs."""

    output: str = field(default="runs/pseudo_labels", metadata={"help": "Run folder; the data set is dataset/ in it."})
    corpus: str = field(default="synthetic", metadata={"help": "Corpus by name, or the .yaml that describes it."})
    corpus_path: str = field(default="", metadata={"help": "Its folder; else $AUDIO_EMOTION_DATA/<corpus>."})
    corpus_count: int = field(default=600, metadata={"help": "Clips of the synthetic corpus."})
    teachers: list[str] = field(
        default_factory=list,
        metadata={"help": "kind:source of each, or name=kind:source; kinds: speech, face, votes."},
    )
    shard_clips: int = field(default=500, metadata={"help": "Clips of a shard: what a killed run does again at most."})
    batch_size: int = field(default=8, metadata={"help": "Clips in memory at one time."})
    min_face_rate: float = field(default=0.5, metadata={"help": "Least share of pictures with the speaker's face."})
    max_bad_fraction: float = field(
        default=0.05, metadata={"help": "More clips with broken files than this stop the run."}
    )
    repo: str = field(default="", metadata={"help": "owner/name on the Hub that the card says; else the folder."})
    restart: bool = field(default=False, metadata={"help": "Write over what another run has left in `output`."})


def main(args: PseudoLabelArguments, detect: Detector | None = None) -> dict:
    """Label every clip and write the data set; returns what stands in `results.json`.

    Args:
        args: of the run.
        detect: finds faces; by default OpenCV's.
    """
    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_WAIT)])
    accelerator.print(f"{accelerator.num_processes} process(es) on {accelerator.device}")
    teachers = [teacher_of(each, args, accelerator.device) for each in args.teachers]
    facts = [teacher.facts for teacher in teachers]
    names = [each.name for each in facts]
    if not names or len({*names, *RESERVED}) < len(names) + len(RESERVED):
        raise ValueError(
            f"Expected teachers with names that differ, none of {sorted(RESERVED)}, got {names}. Name them: "
            "`--teachers first=speech:owner/name second=speech:owner/other`."
        )
    looks = any(each.kind == "face" for each in facts)
    detect = (detect or HaarDetector()) if looks else None
    run = RunFolder(args.output, args, resume=True, restart=args.restart)
    if run.finished is not None:
        accelerator.print(f"Finished before: {run.path}. `--restart true` labels all again.")
        return run.finished
    folder, state = run.path / "dataset", run.path / "state"
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if not state.is_dir():
            shutil.rmtree(folder, ignore_errors=True)
        state.mkdir(exist_ok=True)
        (folder / "data").mkdir(parents=True, exist_ok=True)
        write_teachers(folder, facts)
    accelerator.wait_for_everyone()

    table = corpus_table(args.corpus, args.corpus_path or None, args.corpus_count)
    count = -(-len(table) // args.shard_clips)
    shards = [folder / "data" / f"train-{number:05d}-of-{count:05d}.parquet" for number in range(count)]
    missing = [number for number in range(count) if not shards[number].is_file()]
    accelerator.wait_for_everyone()  # all have looked before anybody writes
    clips = EncodedClips(table, shard_files(args.corpus, args.corpus_path or None), looks)
    # Neighbors for each process, so that it reads the shards of the corpus in their order.
    mine = np.array_split(missing, accelerator.num_processes)[accelerator.process_index].tolist()
    rows_of = [range(number * args.shard_clips, min((number + 1) * args.shard_clips, len(table))) for number in mine]
    bar = tqdm(total=sum(map(len, rows_of)), unit="clip", disable=not accelerator.is_local_main_process)
    for number, rows in zip(mine, rows_of, strict=True):
        bad, before, labeled = {}, read_quarantine(state), []
        for begin in range(rows.start, rows.stop, args.batch_size):
            batch = []
            for row in map(clips.row, range(begin, min(begin + args.batch_size, rows.stop))):
                try:
                    batch.append((clip_of(row, detect, args.min_face_rate, bad), row["speaker"]))
                except ValueError as error:
                    bad[row["id"]] = str(error)
                bar.update()
            stop_if_many(run, before | bad, len(table), args.max_bad_fraction)
            said = [teacher.label([clip for clip, _ in batch]) for teacher in teachers]
            for (clip, speaker), *each in zip(batch, *said, strict=True):
                labeled.append(row_of(clip, speaker, each, facts))
        write_atomically(state / f"quarantine-{number:05d}.json", json.dumps(bad))
        write_shard(shards[number], labeled, facts)
    bar.close()
    accelerator.wait_for_everyone()

    quarantine = read_quarantine(state)
    info = corpus_info(args.corpus)
    results = {"recipe": "pseudo_label", "corpus": info.name, "teachers": [asdict(each) for each in facts]}
    results |= summary(folder, facts) | {"quarantined": len(quarantine)}
    accelerator.wait_for_everyone()  # all have read what stands in `state`
    if accelerator.is_main_process:
        name = args.repo.rpartition("/")[2] or run.path.resolve().name
        loaded_from = args.repo or folder.as_posix()  # `audio-emotion publish` puts the repository in its place
        card = card_facts(facts, results, name, loaded_from, info.citation, audio_emotion.__version__)
        write_atomically(folder / "README.md", render_card("audio_visual_labels", card))
    run.quarantine(quarantine)
    run.results(results)
    accelerator.print(json.dumps({key: value for key, value in results.items() if key != "teachers"}, indent=2))
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return results


def teacher_of(
    told: str, args: PseudoLabelArguments, device: torch.device
) -> SpeechTeacher | FaceTeacher | VotesTeacher:
    """A teacher by `kind:source`, or `name=kind:source`."""
    head, _, source = told.partition(":")
    name, _, kind = head.rpartition("=")
    name = name or kind
    if not source or not name.isidentifier() or kind not in ("speech", "face", "votes"):
        raise ValueError(
            f"Expected teachers such as `speech:owner/name`, `face:face.yaml`, `votes:crema-d/face` or "
            f"`second=speech:owner/name`, got {told!r}."
        )
    if kind == "speech":
        return SpeechTeacher(name, source, device)
    if kind == "face":
        return FaceTeacher(name, source, device)
    return VotesTeacher(name, source, args.corpus_path or None)


def clip_of(row: dict, detect: Detector | None, least_rate: float, bad: dict[str, str]) -> Clip:
    """A row's clip as teachers are shown it, with the speaker's face if faces are looked for and one is fit.

    Args:
        row: encoded, as `EncodedClips` gives it.
        detect: finds faces; None where nobody looks at them.
        least_rate: smallest share of pictures with the face.
        bad: takes in the reason where the video is broken; such a clip is still heard.

    Raises:
        ValueError: where there is no sound to hear.
    """
    heard = read_audio({**row["audio"], "path": row["audio"]["path"] or row["id"]})
    clip = Clip(row["id"], heard.waveform)
    if detect is None:
        return clip
    own = row["video"] is None  # then the pictures, if there are any, lie in the file of the sound
    place = row["audio"] if own else row["video"]
    video = Video(
        place["bytes"] if place["bytes"] is not None else place["path"] or b"", sounds=own or place == row["audio"]
    )
    try:
        clip.face = speaking_face(video, heard.waveform, detect, least_rate=least_rate)
        clip.faces, clip.face_rate = clip.face.faces, clip.face.rate
    except NoFaceError as error:
        clip.no_face, clip.faces, clip.face_rate = str(error), error.faces, error.rate
    except VideoError as error:
        if own and isinstance(error, NoVideoFramesError):  # a recording of sound, and a sound one
            return clip
        clip.no_face = f"video: {error}"
        bad[row["id"]] = f"{clip.no_face}; its sound is kept"
    return clip


class EncodedClips:
    """Rows of a corpus with their files still encoded, from wherever they lie.

    Args:
        table: as `corpus_table` makes it.
        files: the shards that it points into.
        with_video: whether video packed into the shards is wanted.
    """

    def __init__(self, table: Dataset, files: Sequence[str], with_video: bool) -> None:
        self.table = table
        self.files = files
        self.with_video = with_video
        self.open: tuple[int, int, Iterator[dict]] = (-1, 0, iter(()))  # shard, its next row, what is left of it

    def row(self, index: int) -> dict:
        """A row; quick where `index` goes up."""
        row = self.table[index]
        if row["shard"] is None:
            return row
        shard, position, left = self.open
        if shard != row["shard"] or position > row["row"]:
            shard, position, left = row["shard"], 0, self._read(self.files[row["shard"]])
        found = next(islice(left, row["row"] - position, None))
        self.open = (shard, row["row"] + 1, left)
        return row | found

    def _read(self, file: str) -> Iterator[dict]:
        """`audio` of every clip of a shard, and `video` where it has that."""
        if self.with_video and (file.endswith(".tar") or "video" in parquet_features(file)):
            for heard, seen in zip(read_shard(file), read_videos(file), strict=True):
                yield heard | {"video": seen["video"] if seen["video"] and seen["video"]["bytes"] else None}
        else:
            yield from read_shard(file)


def stop_if_many(run: RunFolder, bad: dict[str, str], clips: int, max_bad_fraction: float) -> None:
    """End the run where more files are broken than it may leave out; the clips stand in its quarantine then."""
    if len(bad) <= max_bad_fraction * clips:
        return
    run.quarantine(bad, from_any=True)
    name, reason = next(reversed(bad.items()))
    raise TooManyBadClipsError(
        f"{len(bad)} of {clips} clips have broken files, more than {max_bad_fraction:.0%}. The last one is {name}: "
        f"{reason} All so far stand in `{run.path / 'quarantine.jsonl'}`. Repair them or take them out of the corpus, "
        "or allow a larger share with `--max_bad_fraction`."
    )


def read_quarantine(state: Path) -> dict[str, str]:
    """Clip id and reason of all shards that are done."""
    bad: dict[str, str] = {}
    for file in sorted(state.glob("quarantine-*.json")):
        bad |= json.loads(file.read_text())
    return bad


if __name__ == "__main__":
    main(parse_arguments(PseudoLabelArguments))
