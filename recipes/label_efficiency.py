"""How few labels a student needs: the same student at 1 to 100 % of the labels, alone and with teachers.

    python recipes/label_efficiency.py --config recipes/configs/label_efficiency_ravdess.yaml

Labels are taken away from the training speakers by lists, stratified by class and nested, one set for each seed, which
are written to `labels/`. No teacher uses a label that is not on the list, and each is silent on the speakers it was
fitted on. Arms, each a run of `distill.py` with the same settings in a folder of its own:

    scratch          labels alone
    speech, face     one teacher
    both             both teachers
    both-shuffled    both, what the face says going to wrong clips: what gain is left is not the face's
    random-probe     a logistic regression on the embedding of a student that has learnt nothing
    speech-teacher, face-teacher, both-teachers     the teachers themselves, the last by the product of their shares

`-convolutional` after an arm takes the other trunk. The paper (Pendyala et al. 2025, LiSER) claims label efficiency in
its abstract; how it was measured we could not read, and this protocol is ours.

Finished arms are skipped, so that the same command goes on where it was killed, and one with more arms, fractions or
seeds adds to what is there. It writes `results.json`, `table.md` and `curve.png`. One process.
"""

import runpy
from collections import defaultdict
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import set_seed
from datasets import Dataset, concatenate_datasets
from huggingface_hub.dataclasses import strict
from matplotlib.figure import Figure

from audio_emotion import FusedEmotionForAudioClassification
from audio_emotion.evaluation.comparison import aggregate, compare
from audio_emotion.evaluation.pictures import save_figure
from audio_emotion.evaluation.predictions import Predictions, load_predictions, predict, save_predictions
from audio_emotion.evaluation.results import measure
from audio_emotion.training.arguments import parse_arguments
from audio_emotion.training.batches import batches
from audio_emotion.training.caches import EncoderStates
from audio_emotion.training.cross_fitting import as_predictions, cross_fitted, log_shares
from audio_emotion.training.distillation import fitted_exponents, product_of_teachers
from audio_emotion.training.labelled import stratified_lists
from audio_emotion.training.order import Order
from audio_emotion.training.run_folder import RunFolder
from audio_emotion.training.sides import sides
from audio_emotion.training.statistics import set_log_mel_statistics
from audio_emotion.training.streams import ClipStream
from audio_emotion.training.tables import corpus_info, corpus_table, shard_files, spoken_by
from audio_emotion.training.teacher_outputs import TeacherOutputs

STUDENTS = {  # arm: its teachers
    "scratch": (),
    "speech": ("speech",),
    "face": ("face",),
    "both": ("speech", "face"),
    "both-shuffled": ("speech", "face-shuffled"),
}
OTHERS = ("random-probe", "speech-teacher", "face-teacher", "both-teachers")
CONVOLUTIONAL = "-convolutional"
COMPARED = [  # arm, other arm, both at the same fraction
    *((arm, "scratch") for arm in ("speech", "face", "both", "both-shuffled", "random-probe")),
    *((arm, "speech") for arm in ("both", "both-shuffled")),
    ("both", "both-shuffled"),
    ("both-convolutional", "both"),
    ("both-convolutional", "scratch-convolutional"),
]
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666", "#000000")  # Okabe & Ito
MARKERS = "osD^vP*X"


@strict
@dataclass(kw_only=True)
class LabelEfficiencyArguments:
    """What one experiment needs."""

    output: str = field(default="runs/label_efficiency", metadata={"help": "Folder of the experiment."})
    student: str = field(
        default="recipes/configs/distill_ravdess.yaml",
        metadata={"help": "Arguments of distill.py: corpus, split, student, training. Of all arms."},
    )
    fractions: list[float] = field(
        default_factory=lambda: [0.01, 0.05, 0.1, 0.25, 0.5, 1.0], metadata={"help": "Shares of labels."}
    )
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"help": "Of lists and trainings."})
    arms: list[str] = field(default_factory=lambda: ["scratch", "both"], metadata={"help": "At every fraction."})
    other_arms: list[str] = field(default_factory=list, metadata={"help": "At one fraction only."})
    other_fraction: float = field(default=0.1, metadata={"help": "That one."})
    labelled_share: float = field(default=0.25, metadata={"help": "Least share of labelled clips in a batch."})
    speech_teacher: str = field(
        default="baseline",
        metadata={"help": "baseline (logistic regression on a frozen encoder), or runs with {percent} and {seed}."},
    )
    encoder: str = field(
        default="openai/whisper-tiny.en", metadata={"help": "The baseline's: Hub id, folder, log-mel."}
    )
    cache: str = field(default="runs/cache", metadata={"help": "Where its states are kept."})
    cross_fit: int = field(default=4, metadata={"help": "Classifiers for the training speakers."})
    inverse_penalty: float = field(default=0.1, metadata={"help": "scikit-learn's C, of all classifiers."})
    repeats: int = field(default=1000, metadata={"help": "Bootstrap samples of every interval."})
    restart: bool = field(default=False, metadata={"help": "Do everything again."})


