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

`-convolutional` after the arm of a student selects the convolutional trunk; `-regression` replaces the student by a
logistic regression on the frozen encoder, which also receives one clip. Pendyala et al. 2025 (LiSER) claim label
efficiency in their abstract; their protocol is not known to us, and this one is our own.

Finished arms are skipped, so the same command resumes an interrupted experiment, and one with more arms, fractions or
seeds extends it. Writes `results.json`, `table.md` and `curve.png`. Runs in one process.
"""

import runpy
import shutil
from collections import defaultdict
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import numpy as np
import yaml
from label_efficiency_arms import (
    CONVOLUTIONAL,
    EXTENDED,
    FACES,
    OTHER_ARMS,
    REGRESSION,
    STUDENT_ARMS,
    Arms,
    Experiment,
)
from label_efficiency_report import (
    Point,
    compared_points,
    label_efficiency_plot,
    mean_scores,
    paired_differences,
    render_table,
)

from audio_emotion.data.training_set import percent, read_list, write_lists
from audio_emotion.evaluation.bootstrap import intervals_over
from audio_emotion.evaluation.plots import save_figure
from audio_emotion.evaluation.predictions import Predictions, load_predictions, pool_folds
from audio_emotion.evaluation.report import measure
from audio_emotion.training.arguments import argument_group, option, parse_arguments
from audio_emotion.training.trainer_state import RunFolder


@argument_group()
class LabelEfficiencyArguments:
    """Train students and teachers with fractions of the labels, and compare them."""

    output: str = option("runs/label_efficiency", "Folder of the experiment.")
    student: str = option("recipes/configs/distill_ravdess.yaml", "YAML file of arguments of distill.py for all arms.")
    fractions: list[float] = option([0.01, 0.05, 0.1, 0.25, 0.5, 1.0], "Fractions of the labels.")
    seeds: list[int] = option([0, 1, 2], "Random seeds of label lists and training.")
    corpus: str = option("", "Corpus. Empty: the student's.")
    protocol: str = option("", "Name of the protocol. Empty: the student's.")
    folds: list[int] = option([], "Folds, for a protocol with {fold} in its name.")
    arms: list[str] = option(["scratch", "both"], "Arms to run at every fraction.")
    other_arms: list[str] = option([], "Arms to run at `--other_fraction` only.")
    other_fraction: float = option(0.1, "Fraction of the labels for the other arms.")
    labeled_fraction: float = option(0.25, "Minimum fraction of labeled clips in a batch: they are sampled more.")
    encoder: str = option("openai/whisper-tiny.en", "Encoder of the speech teacher: Hub id, folder, log-mel.")
    layers: list[int] = option([], "Layers of the encoder that are pooled. Empty: all.")
    frames_per_step: int = option(1, "Frames of the encoder that are averaged before.")
    faces: str = option(
        "action-units", "Face teacher: action-units (see face_teacher.py), or votes of raters who saw the face alone."
    )
    cache: str = option("runs/cache", "Folder of cached encoder states.")
    cross_fit: int = option(4, "Number of folds of the training speakers.")
    by_speaker: bool = option(False, "Standardize the teachers' features per speaker, without labels.")
    inverse_penalty: float = option(0.1, "scikit-learn's C, of all classifiers.")
    results: str = option("", "Folder for copies of the students' results, named as by run_set.py.")
    repeats: int = option(1000, "Bootstrap samples of each interval.")
    restart: bool = option(False, "Run finished arms again.")


def main(args: LabelEfficiencyArguments) -> dict:
    """Run the unfinished arms, and write scores, table and plot; returns the content of `results.json`."""
    for arm in args.arms + args.other_arms:
        if arm.removesuffix(CONVOLUTIONAL).removesuffix(REGRESSION) not in STUDENT_ARMS and arm not in OTHER_ARMS:
            raise ValueError(
                f"Expected arms among {[*STUDENT_ARMS, *OTHER_ARMS]}, or with `{CONVOLUTIONAL}` or `{REGRESSION}`, "
                f"got {arm!r}."
            )
    if args.faces not in FACES:
        raise ValueError(f"Expected `--faces` among {list(FACES)}, got {args.faces!r}.")
    run = RunFolder(args.output, args, restart=args.restart, extends=EXTENDED)
    distill = runpy.run_path(str(Path(__file__).parents[1] / "distill.py"))
    student = distill["DistillArguments"](**yaml.safe_load(find_file(args.student).read_text()))
    student = replace(student, corpus=args.corpus or student.corpus, protocol=args.protocol or student.protocol)
    if ("{fold}" in student.protocol) != bool(args.folds):
        raise ValueError(
            f"Expected `--folds` for a protocol with {{fold}} and for no other, got {student.protocol!r}."
        )

    # Run all points: every arm at its fractions, with every seed, on every fold.
    points = [(arm, fraction) for fraction, arm in product(args.fractions, args.arms)]
    points = list(dict.fromkeys([*points, *((arm, args.other_fraction) for arm in args.other_arms)]))
    fractions = sorted({fraction for _, fraction in points})
    folds_of: dict[tuple[Point, int], list[Predictions]] = defaultdict(list)  # by point and seed, one per fold
    num_labels: dict[Point, list[int]] = defaultdict(list)
    experiments = []
    for fold in args.folds or [None]:
        folder = run.path if fold is None else run.path / f"fold-{fold}"
        fold_student = student if fold is None else replace(student, protocol=student.protocol.format(fold=fold))
        experiment = Experiment(args, fold_student, distill)
        experiments.append(experiment)
        for seed in args.seeds:
            ids, emotions = experiment.training["id"], experiment.training["emotion"]
            lists = write_lists(folder / "labels" / f"seed-{seed}", ids, emotions, fractions, seed)
            for arm, fraction in points:
                arms = Arms(experiment, folder / f"seed-{seed}" / percent(fraction), lists[fraction], seed)
                arm_folder = arms.run(arm)
                predictions, _, _ = load_predictions(arm_folder / "predictions.parquet")
                if args.results and arm.removesuffix(CONVOLUTIONAL) in STUDENT_ARMS:
                    Path(args.results).mkdir(parents=True, exist_ok=True)
                    copy = Path(args.results) / f"{arm}-{percent(fraction)}-percent-fold-{fold}-seed-{seed}"
                    shutil.copyfile(arm_folder / "results.json", f"{copy}.json")
                    shutil.copyfile(arm_folder / "predictions.parquet", f"{copy}.parquet")
                folds_of[(arm, fraction), seed].append(predictions)
                num_labels[arm, fraction].append(len(read_list(lists[fraction])))
                uar = measure(predictions, experiment.emotions, [], None, 0)["uar"]
                name = f"{arm}, {percent(fraction)} %, seed {seed}" + ("" if fold is None else f", fold {fold}")
                run.log(model=name, uar=uar)
                print(f"{name}: uar {uar:.3f}")

    # Pool the folds of each seed, score and compare.
    emotions = experiments[0].emotions
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
        "training_clips": round(np.mean([len(each.training) for each in experiments])),
        "test_clips": sum(len(each.test) for each in experiments),
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
    """The file of the student's arguments, in the working folder or in the folder of `recipes/`."""
    paths = [Path(student), Path(__file__).parents[2] / student]
    for path in paths:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"Expected arguments of distill.py in one of {[str(path) for path in paths]}, got no such file. "
        "Correct `--student`."
    )


if __name__ == "__main__":
    main(parse_arguments(LabelEfficiencyArguments))
