"""Compute pseudo-labels: the outputs of speech and face teachers for unlabeled clips, as a data set.

    accelerate launch recipes/pseudo_label.py --corpus voxceleb2 --output runs/pseudo_labels \
        --teachers speech:runs/teacher_ravdess/checkpoints/last face:owner/face-expression-model

The data set, and how a student is distilled from it: docs/pseudo_labels.md. A killed run resumes at its first missing
shard when started again with the same command, with any number of processes.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from datasets import Dataset
from tqdm.auto import tqdm

from audio_emotion.audio_io import read_audio
from audio_emotion.data.dataset import ClipStream
from audio_emotion.data.registry import corpus_info, corpus_table, shard_files
from audio_emotion.data.shards import parquet_features, read_shard, read_videos, write_atomically
from audio_emotion.hub.card import render_card
from audio_emotion.hub.card_facts import audio_visual_label_facts
from audio_emotion.hub.private_names import without_private_names
from audio_emotion.teachers.face import FaceTeacher
from audio_emotion.teachers.faces import Detector, HaarDetector, NoFaceError, find_speaking_face
from audio_emotion.teachers.outputs import Clip
from audio_emotion.teachers.pseudo_labels import CLIP_COLUMNS, build_row, summarize, write_shard, write_teachers
from audio_emotion.teachers.speech import SpeechTeacher
from audio_emotion.teachers.video import NoVideoStreamError, Video, VideoError
from audio_emotion.teachers.votes import VotesTeacher
from audio_emotion.training.arguments import CorpusArguments, argument_group, fraction, option, parse_arguments
from audio_emotion.training.trainer_state import RunFolder

RESERVED_NAMES = {name for name, _ in CLIP_COLUMNS}
PROCESS_TIMEOUT = timedelta(days=30)  # a fast process waits for the slowest one at the end


@argument_group("data")
class InputArguments(CorpusArguments):
    """The clips and the teachers."""

    teachers: list[str] = option([], "Teachers as kind:source or name=kind:source; kinds are speech, face and votes.")
    min_face_rate: float = fraction(0.5, "Smallest fraction of the searched frames with the speaker's face, 0 to 1.")
    max_bad_fraction: float = fraction(0.05, "Fraction of unreadable clips, 0 to 1, above which the run stops.")


@argument_group("run")
class PseudoLabelArguments(InputArguments):
    """Compute the outputs of teachers for the clips of a corpus, as training targets of a student."""

    output: str = option("runs/pseudo_labels", "Run folder; the data set is dataset/ in it.")
    shard_clips: int = option(500, "Clips per shard; a killed run repeats at most one shard per process.")
    restart: bool = option(False, "Overwrite another run in the output folder.")


def main(args: PseudoLabelArguments, detect: Detector | None = None) -> dict:
    """Compute the outputs of all teachers for all clips; returns the content of `results.json`."""
    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=PROCESS_TIMEOUT)])
    accelerator.print(f"{accelerator.num_processes} process(es) on {accelerator.device}")
    teachers = [load_teacher(each, args.corpus_path, accelerator.device) for each in args.teachers]
    private = [without_private_names(teacher.info.training_data) for teacher in teachers]
    infos = [replace(each.info, training_data=data) for each, data in zip(teachers, private, strict=True)]
    names = [info.name for info in infos]
    if not names or len({*names, *RESERVED_NAMES}) < len(names) + len(RESERVED_NAMES):
        raise ValueError(
            f"Expected teachers with different names, none of {sorted(RESERVED_NAMES)}, got {names}. Name them: "
            "`--teachers first=speech:owner/name second=speech:owner/other`."
        )
    needs_faces = any(info.kind == "face" for info in infos)
    detect = (detect or HaarDetector()) if needs_faces else None

    run = RunFolder(args.output, args, resume=True, restart=args.restart)
    if run.finished is not None:
        accelerator.print(f"Already finished: {run.path}. `--restart true` computes all pseudo-labels again.")
        return run.finished
    folder, state = run.path / "dataset", run.path / "state"
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if not state.is_dir():
            shutil.rmtree(folder, ignore_errors=True)
        state.mkdir(exist_ok=True)
        (folder / "data").mkdir(parents=True, exist_ok=True)
        write_teachers(folder, infos)
    accelerator.wait_for_everyone()

    table = corpus_table(args.corpus, args.corpus_path or None, args.corpus_count)
    num_shards = -(-len(table) // args.shard_clips)
    shards = [folder / "data" / f"train-{index:05d}-of-{num_shards:05d}.parquet" for index in range(num_shards)]
    missing = [index for index in range(num_shards) if not shards[index].is_file()]
    accelerator.wait_for_everyone()  # all processes have listed the folder before the first one writes to it
    # Consecutive shards for each process, so that it reads the corpus sequentially.
    assigned = np.array_split(missing, accelerator.num_processes)[accelerator.process_index].tolist()
    positions = np.flatnonzero(np.isin(np.arange(len(table)) // args.shard_clips, assigned)).tolist()
    clips = read_encoded(table, positions, shard_files(args.corpus, args.corpus_path or None), needs_faces)
    stream = ClipStream(
        table, max_bad_fraction=args.max_bad_fraction, before_stop=lambda bad: run.quarantine(bad, from_any=True)
    )
    progress = tqdm(total=len(positions), unit="clip", disable=not accelerator.is_local_main_process)
    for index in assigned:
        bad, rows = {}, []
        stream.add_to_quarantine(read_quarantine(state))  # of all processes
        for encoded in islice(clips, args.shard_clips):
            try:
                clip = decode_clip(encoded, detect, args.min_face_rate, bad)
            except ValueError as error:
                bad[encoded["id"]] = str(error)
            else:
                predictions = [teacher.predict(clip) for teacher in teachers]
                rows.append(build_row(clip, encoded["speaker"], predictions, infos))
            stream.add_to_quarantine(bad)
            progress.update()
        write_atomically(state / f"quarantine-{index:05d}.json", json.dumps(bad))
        write_shard(shards[index], rows, infos)
    progress.close()
    accelerator.wait_for_everyone()

    quarantine = read_quarantine(state)
    info = corpus_info(args.corpus)
    results = {"recipe": "pseudo_label", "corpus": info.name, "teachers": [asdict(each) for each in infos]}
    results |= summarize(folder, infos) | {"quarantined": len(quarantine)}
    accelerator.wait_for_everyone()  # all processes have read `state` before `run.results` deletes it
    if accelerator.is_main_process:
        dataset_id = folder.as_posix()  # `audio-emotion publish` replaces it by the Hub id
        facts = audio_visual_label_facts(infos, results, run.path.resolve().name, dataset_id, info.citation)
        write_atomically(folder / "README.md", render_card("audio_visual_labels", facts))
    run.quarantine(quarantine)
    run.results(results)
    accelerator.print(json.dumps({key: value for key, value in results.items() if key != "teachers"}, indent=2))
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return results


def load_teacher(argument: str, corpus_path: str, device: torch.device) -> SpeechTeacher | FaceTeacher | VotesTeacher:
    """A teacher from `kind:source`, or `name=kind:source`."""
    head, _, source = argument.partition(":")
    name, _, kind = head.rpartition("=")
    name = name or kind
    if not source or not name.isidentifier() or kind not in ("speech", "face", "votes"):
        raise ValueError(
            f"Expected teachers such as `speech:owner/name`, `face:face.yaml`, `votes:crema-d/face` or "
            f"`second=speech:owner/name`, got {argument!r}."
        )
    if kind == "speech":
        return SpeechTeacher(name, source, device)
    if kind == "face":
        return FaceTeacher(name, source, device)
    return VotesTeacher(name, source, corpus_path or None)


def decode_clip(row: dict, detect: Detector | None, min_face_rate: float, bad: dict[str, str]) -> Clip:
    """Input of the teachers for a row of `read_encoded`: the audio, and the speaker's face if there is a usable one.

    If the video is unreadable, the reason is added to `bad`, and the audio is used. Missing or unreadable audio raises
    a ValueError.
    """
    audio, video = row["audio"], row["video"]
    if audio["bytes"] is not None:  # otherwise the id would be read as a path
        audio = {**audio, "path": audio["path"] or row["id"]}
    clip = Clip(row["id"], read_audio(audio).waveform)
    if detect is None:
        return clip
    file = audio if video is None else video  # without a video of its own, the audio file may have a video stream
    content = file["bytes"] if file["bytes"] is not None else file["path"] or b""
    try:
        source = Video(content, has_clip_audio=file == audio)
        clip.face = find_speaking_face(source, clip.waveform, detect, min_rate=min_face_rate)
        clip.num_faces, clip.face_rate = clip.face.num_faces, clip.face.rate
    except NoFaceError as error:
        clip.no_face_reason, clip.num_faces, clip.face_rate = str(error), error.num_faces, error.rate
    except VideoError as error:
        if video is None and isinstance(error, NoVideoStreamError):  # an audio file, which is not an error
            return clip
        clip.no_face_reason = f"video: {error}"
        bad[row["id"]] = f"{clip.no_face_reason}; its audio is used"
    return clip


def read_encoded(
    table: Dataset, positions: Sequence[int], files: Sequence[str], with_video: bool
) -> Iterator[dict[str, Any]]:
    """Rows of a corpus at increasing positions with their encoded files; shards are read sequentially."""
    shard, next_row, remaining = None, 0, iter(())
    for row in map(table.__getitem__, positions):
        if row["shard"] is not None:
            if row["shard"] != shard or row["row"] < next_row:
                shard, next_row, remaining = row["shard"], 0, read_packed(files[row["shard"]], with_video)
            row |= next(islice(remaining, row["row"] - next_row, None))
            next_row = row["row"] + 1
        yield row


def read_packed(file: str, with_video: bool) -> Iterator[dict[str, Any]]:
    """`audio` of every clip of a shard, and `video` if it is packed and wanted."""
    if with_video and (file.endswith(".tar") or "video" in parquet_features(file)):
        for audio, video in zip(read_shard(file), read_videos(file), strict=True):
            yield audio | {"video": video["video"] if video["video"] and video["video"]["bytes"] else None}
    else:
        yield from read_shard(file)


def read_quarantine(state: Path) -> dict[str, str]:
    """Reason by clip id, for all finished shards."""
    bad: dict[str, str] = {}
    for file in sorted(state.glob("quarantine-*.json")):
        bad |= json.loads(file.read_text())
    return bad


if __name__ == "__main__":
    main(parse_arguments(PseudoLabelArguments))