@dataclass(frozen=True)
class Corpus:
    """What all arms share: the rows, who trains, and the recipes that are run."""

    rows: Dataset
    training: Dataset
    test: Dataset
    train_speakers: tuple[str, ...]
    emotions: list[str]
    student: object
    distil: dict


def main(args: LabelEfficiencyArguments) -> dict:
    """Run every arm that is not there yet, and write what they say together."""
    for arm in args.arms + args.other_arms:
        if arm.removesuffix(CONVOLUTIONAL) not in STUDENTS and arm not in OTHERS:
            raise ValueError(f"Expected arms among {[*STUDENTS, *OTHERS]}, or with `{CONVOLUTIONAL}`, got {arm!r}.")
    run = RunFolder(args.output, args)
    distil = runpy.run_path(str(Path(__file__).with_name("distill.py")))
    student = distil["DistillArguments"](**yaml.safe_load(Path(args.student).read_text()))
    corpus = read_corpus(student, distil)
    speech = SpeechFeatures(args, corpus)

    done: dict[tuple[str, float], list[dict]] = defaultdict(list)
    predictions: dict[tuple[str, float], list[Predictions]] = defaultdict(list)
    plan = [*product(args.fractions, args.arms), *product([args.other_fraction], args.other_arms)]
    for seed in args.seeds:
        lists = write_lists(
            run.path / "labels" / f"seed-{seed}", corpus.training, sorted({each for each, _ in plan}), seed
        )
        for fraction, arm in dict.fromkeys(plan):
            where = run.path / f"seed-{seed}" / percent(fraction)
            teachers = Teachers(args, corpus, speech, where / "teachers", lists[fraction], seed, fraction)
            folder = run_arm(arm, args, corpus, teachers, where / arm, lists[fraction], seed)
            said = load_predictions(folder / "predictions.parquet")[0]
            scores = measure(said, corpus.emotions, [], None, 0)
            row = {"arm": arm, "fraction": fraction, "seed": seed, "labels": count_lines(lists[fraction])}
            row |= {name: scores[name] for name in ("uar", "accuracy", "macro_f1", "recall")}
            run.log(model=f"{arm}, {percent(fraction)} %, seed {seed}", **row)
            print(f"{arm}, {percent(fraction)} % of labels, seed {seed}: uar {row['uar']:.3f}")
            done[arm, fraction].append(row)
            predictions[arm, fraction].append(said)

    results = summary(args, corpus, done, predictions)
    (run.path / "table.md").write_text(table(results))
    save_figure(curve(results), run.path / "curve.png")
    run.results(results)
    print(f"{table(results)}\n{run.path / 'curve.png'}")
    return results


def read_corpus(student, distil: dict) -> Corpus:
    """Rows of the corpus and its sides, as `distill.py` takes them."""
    info = corpus_info(student.corpus)
    rows = corpus_table(student.corpus, student.corpus_path or None, student.corpus_count)
    rows, speakers = sides(student.corpus, rows, student.split, student.corpus_path or None)
    train_speakers = speakers.train + (speakers.validation if student.train_on_validation else ())
    training, test = spoken_by(rows, train_speakers), spoken_by(rows, speakers.test)
    return Corpus(
        rows=concatenate_datasets([training, test]),
        training=training,
        test=test,
        train_speakers=train_speakers,
        emotions=list(info.emotions),
        student=student,
        distil=distil,
    )


