"""Label efficiency: the same student with 1 to 100 % of the labels, without and with teachers.

    python recipes/experiments/label_efficiency.py --config recipes/configs/label_efficiency_ravdess.yaml

For each seed, nested lists of labeled clips, stratified by class, are sampled from the training speakers and written
to `labels/`. Teachers are trained on the labels of the list only, and no teacher predicts a speaker that it was
trained on. Each arm is a run of `distill.py` with the same arguments, in its own folder:

    scratch          labels alone
    speech, face     one teacher
    both             both teachers
    both-shuffled    both, with the face teacher's outputs permuted among clips: a control for the face's contribution
    random-probe     logistic regression on the embedding of an untrained student
    speech-teacher, face-teacher, both-teachers     the teachers themselves, the last as the product of both

`-convolutional` after an arm selects the convolutional trunk. Pendyala et al. 2025 (LiSER) claim label efficiency in
their abstract; their protocol is not known to us, and this one is our own.

Finished arms are skipped, so the same command resumes an interrupted experiment, and one with more arms, fractions or
seeds extends it. Writes `results.json`, `table.md` and `curve.png`. Runs in one process.
"""

import runpy
import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
import yaml
from accelerate.utils import set_seed
from baseline_teachers import (
    BaselineTeachers,
    ClassifierArguments,
    ExperimentCorpus,
    SpeechFeatures,
    random_probe,
    write_scores,
)
from datasets import concatenate_datasets
from huggingface_hub.dataclasses import strict
from label_efficiency_report import (
    Point,
    compared_points,
    label_efficiency_plot,
    mean_scores,
    paired_differences,
    render_table,
)
from linear_classifiers import as_predictions

from audio_emotion.data.registry import apply_protocol, corpus_info, corpus_table, select_speakers
from audio_emotion.data.training_set import percent, read_list, write_lists
from audio_emotion.evaluation.bootstrap import intervals_over
from audio_emotion.evaluation.plots import save_figure
from audio_emotion.evaluation.predictions import Predictions, load_predictions, pool_folds
from audio_emotion.evaluation.report import measure
from audio_emotion.training.arguments import parse_arguments
from audio_emotion.training.teacher_ensemble import fit_exponents, product_of_teachers
from audio_emotion.training.trainer_state import RunFolder

STUDENT_ARMS = {  # arm: its teachers
    "scratch": (),
    "speech": ("speech",),
    "face": ("face",),
    "both": ("speech", "face"),
    "both-shuffled": ("speech", "face-shuffled"),
}
OTHER_ARMS = ("random-probe", "speech-teacher", "face-teacher", "both-teachers")
CONVOLUTIONAL = "-convolutional"


@strict
@dataclass(kw_only=True)
class LabelEfficiencyArguments:
    """Train students and teachers with fractions of the labels, and compare them."""

    output: str = field(default="runs/label_efficiency", metadata={"help": "Folder of the experiment."})
    student: str = field(
        default="recipes/configs/distill_ravdess.yaml",
        metadata={"help": "YAML file of arguments of distill.py, common to all arms."},
    )
    fractions: list[float] = field(
        default_factory=lambda: [0.01, 0.05, 0.1, 0.25, 0.5, 1.0], metadata={"help": "Fractions of the labels."}
    )
    seeds: list[int] = field(
        default_factory=lambda: [0, 1, 2], metadata={"help": "Random seeds of label lists and training."}
    )
    protocol: str = field(default="", metadata={"help": "Name of the protocol. Empty: the student's."})
    folds: list[int] = field(default_factory=list, metadata={"help": "Folds, for a protocol with {fold} in its name."})
    arms: list[str] = field(
        default_factory=lambda: ["scratch", "both"], metadata={"help": "Arms to run at every fraction."}
    )
    other_arms: list[str] = field(default_factory=list, metadata={"help": "Arms to run at `--other_fraction` only."})
    other_fraction: float = field(default=0.1, metadata={"help": "Fraction of the labels for the other arms."})
    labeled_fraction: float = field(
        default=0.25, metadata={"help": "Minimum fraction of labeled clips in a batch, by sampling them more often."}
    )
    speech_teacher: str = field(
        default="baseline",
        metadata={"help": "baseline (logistic regression on a frozen encoder), or runs with {percent} and {seed}."},
    )
    encoder: str = field(
        default="openai/whisper-tiny.en",
        metadata={"help": "Encoder of the baseline speech teacher: Hub id, folder or log-mel."},
    )
    cache: str = field(default="runs/cache", metadata={"help": "Folder of cached encoder states."})
    cross_fit: int = field(default=4, metadata={"help": "Number of folds of the training speakers."})
    by_speaker: bool = field(
        default=False, metadata={"help": "Standardize the teachers' features per speaker, without labels."}
    )
    inverse_penalty: float = field(default=0.1, metadata={"help": "scikit-learn's C, of all classifiers."})
    results: str = field(
        default="", metadata={"help": "Folder for copies of the students' results, named as by run_set.py."}
    )
    repeats: int = field(default=1000, metadata={"help": "Bootstrap samples of each interval."})
    restart: bool = field(default=False, metadata={"help": "Run finished arms again."})


