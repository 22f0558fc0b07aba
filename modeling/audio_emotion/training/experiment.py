"""What every training recipe begins with: its processes, its run folder, and who trains, validates and is tested."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from accelerate import Accelerator
from datasets import Dataset

from audio_emotion.data.dataset import ClipStream
from audio_emotion.data.mixture import mixture
from audio_emotion.data.registry import corpus_info, corpus_table, select_speakers, shard_files, sides
from audio_emotion.data.sampler import Order
from audio_emotion.evaluation.provenance import contamination
from audio_emotion.training.arguments import RunArguments, flat
from audio_emotion.training.trainer_state import RunFolder


def begin(args: RunArguments) -> tuple[Accelerator, RunFolder]:
    """Processes and run folder of a training, which may be one that was killed.

    Args:
        args: of the recipe.
    """
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision or None,
        log_with=args.trackers or None,
        project_dir=args.output,
        step_scheduler_with_optimizer=False,
    )
    accelerator.print(f"{accelerator.num_processes} process(es) on {accelerator.device}, seed {args.seed}")
    run = RunFolder(args.output, args, resume=True, restart=args.restart)
    if run.finished is not None:
        accelerator.print(f"Finished before: {run.path}. `--restart true` trains it again.")
    elif args.trackers:
        accelerator.init_trackers("audio-emotion", config=flat(args))
    return accelerator, run


class ExperimentData:
    """A corpus divided, and what is trained on beside it.

    Args:
        args: of the recipe.
        accelerator: of the run.
        run: its folder, which takes the quarantine.
        mix: other corpora to train on, `name=weight`.

    Attributes:
        info: facts of the corpus.
        emotions: its category names, in label order.
        dimensions: names of its rated columns.
        table: rows of all corpora.
        license: of all corpora.
        train_speakers: who is learned from.
        held_out: rows of the sides `test` and `validation`, those that there are.
        left_out: id and reason of the clips of every side that could not be heard; see `gather_quarantine`.
    """

    def __init__(self, args: RunArguments, accelerator: Accelerator, run: RunFolder, mix: Sequence[str] = ()) -> None:
        self.args, self.accelerator, self.run = args, accelerator, run
        self.info = corpus_info(args.corpus)
        self.emotions, self.dimensions = list(self.info.emotions), list(self.info.dimensions)
        path = args.corpus_path or None
        table, speakers = sides(args.corpus, corpus_table(args.corpus, path, args.corpus_count), args.split, path)
        self.mixed = mixture(table, shard_files(args.corpus, path), self.info, mix)
        self.table, self.license = self.mixed.table, self.mixed.license
        validation = () if args.train_on_validation else speakers.validation
        also = speakers.validation if args.train_on_validation else ()
        self.train_speakers = speakers.train + also + self.mixed.speakers
        names = {"test": speakers.test, "validation": validation}
        self.held_out = {side: select_speakers(self.table, each) for side, each in names.items() if each}
        self.left_out: dict[str, str] = {}

    def clips(self, rows: Dataset) -> ClipStream:
        """This process's clips of some rows."""
        return ClipStream(
            rows,
            self.mixed.files,
            self.accelerator.process_index,
            self.accelerator.num_processes,
            self.args.max_bad_fraction,
            before_stop=lambda bad: self.run.quarantine(self.left_out | bad, from_any=True),
        )

    def gather_quarantine(self, clips: ClipStream) -> None:
        """Keep and write down what a stream, which every process has read, has left out.

        Raises:
            TooManyBadClipsError: where all processes together have left out too many.
        """
        clips.exchange()
        self.left_out |= clips.quarantine
        self.run.quarantine(self.left_out)

    def contaminated_by(self, training_data: Iterable[dict], models: Iterable[str] = ()) -> list[str]:
        """What of the held-out sides a model, or a teacher of it, has heard; see `contamination`.

        Training goes on all the same, so it is said, and belongs into the results.

        Args:
            training_data: of the model that is trained.
            models: public models that went into it.
        """
        speakers = {name for rows in self.held_out.values() for name in rows["speaker"] if name}
        found = contamination(self.info.name, speakers, training_data, models)
        if found:
            self.accelerator.print(
                f"WARNING: of those held out, a teacher or the model has heard before: {', '.join(found)}. Scores on "
                "them say nothing of unheard speakers; `results.json` marks this by `contaminated_by`. Take another "
                "split, or teachers and a model that have not heard them."
            )
        return found

    def training_order(self, rows: Dataset) -> Order:
        """Rows shuffled by seed and epoch, every corpus by its weight."""
        return Order.of(
            rows,
            self.args.batch_size,
            self.mixed.weights,
            seed=self.args.seed,
            shuffle=True,
            num_processes=self.accelerator.num_processes,
            num_workers=self.args.num_workers,
        )

    def reading_order(self, rows: Dataset, batch_size: int) -> Order:
        """Rows as they stand, in about so large batches, for answers that do not depend on it."""
        processes = self.accelerator.num_processes
        return Order.of(rows, batch_size // processes * processes, num_processes=processes)