def write_lists(folder: Path, training: Dataset, fractions: list[float], seed: int) -> dict[float, str]:
    """One file for each fraction, a clip id a line; those that are there must say the same."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for fraction, names in stratified_lists(training["id"], training["emotion"], fractions, seed).items():
        file = folder / f"{percent(fraction)}.txt"
        text = "".join(f"{name}\n" for name in names)
        if file.exists() and file.read_text() != text:
            raise ValueError(
                f"Expected the list of this corpus and split in `{file}`, got another. Take a new `--output`."
            )
        file.write_text(text)
        files[fraction] = str(file)
    return files


class SpeechFeatures:
    """Mean and deviation over time of a frozen encoder's layers, as in `baseline.py`, computed when asked for."""

    def __init__(self, args: LabelEfficiencyArguments, corpus: Corpus):
        self.args, self.corpus, self._features = args, corpus, None

    def __call__(self) -> np.ndarray:
        """`(N, F)` for the corpus's rows; NaN for clips that cannot be read."""
        if self._features is None:
            set_seed(0)
            emotions, rows = self.corpus.emotions, self.corpus.rows
            model = FusedEmotionForAudioClassification.from_encoders([self.args.encoder], emotions=emotions)
            cache = EncoderStates(self.args.cache, model)
            student = self.corpus.student
            cache.fill(ClipStream(rows, shard_files(student.corpus, student.corpus_path or None)))
            pooled = {name: pool(cache[name][0]) for name in rows["id"] if name in cache}
            nothing = np.full_like(next(iter(pooled.values())), np.nan)
            self._features = np.stack([pooled.get(name, nothing) for name in rows["id"]])
        return self._features


def pool(states: torch.Tensor) -> np.ndarray:
    """Layers `(L, T, H)` to `(L * 2H,)`; the input of the first of several layers is left out."""
    layers = (states[1:] if len(states) > 1 else states).float()
    return torch.cat([layers.mean(1), layers.std(1)], 1).flatten().numpy()


@dataclass(kw_only=True)
class ClassifierFacts:
    """What decides a classifier's numbers, for the `config.yaml` of its folder."""

    corpus: str
    split: str
    labels: str
    inverse_penalty: float
    encoder: str = ""
    cross_fit: int = 0
    seed: int = 0


@dataclass
class Teachers:
    """The teachers of one list of labels, made when first asked for: folders with `teacher_outputs/`."""

    args: LabelEfficiencyArguments
    corpus: Corpus
    speech_features: SpeechFeatures
    folder: Path
    labels: str
    seed: int
    fraction: float

    def __call__(self, name: str) -> Path:
        """Folder of `speech`, `face` or `face-shuffled`."""
        return {"speech": self.speech, "face": self.face, "face-shuffled": self.shuffled}[name]()

    def outputs(self, name: str) -> TeacherOutputs:
        """What one of them says."""
        return TeacherOutputs.load(self(name) / "teacher_outputs")

    def speech(self) -> Path:
        """The baseline, or that of a run of `train_teacher.py`."""
        args, corpus = self.args, self.corpus
        if args.speech_teacher != "baseline":
            return Path(args.speech_teacher.format(percent=percent(self.fraction), seed=self.seed))
        facts = ClassifierFacts(
            corpus=corpus.student.corpus,
            split=corpus.student.split,
            labels=self.labels,
            inverse_penalty=args.inverse_penalty,
            encoder=args.encoder,
            cross_fit=args.cross_fit,
        )
        run = RunFolder(self.folder / "speech", facts, takes_up=True, restart=args.restart)
        if run.finished is None:
            said = cross_fitted(
                corpus.rows,
                self.speech_features(),
                corpus.train_speakers,
                set(Path(self.labels).read_text().split()),
                corpus.emotions,
                args.cross_fit,
                args.inverse_penalty,
                name="speech",
            )
            said.save(run.path / "teacher_outputs")
            finish(run, as_predictions(said, corpus.test), corpus.emotions)
        return run.path

    def face(self) -> Path:
        """By `face_teacher.py`."""
        recipe = runpy.run_path(str(Path(__file__).with_name("face_teacher.py")))
        student = self.corpus.student
        arguments = recipe["FaceTeacherArguments"](
            output=str(self.folder / "face"),
            corpus=student.corpus,
            corpus_path=student.corpus_path,
            corpus_count=student.corpus_count,
            split=student.split,
            train_on_validation=student.train_on_validation,
            labelled_list=self.labels,
            cross_fit=self.args.cross_fit,
            inverse_penalty=self.args.inverse_penalty,
            restart=self.args.restart,
        )
        recipe["main"](arguments)
        return self.folder / "face"

    def shuffled(self) -> Path:
        """The face teacher's words on the training clips, each given to another clip at random."""
        said = self.outputs("face").of(self.corpus.training["id"])
        moved = said.of(np.random.default_rng(self.seed).permutation(said.ids).tolist())
        replace(moved, ids=said.ids).save(self.folder / "face-shuffled" / "teacher_outputs")
        return self.folder / "face-shuffled"