def main(args: LabelEfficiencyArguments) -> dict:
    """Run the unfinished arms, and write scores, table and plot; returns the content of `results.json`."""
    for arm in args.arms + args.other_arms:
        if arm.removesuffix(CONVOLUTIONAL) not in STUDENT_ARMS and arm not in OTHER_ARMS:
            raise ValueError(
                f"Expected arms among {[*STUDENT_ARMS, *OTHER_ARMS]}, or with `{CONVOLUTIONAL}`, got {arm!r}."
            )
    run = RunFolder(args.output, args)
    distill = runpy.run_path(str(Path(__file__).parents[1] / "distill.py"))
    student = distill["DistillArguments"](**yaml.safe_load(find_file(args.student).read_text()))
    student = replace(student, protocol=args.protocol or student.protocol)
    if ("{fold}" in student.protocol) != bool(args.folds):
        raise ValueError(
            f"Expected `--folds` for a protocol with {{fold}} and for no other, got {student.protocol!r}."
        )

    # Run all points: every arm at its fractions, with every seed, on every fold.
    points = [(arm, fraction) for fraction, arm in product(args.fractions, args.arms)]
    points = list(dict.fromkeys([*points, *((arm, args.other_fraction) for arm in args.other_arms)]))
    folds_of: dict[tuple[Point, int], list[Predictions]] = defaultdict(list)  # by point and seed, one per fold
    num_labels: dict[Point, list[int]] = defaultdict(list)
    corpora = []
    for fold in args.folds or [None]:
        folder = run.path if fold is None else run.path / f"fold-{fold}"
        fold_student = student if fold is None else replace(student, protocol=student.protocol.format(fold=fold))
        corpora.append(load_corpus(fold_student))
        for (arm, fraction), seed, arm_folder, labels in run_points(
            args, points, fold_student, distill, corpora[-1], folder
        ):
            predictions, _, _ = load_predictions(arm_folder / "predictions.parquet")
            if args.results and arm.removesuffix(CONVOLUTIONAL) in STUDENT_ARMS:
                Path(args.results).mkdir(parents=True, exist_ok=True)
                copy = Path(args.results) / f"{arm}-{percent(fraction)}-percent-fold-{fold}-seed-{seed}"
                shutil.copyfile(arm_folder / "results.json", f"{copy}.json")
                shutil.copyfile(arm_folder / "predictions.parquet", f"{copy}.parquet")
            folds_of[(arm, fraction), seed].append(predictions)
            num_labels[arm, fraction].append(labels)
            uar = measure(predictions, corpora[-1].emotions, [], None, 0)["uar"]
            name = f"{arm}, {percent(fraction)} %, seed {seed}" + ("" if fold is None else f", fold {fold}")
            run.log(model=name, uar=uar)
            print(f"{name}: uar {uar:.3f}")

    # Pool the folds of each seed, score and compare.
    emotions = corpora[0].emotions
    rows: dict[Point, list[dict]] = defaultdict(list)
    pooled: dict[Point, list[Predictions]] = defaultdict(list)
    for (point, seed), folds in folds_of.items():
        pooled[point].append(pool_folds(folds))
        scores = measure(pooled[point][-1], emotions, [], None, 0)
        row = {"arm": point[0], "fraction": point[1], "seed": seed, "labels": round(np.mean(num_labels[point]))}
        rows[point].append(row | {name: scores[name] for name in ("uar", "accuracy", "macro_f1", "recall")})
    results = {
        "recipe": "label_efficiency",
        "protocol": student.protocol or student.corpus,
        "seeds": args.seeds,
        "classes": len(emotions),
        "folds": args.folds,
        "training_clips": round(np.mean([len(corpus.training) for corpus in corpora])),
        "test_clips": sum(len(corpus.test) for corpus in corpora),
        "intervals_over": intervals_over(next(iter(pooled.values()))[0]),
        "student": asdict(student),
        "points": mean_scores(rows, pooled, args.repeats),
        "comparisons": paired_differences(compared_points(args.fractions), pooled, args.repeats),
        "rows": [row for point_rows in rows.values() for row in point_rows],
    }
    table = render_table(results)
    (run.path / "table.md").write_text(table)
    save_figure(label_efficiency_plot(results), run.path / "curve.png")
    run.results(results)
    print(f"{table}\n{run.path / 'curve.png'}")
    return results


