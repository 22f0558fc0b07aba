"""Write a corpus's splits and labels, without audio, as a benchmark data set for the Hub.

    python recipes/benchmark.py --corpus ravdess --repo owner/ravdess-splits --output runs/ravdess_splits
    audio-emotion publish runs/ravdess_splits --repo owner/ravdess-splits --type dataset
    audio-emotion publish runs/teacher_ravdess --repo owner/model --benchmark owner/ravdess-splits

The last command reports the score of a run on the test split of its protocol in `.eval_results/`.
"""

import shutil
from pathlib import Path

import datasets

from audio_emotion.data.registry import corpus_info, corpus_rows
from audio_emotion.hub.benchmark import write_benchmark
from audio_emotion.training.arguments import argument_group, option, parse_arguments


@argument_group()
class BenchmarkArguments:
    """Write a corpus's splits and labels, without audio, as a benchmark data set for the Hub."""

    corpus: str = option("ravdess", "Name of the corpus.")
    corpus_path: str = option("", "Folder of the corpus. Empty: the folder in $AUDIO_EMOTION_DATA named after it.")
    protocols: list[str] = option([], "Names of its protocols. Empty: all by speaker that have a test split.")
    repo: str = option("owner/ravdess-splits", "Repository of the data set, OWNER/NAME.")
    output: str = option("runs/ravdess_splits", "Folder to write.")
    restart: bool = option(False, "Replace an output folder that this recipe wrote before.")


def main(args: BenchmarkArguments) -> Path:
    """Write the folder and return it."""
    folder = Path(args.output)
    if folder.exists() and any(folder.iterdir()):
        if not (args.restart and (folder / "eval.yaml").is_file()):
            raise ValueError(f"Expected an empty folder, got {folder}. Pass `--restart true` to write it again.")
        shutil.rmtree(folder)
    datasets.disable_progress_bars()
    rows = [*corpus_rows(args.corpus, args.corpus_path or None)]
    write_benchmark(folder, corpus_info(args.corpus), rows, args.repo, args.protocols)
    print(f"{len(rows)} clips of {args.corpus}: {folder}")
    return folder


if __name__ == "__main__":
    main(parse_arguments(BenchmarkArguments))