def run_arm(
    arm: str, args: LabelEfficiencyArguments, corpus: Corpus, teachers: Teachers, folder: Path, labels: str, seed: int
) -> Path:
    """Do what an arm asks for, if it is not done yet; returns the folder with its `predictions.parquet`."""
    if arm == "both-teachers":
        said = [teachers.outputs(name).covering(corpus.test["id"]) for name in ("speech", "face")]
        exponents = fitted(corpus, teachers, labels) if corpus.student.product_fit else None
        together = product_of_teachers(said, corpus.emotions, 1.0, exponents).clamp(min=1e-12).log()
        together = replace(said[0], logits=together, emotions=corpus.emotions)
        finish(RunFolder(folder, args), as_predictions(together, corpus.test), corpus.emotions)
        return folder
    if arm in ("speech-teacher", "face-teacher"):
        return teachers(arm.removesuffix("-teacher"))
    if arm == "random-probe":
        facts = ClassifierFacts(
            corpus=corpus.student.corpus,
            split=corpus.student.split,
            labels=labels,
            inverse_penalty=args.inverse_penalty,
            seed=seed,
        )
        run = RunFolder(folder, facts, takes_up=True, restart=args.restart)
        if run.finished is None:
            finish(run, random_probe(corpus, labels, args.inverse_penalty, seed), corpus.emotions)
        return folder
    share = count_lines(labels) / len(corpus.training)
    trunk = {"trunk": "convolutional"} if arm.endswith(CONVOLUTIONAL) else {}
    names = STUDENTS[arm.removesuffix(CONVOLUTIONAL)]
    arguments = replace(
        corpus.student,
        output=str(folder),
        teacher=[f"{name.removesuffix('-shuffled')}={teachers(name)}" for name in names],
        labelled_list=labels,
        labelled_draws=draws(share, args.labelled_share),
        seed=seed,
        restart=args.restart,
        **trunk,
    )
    corpus.distil["main"](arguments)
    return folder


def fitted(corpus: Corpus, teachers: Teachers, labels: str) -> list[float]:
    """How far to believe each teacher, by what they say, cross-fitted, of the labelled clips."""
    named = sorted(Path(labels).read_text().split())
    emotion_of = dict(zip(corpus.training["id"], corpus.training["emotion"], strict=True))
    classes = torch.tensor([corpus.emotions.index(emotion_of[name]) for name in named])
    return fitted_exponents(
        [teachers.outputs(name).covering(named) for name in ("speech", "face")], corpus.emotions, classes
    )


def draws(share: float, wanted: float) -> float:
    """How often to draw each labelled clip, of which there is a share, to make them the wanted share of the epoch."""
    return round(max(1.0, wanted * (1 - share) / ((1 - wanted) * share)), 2)


def random_probe(corpus: Corpus, labels: str, inverse_penalty: float, seed: int) -> Predictions:
    """A logistic regression on what a student embeds before it has learnt anything."""
    accelerator = Accelerator(mixed_precision="no")
    set_seed(seed)
    student = corpus.distil["new_student"](corpus.student, emotions=corpus.emotions).to(accelerator.device).eval()
    stream = ClipStream(corpus.rows, shard_files(corpus.student.corpus, corpus.student.corpus_path or None))
    set_log_mel_statistics(student, ClipStream(corpus.training, stream.reader.files))

    def judge(batch):
        return student(batch.input_values.to(accelerator.device), batch.attention_mask.to(accelerator.device))

    each = batches(stream, Order.of(corpus.rows, 64), corpus.emotions, student.config.dimensions)
    said = predict(accelerator, judge, each)
    fit = np.isin(said.ids, Path(labels).read_text().split()) & (said.labels >= 0)
    ask = np.isin(said.ids, corpus.test["id"])
    answers = said.take(ask)
    answers.logits = log_shares(
        said.embedding[fit], said.labels[fit], said.embedding[ask], len(corpus.emotions), inverse_penalty
    )
    answers.dimensions = answers.dimension_labels = np.zeros((len(answers.ids), 0))
    return answers


def finish(run: RunFolder, said: Predictions, emotions: list[str]) -> None:
    """Write what the test clips were called, and the scores."""
    save_predictions(said, run.path / "predictions.parquet", emotions, [])
    run.results({"test": measure(said, emotions, [], None, 0)})