def find_file(student: str) -> Path:
    """The file of the student's arguments, in the working folder or in the folder of `recipes/`.

    Raises:
        FileNotFoundError: if it is in neither.
    """
    paths = [Path(student), Path(__file__).parents[2] / student]
    for path in paths:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"Expected arguments of distill.py in one of {[str(path) for path in paths]}, got no such file. "
        "Correct `--student`."
    )


def load_corpus(student) -> ExperimentCorpus:
    """Training and test rows of the corpus, as `distill.py` loads them."""
    path = student.corpus_path or None
    rows = corpus_table(student.corpus, path, student.corpus_count)
    rows, speakers = apply_protocol(student.corpus, rows, student.protocol, path)
    train_speakers = speakers.train + (speakers.validation if student.train_on_validation else ())
    training, test = select_speakers(rows, train_speakers), select_speakers(rows, speakers.test)
    return ExperimentCorpus(
        name=student.corpus,
        path=path,
        protocol=student.protocol,
        training=training,
        test=test,
        rows=concatenate_datasets([training, test]),
        train_speakers=train_speakers,
        emotions=list(corpus_info(student.corpus).emotions),
    )


def run_points(
    args: LabelEfficiencyArguments, points: list[Point], student, distill: dict, corpus: ExperimentCorpus, folder: Path
) -> Iterator[tuple[Point, int, Path, int]]:
    """Run every point with every seed on one protocol.

    Args:
        args: of the experiment.
        points: arms, each at a fraction of the labels.
        student: arguments of `distill.py`.
        distill: globals of that recipe.
        corpus: with training and test rows.
        folder: of the runs.

    Yields:
        The point, the seed, the folder of its run, and the number of labels.
    """
    speech = SpeechFeatures(args.encoder, args.cache, corpus)
    face = partial(train_face_teacher, args, student)
    fractions = sorted({fraction for _, fraction in points})
    for seed in args.seeds:
        ids, emotions = corpus.training["id"], corpus.training["emotion"]
        lists = write_lists(folder / "labels" / f"seed-{seed}", ids, emotions, fractions, seed)
        for arm, fraction in points:
            point_folder, labels = folder / f"seed-{seed}" / percent(fraction), lists[fraction]
            teachers = BaselineTeachers(args, corpus, speech, face, point_folder / "teachers", labels, seed, fraction)
            arm_folder = run_arm(arm, student, distill, teachers, point_folder / arm)
            yield (arm, fraction), seed, arm_folder, len(read_list(labels))


def run_arm(arm: str, student, distill: dict, teachers: BaselineTeachers, folder: Path) -> Path:
    """Run one arm unless it is finished; returns the folder with its `predictions.parquet`."""
    if arm == "both-teachers":
        return score_both_teachers(student, teachers, folder)
    if arm in ("speech-teacher", "face-teacher"):
        return teachers(arm.removesuffix("-teacher"))
    if arm == "random-probe":
        return run_random_probe(student, distill, teachers, folder)
    return train_student(arm, student, distill, teachers, folder)


