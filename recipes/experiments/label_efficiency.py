"""How few labels a student needs: the same one at 1 to 100 % of the labels, alone or with teachers.

    python recipes/experiments/label_efficiency.py --config recipes/configs/label_efficiency_ravdess.yaml

Labels are taken away from the training speakers by lists, stratified by class and nested, one set for each seed, which
are written to `labels/`. No teacher uses a label that is not on the list, and each is silent on the speakers it was
fitted on. Arms, each a run of `distill.py` with the same settings in a folder of its own:

    scratch          labels alone
    speech, face     one teacher
    both             both teachers
    both-shuffled    both, what the face says going to wrong clips: what gain is left is not the face's
    random-probe     a logistic regression on the embedding of a student that has learned nothing
    speech-teacher, face-teacher, both-teachers     the teachers themselves, the last by the product of their shares

`-convolutional` after an arm takes the other trunk. The paper (Pendyala et al. 2025, LiSER) claims label efficiency in
its abstract; how it was measured we could not read, and this protocol is ours.

Finished arms are skipped, so that the same command goes on where it was killed, and one with more arms, fractions or
seeds adds to what is there. It writes `results.json`, `table.md` and `curve.png`. One process.
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
from baseline_teachers import BaselineTeachers, ClassifierFacts, Corpus, SpeechFeatures, finish
from cross_fitting import as_predictions
from datasets import concatenate_datasets
from huggingface_hub.dataclasses import strict
from label_curve import label_curve
from label_efficiency_tables import Point, comparisons_of, pairs_of, points_of, table
from random_probe import random_probe

from audio_emotion.data.label_subset import percent, read_list, write_lists
from audio_emotion.data.registry import corpus_info, corpus_table, select_speakers, sides
from audio_emotion.evaluation.bootstrap import pooled
from audio_emotion.evaluation.plots import save_figure
from audio_emotion.evaluation.predictions import Predictions, load_predictions
from audio_emotion.evaluation.report import intervals_over, measure
from audio_emotion.training.arguments import parse_arguments
from audio_emotion.training.distillation import fitted_exponents, product_of_teachers
from audio_emotion.training.trainer_state import RunFolder

STUDENTS = {  # arm: its teachers
    "scratch": (),
    "speech": ("speech",),
    "face": ("face",),
    "both": ("speech", "face"),
    "both-shuffled": ("speech", "face-shuffled"),
}
OTHERS = ("random-probe", "speech-teacher", "face-teacher", "both-teachers")
CONVOLUTIONAL = "-convolutional"


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
    split: str = field(default="", metadata={"help": "In place of the student's."})
    folds: list[int] = field(default_factory=list, metadata={"help": "Of the split, which says where with {fold}."})
    arms: list[str] = field(default_factory=lambda: ["scratch", "both"], metadata={"help": "At every fraction."})
    other_arms: list[str] = field(default_factory=list, metadata={"help": "At one fraction only."})
    other_fraction: float = field(default=0.1, metadata={"help": "That one."})
    labeled_fraction: float = field(default=0.25, metadata={"help": "Least share of labeled clips in a batch."})
    speech_teacher: str = field(
        default="baseline",
        metadata={"help": "baseline (logistic regression on a frozen encoder), or runs with {percent} and {seed}."},
    )
    encoder: str = field(
        default="openai/whisper-tiny.en", metadata={"help": "The baseline's: Hub id, folder, log-mel."}
    )
    cache: str = field(default="runs/cache", metadata={"help": "Where its states are kept."})
    cross_fit: int = field(default=4, metadata={"help": "Classifiers for the training speakers."})
    by_speaker: bool = field(
        default=False, metadata={"help": "Teachers see clips as they differ from the speaker's others, unlabeled."}
    )
    inverse_penalty: float = field(default=0.1, metadata={"help": "scikit-learn's C, of all classifiers."})
    results: str = field(
        default="", metadata={"help": "Folder for a copy of what students of a fold leave, as run_set.py names it."}
    )
    repeats: int = field(default=1000, metadata={"help": "Bootstrap samples of every interval."})
    restart: bool = field(default=False, metadata={"help": "Do everything again."})


def main(args: LabelEfficiencyArguments) -> dict:
    """Run every arm that is not there yet, and write what they say together."""
    for arm in args.arms + args.other_arms:
        if arm.removesuffix(CONVOLUTIONAL) not in STUDENTS and arm not in OTHERS:
            raise ValueError(f"Expected arms among {[*STUDENTS, *OTHERS]}, or with `{CONVOLUTIONAL}`, got {arm!r}.")
    run = RunFolder(args.output, args)
    distil = runpy.run_path(str(Path(__file__).parents[1] / "distill.py"))
    student = distil["DistillArguments"](**yaml.safe_load(file_of(args.student).read_text()))
    student = replace(student, split=args.split or student.split)
    if ("{fold}" in student.split) != bool(args.folds):
        raise ValueError(f"Expected `--folds` for a split with {{fold}} and for no other, got {student.split!r}.")

    plan = [(arm, fraction) for fraction, arm in product(args.fractions, args.arms)]
    plan = list(dict.fromkeys([*plan, *((arm, args.other_fraction) for arm in args.other_arms)]))
    parts: dict[tuple[Point, int], list[Predictions]] = defaultdict(list)  # of a point and a seed, one a fold
    labels: dict[Point, list[int]] = defaultdict(list)
    corpora = []
    for fold in args.folds or [None]:
        path = run.path if fold is None else run.path / f"fold-{fold}"
        of_fold = student if fold is None else replace(student, split=student.split.format(fold=fold))
        corpora.append(read_corpus(of_fold))
        for (point, seed), folder, count in run_plan(args, plan, of_fold, distil, corpora[-1], path):
            said, _, _ = load_predictions(folder / "predictions.parquet")
            if args.results and point[0].removesuffix(CONVOLUTIONAL) in STUDENTS:
                Path(args.results).mkdir(parents=True, exist_ok=True)
                copied = Path(args.results) / f"{point[0]}-{percent(point[1])}-percent-fold-{fold}-seed-{seed}"
                shutil.copyfile(folder / "results.json", f"{copied}.json")
                shutil.copyfile(folder / "predictions.parquet", f"{copied}.parquet")
            parts[point, seed].append(said)
            labels[point].append(count)
            uar = measure(said, corpora[-1].emotions, [], None, 0)["uar"]
            name = f"{point[0]}, {percent(point[1])} %, seed {seed}" + ("" if fold is None else f", fold {fold}")
            run.log(model=name, uar=uar)
            print(f"{name}: uar {uar:.3f}")

    done: dict[Point, list[dict]] = defaultdict(list)
    predictions: dict[Point, list[Predictions]] = defaultdict(list)
    emotions = corpora[0].emotions
    for (point, seed), folds in parts.items():
        predictions[point].append(pooled(folds))
        scores = measure(predictions[point][-1], emotions, [], None, 0)
        row = {"arm": point[0], "fraction": point[1], "seed": seed, "labels": round(np.mean(labels[point]))}
        done[point].append(row | {name: scores[name] for name in ("uar", "accuracy", "macro_f1", "recall")})

    results = {
        "recipe": "label_efficiency",
        "split": student.split or student.corpus,
        "seeds": args.seeds,
        "classes": len(emotions),
        "folds": args.folds,
        "training_clips": round(np.mean([len(corpus.training) for corpus in corpora])),
        "test_clips": sum(len(corpus.test) for corpus in corpora),
        "intervals_over": intervals_over(next(iter(predictions.values()))[0]),
        "student": asdict(student),
        "points": points_of(done, predictions, args.repeats),
        "comparisons": comparisons_of(pairs_of(args.fractions), predictions, args.repeats),
        "rows": [row for rows in done.values() for row in rows],
    }
    lines = table(results)
    (run.path / "table.md").write_text(lines)
    save_figure(label_curve(results), run.path / "curve.png")
    run.results(results)
    print(f"{lines}\n{run.path / 'curve.png'}")
    return results


def file_of(student: str) -> Path:
    """The file of the student's arguments, from the working folder or else from the folder that holds `recipes/`.

    Raises:
        FileNotFoundError: where it is in neither.
    """
    places = [Path(student), Path(__file__).parents[2] / student]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"Expected arguments of distill.py in one of {[str(place) for place in places]}, got no such file. "
            "Correct `--student`."
        )
    return found


def run_plan(
    args: LabelEfficiencyArguments, plan: list[Point], student, distil: dict, corpus: Corpus, path: Path
) -> Iterator[tuple[tuple[Point, int], Path, int]]:
    """Run every point of a plan with every seed on one split.

    Args:
        args: of the experiment.
        plan: arms, each at a share of the labels.
        student: arguments of `distill.py` that all arms share.
        distil: that recipe.
        corpus: on its sides.
        path: folder of the split.

    Yields:
        A point and a seed, the folder of its run, and how many labels were used.
    """
    speech = SpeechFeatures(args.encoder, args.cache, corpus)
    face = partial(make_face_teacher, args, student)
    fractions = sorted({fraction for _, fraction in plan})
    for seed in args.seeds:
        folder = path / "labels" / f"seed-{seed}"
        lists = write_lists(folder, corpus.training["id"], corpus.training["emotion"], fractions, seed)
        for arm, fraction in plan:
            where, labels = path / f"seed-{seed}" / percent(fraction), lists[fraction]
            teachers = BaselineTeachers(args, corpus, speech, face, where / "teachers", labels, seed, fraction)
            folder = run_arm(arm, student, distil, teachers, where / arm)
            yield ((arm, fraction), seed), folder, len(read_list(labels))


def read_corpus(student) -> Corpus:
    """Rows of the corpus on its sides, as `distill.py` takes them."""
    path = student.corpus_path or None
    rows = corpus_table(student.corpus, path, student.corpus_count)
    rows, speakers = sides(student.corpus, rows, student.split, path)
    train_speakers = speakers.train + (speakers.validation if student.train_on_validation else ())
    training, test = select_speakers(rows, train_speakers), select_speakers(rows, speakers.test)
    return Corpus(
        name=student.corpus,
        path=path,
        split=student.split,
        training=training,
        test=test,
        rows=concatenate_datasets([training, test]),
        train_speakers=train_speakers,
        emotions=list(corpus_info(student.corpus).emotions),
    )


def make_face_teacher(args: LabelEfficiencyArguments, student, folder: Path, labels: str) -> None:
    """Run `face_teacher.py` on the corpus of the student."""
    recipe = runpy.run_path(str(Path(__file__).with_name("face_teacher.py")))
    arguments = recipe["FaceTeacherArguments"](
        output=str(folder),
        corpus=student.corpus,
        corpus_path=student.corpus_path,
        corpus_count=student.corpus_count,
        split=student.split,
        train_on_validation=student.train_on_validation,
        labeled_list=labels,
        cross_fit=args.cross_fit,
        by_speaker=args.by_speaker,
        inverse_penalty=args.inverse_penalty,
        restart=args.restart,
    )
    recipe["main"](arguments)


def run_arm(arm: str, student, distil: dict, teachers: BaselineTeachers, folder: Path) -> Path:
    """Do what an arm asks for, if it is not done yet.

    Args:
        arm: its name.
        student: arguments of `distill.py` that all arms share.
        distil: that recipe.
        teachers: of the list of labels.
        folder: of the arm.

    Returns:
        the folder with its `predictions.parquet`.
    """
    args, corpus = teachers.args, teachers.corpus
    if arm == "both-teachers":
        said = [teachers.outputs(name).covering(corpus.test["id"]) for name in ("speech", "face")]
        exponents = fitted(teachers) if student.product_fit else None
        together = product_of_teachers(said, corpus.emotions, 1.0, exponents).clamp(min=1e-12).log()
        together = replace(said[0], logits=together, emotions=corpus.emotions)
        finish(RunFolder(folder, args), as_predictions(together, corpus.test), corpus.emotions)
        return folder
    if arm in ("speech-teacher", "face-teacher"):
        return teachers(arm.removesuffix("-teacher"))
    if arm == "random-probe":
        facts = ClassifierFacts(
            corpus=corpus.name,
            split=corpus.split,
            labels=teachers.labels,
            inverse_penalty=args.inverse_penalty,
            seed=teachers.seed,
        )
        run = RunFolder(folder, facts, resume=True, restart=args.restart)
        if run.finished is None:
            set_seed(teachers.seed)
            model = distil["new_student"](student, emotions=corpus.emotions)
            said = random_probe(model, corpus, read_list(teachers.labels), args.inverse_penalty)
            finish(run, said, corpus.emotions)
        return folder
    share = len(read_list(teachers.labels)) / len(corpus.training)
    trunk = {"trunk": "convolutional"} if arm.endswith(CONVOLUTIONAL) else {}
    names, often = STUDENTS[arm.removesuffix(CONVOLUTIONAL)], draws(share, args.labeled_fraction)
    alone = {}
    if not names:  # as many steps, of the labeled clips that they would have held
        in_batch = share * often / (share * often + 1 - share)
        alone = {"unlabeled_weight": 0.0, "batch_size": max(2, round(in_batch * student.batch_size))}
    arguments = replace(
        student,
        output=str(folder),
        teacher=[f"{name.removesuffix('-shuffled')}={teachers(name)}" for name in names],
        labeled_list=teachers.labels,
        labeled_weight=often,
        seed=teachers.seed,
        restart=args.restart,
        **trunk,
        **alone,
    )
    distil["main"](arguments)
    return folder


def fitted(teachers: BaselineTeachers) -> list[float]:
    """How far to believe each teacher, by what they say, cross-fitted, of the labeled clips."""
    corpus, named = teachers.corpus, sorted(read_list(teachers.labels))
    emotion_of = dict(zip(corpus.training["id"], corpus.training["emotion"], strict=True))
    classes = torch.tensor([corpus.emotions.index(emotion_of[name]) for name in named])
    return fitted_exponents(
        [teachers.outputs(name).covering(named) for name in ("speech", "face")], corpus.emotions, classes
    )


def draws(share: float, wanted: float) -> float:
    """How often to draw each labeled clip, of which there is a share, to make them the wanted share of the epoch."""
    return round(max(1.0, wanted * (1 - share) / ((1 - wanted) * share)), 2)


if __name__ == "__main__":
    main(parse_arguments(LabelEfficiencyArguments))