def summary(args: LabelEfficiencyArguments, corpus: Corpus, done: dict, predictions: dict) -> dict:
    """Means over seeds with intervals over speakers, and paired differences of arms."""
    points = []
    for (arm, fraction), rows in sorted(done.items()):
        mean, interval = aggregate(predictions[arm, fraction], "uar", [], args.repeats)
        seeds = [row["uar"] for row in rows]
        point = {"arm": arm, "fraction": fraction, "labels": rows[0]["labels"], "uar": mean, "interval": [*interval]}
        points.append(point | {"lowest_seed": min(seeds), "highest_seed": max(seeds)})
    pairs = [((one, fraction), (other, fraction)) for one, other in COMPARED for fraction in args.fractions]
    pairs += [((arm, fraction), ("scratch", 1.0)) for arm in ("both", "speech") for fraction in args.fractions]
    comparisons = []
    for (one, its), (other, others) in dict.fromkeys(pairs):
        if (one, its) in predictions and (other, others) in predictions and (one, its) != (other, others):
            found = compare(predictions[one, its], predictions[other, others], "uar", [], args.repeats)
            names = {"first_arm": one, "first_fraction": its, "second_arm": other, "second_fraction": others}
            comparisons.append(names | found.as_dict())
    return {
        "recipe": "label_efficiency",
        "split": corpus.student.split or corpus.student.corpus,
        "seeds": args.seeds,
        "classes": len(corpus.emotions),
        "training_clips": len(corpus.training),
        "test_clips": len(corpus.test),
        "student": asdict(corpus.student),
        "points": points,
        "comparisons": comparisons,
        "rows": [row for rows in done.values() for row in rows],
    }


def table(results: dict) -> str:
    """Markdown: an arm a line, a fraction a column; then the paired differences."""
    points = {(point["arm"], point["fraction"]): point for point in results["points"]}
    labels = {fraction: point["labels"] for (_, fraction), point in points.items()}
    fractions = sorted(labels)
    lines = [
        f"UAR on {results['test_clips']} test clips, mean of {len(results['seeds'])} seed(s) (95 % interval over "
        f"speakers); chance is {1 / results['classes']:.3f}.",
        "",
        "| arm | " + " | ".join(f"{percent(each)} % ({labels[each]} labels)" for each in fractions) + " |",
        "|---|" + "---|" * len(fractions),
    ]
    for arm in dict.fromkeys([*STUDENTS, *OTHERS, *sorted({arm for arm, _ in points})]):
        cells = [points.get((arm, fraction)) for fraction in fractions]
        if any(cells):
            said = [
                "" if cell is None else "{:.3f} ({:.2f} to {:.2f})".format(cell["uar"], *cell["interval"])
                for cell in cells
            ]
            lines.append(f"| {arm} | " + " | ".join(said) + " |")
    lines += ["", "| first | second | difference in UAR, paired (95 % interval over speakers) |", "|---|---|---|"]
    for each in results["comparisons"]:
        first, second = (
            f"{each[f'{which}_arm']}, {percent(each[f'{which}_fraction'])} %" for which in ("first", "second")
        )
        difference = "{:+.3f} ({:+.3f} to {:+.3f})".format(each["difference"], *each["interval"])
        lines.append(f"| {first} | {second} | {difference} |")
    return "\n".join(lines) + "\n"


def curve(results: dict) -> Figure:
    """UAR against the share of labels: lines for arms at several fractions, marks for others, bars over the seeds."""
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.add_subplot()
    by_arm = defaultdict(list)
    for point in results["points"]:
        by_arm[point["arm"]].append(point)
    order = sorted(by_arm, key=lambda arm: (len(by_arm[arm]) == 1, arm))
    for number, arm in enumerate(order):
        points = by_arm[arm]
        share = np.array([100 * point["fraction"] for point in points])
        uar = np.array([point["uar"] for point in points])
        low, high = (np.array([point[f"{end}_seed"] for point in points]) for end in ("lowest", "highest"))
        alone = len(points) == 1
        axes.errorbar(
            share * 1.05 ** (number % 6 - 2.5) if alone else share,  # beside each other
            uar,
            [uar - low, high - uar],
            label=arm,
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[(number + number // len(COLOURS)) % len(MARKERS)],
            linestyle="" if alone else "-",
            capsize=3,
        )
    axes.axhline(1 / results["classes"], color="#666666", linestyle=":", linewidth=1)
    axes.annotate("chance", (1, 1 / results["classes"]), xycoords=("axes fraction", "data"), ha="right", va="bottom")
    fractions = sorted({100 * point["fraction"] for point in results["points"]})
    axes.set_xscale("log")
    axes.set_xticks(fractions, [f"{each:g}" for each in fractions])
    axes.minorticks_off()
    axes.set_xlabel("labels used, % of the training clips")
    axes.set_ylabel("UAR on unheard speakers")
    axes.set_ylim(0, 1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def percent(fraction: float) -> str:
    """A share as it stands in names of files."""
    return f"{100 * fraction:g}"


def count_lines(file: str) -> int:
    """Clips of a list."""
    return len(Path(file).read_text().split())


if __name__ == "__main__":
    main(parse_arguments(LabelEfficiencyArguments))