def train_student(arm: str, student, distill: dict, teachers: BaselineTeachers, folder: Path) -> Path:
    """Run `distill.py` with the labels and teachers of an arm.

    A student without teachers is trained on labeled clips only, with as many steps and as many labeled clips per batch
    as a student with teachers.
    """
    args = teachers.args
    fraction = len(read_list(teachers.labels)) / len(teachers.corpus.training)
    weight = labeled_sampling_weight(fraction, args.labeled_fraction)
    names = STUDENT_ARMS[arm.removesuffix(CONVOLUTIONAL)]
    changes: dict = {"trunk": "convolutional"} if arm.endswith(CONVOLUTIONAL) else {}
    if not names:
        in_batch = fraction * weight / (fraction * weight + 1 - fraction)
        changes |= {"unlabeled_weight": 0.0, "batch_size": max(2, round(in_batch * student.batch_size))}
    arguments = replace(
        student,
        output=str(folder),
        teacher=[f"{name.removesuffix('-shuffled')}={teachers(name)}" for name in names],
        labeled_list=teachers.labels,
        labeled_weight=weight,
        seed=teachers.seed,
        restart=args.restart,
        **changes,
    )
    distill["main"](arguments)
    return folder


def train_face_teacher(args: LabelEfficiencyArguments, student, folder: Path, labels: str) -> None:
    """Run `face_teacher.py` on the corpus of the student."""
    recipe = runpy.run_path(str(Path(__file__).with_name("face_teacher.py")))
    arguments = recipe["FaceTeacherArguments"](
        output=str(folder),
        corpus=student.corpus,
        corpus_path=student.corpus_path,
        corpus_count=student.corpus_count,
        protocol=student.protocol,
        train_on_validation=student.train_on_validation,
        labeled_list=labels,
        cross_fit=args.cross_fit,
        by_speaker=args.by_speaker,
        inverse_penalty=args.inverse_penalty,
        restart=args.restart,
    )
    recipe["main"](arguments)


def score_both_teachers(student, teachers: BaselineTeachers, folder: Path) -> Path:
    """Score the product of both teachers, with the exponents that a student with `product_fit` uses."""
    corpus = teachers.corpus
    exponents = None
    if student.product_fit:
        labeled = sorted(read_list(teachers.labels))
        emotion_of = dict(zip(corpus.training["id"], corpus.training["emotion"], strict=True))
        labels = torch.tensor([corpus.emotions.index(emotion_of[name]) for name in labeled])
        outputs = [teachers.outputs(name).align(labeled) for name in ("speech", "face")]
        exponents = fit_exponents(outputs, corpus.emotions, labels)
    outputs = [teachers.outputs(name).align(corpus.test["id"]) for name in ("speech", "face")]
    probabilities = product_of_teachers(outputs, corpus.emotions, 1.0, exponents)
    both = replace(outputs[0], logits=probabilities.clamp(min=1e-12).log(), emotions=corpus.emotions)
    write_scores(RunFolder(folder, teachers.args), as_predictions(both, corpus.test), corpus.emotions)
    return folder


def run_random_probe(student, distill: dict, teachers: BaselineTeachers, folder: Path) -> Path:
    """Train and test a logistic regression on the embedding of an untrained student."""
    args, corpus = teachers.args, teachers.corpus
    classifier = ClassifierArguments(
        corpus=corpus.name,
        protocol=corpus.protocol,
        labels=teachers.labels,
        inverse_penalty=args.inverse_penalty,
        seed=teachers.seed,
    )
    run = RunFolder(folder, classifier, resume=True, restart=args.restart)
    if run.finished is None:
        set_seed(teachers.seed)
        model = distill["new_student"](student, emotions=corpus.emotions)
        predictions = random_probe(model, corpus, read_list(teachers.labels), args.inverse_penalty)
        write_scores(run, predictions, corpus.emotions)
    return folder


def labeled_sampling_weight(fraction: float, target: float) -> float:
    """Sampling weight of the labeled clips, a fraction of all, that makes them the target fraction of an epoch."""
    return round(max(1.0, target * (1 - fraction) / ((1 - target) * fraction)), 2)


if __name__ == "__main__":
    main(parse_arguments(LabelEfficiencyArguments))
