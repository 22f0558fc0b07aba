"""Leave one corpus out: train on all corpora but one, and on each alone, and test on those that were not trained on.

    python recipes/experiments/leave_one_out.py --set recipes/configs/leave_one_out.yaml --jobs 2

Every model predicts all clips of a corpus, scored over angry, happy, neutral (calm with it) and sad. A corpus is
sampled in proportion to its clips to the power 1 / `sampling_temperature`, so that the largest one does not decide
everything (as in multilingual training: Conneau et al. 2020, arXiv 1911.02116, section 3.1); which temperature is our
choice. The corpora under `also_trained_on` of a model are in each of its trainings. A model is trained by
`train_teacher.py`, or by its `recipe`; its `teacher` and `initial_model`, with keys like its own, are trained before
it on the same corpora. Finished runs are skipped and interrupted ones resumed; `--list` prints the commands of the
others. The scores go to the `results` file of the set, from which `table.py` renders docs/results.md; those of runs
that are not in the output folder are kept.
"""

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from elsewhere import TITLES, cell, class_scores, only_four
from run_set import FILES_WITHOUT_TEST, Job, as_flags, is_finished, replace_values, run_jobs

from audio_emotion.data.registry import corpus_info, corpus_table
from audio_emotion.evaluation.bootstrap import aggregate
from audio_emotion.evaluation.predictions import Predictions, load_predictions
from audio_emotion.hub.card_sections import markdown_table
from audio_emotion.training.arguments import argument_group, option, parse_arguments

NEEDED = ("teacher", "initial_model")  # keys of a model: runs that come before it, on the same corpora
MEANS = ("accuracy", "ece", "over_confidence", "surest_half_accuracy")


@argument_group()
class LeaveOneOutArguments:
    """Train on all corpora but one, and on each alone, and test on those that were not trained on."""

    set: str = option("recipes/configs/leave_one_out.yaml", "YAML file of corpora and models.")
    jobs: int = option(1, "Number of runs in parallel.")
    threads: int = option(1, "CPU threads of each run.")
    only: list[str] = option([], "Names of models.")
    trained_on: list[str] = option([], "Only these trainings, such as `without-nemo`, `only-nemo` or `all`.")
    seeds: list[int] = option([], "Only these seeds.")
    replace: list[str] = option([], "OLD=NEW: replace every value OLD, as in openai/whisper-tiny.en=FOLDER.")
    repeats: int = option(1000, "Bootstrap samples of each interval.")
    # Last, because it hides the built-in name in this class.
    list: bool = option(False, "Print the commands of unfinished runs, and run nothing.")


def main(args: LeaveOneOutArguments) -> int:
    """Run what is unfinished, write the scores and print the table; returns the exit code, 1 if a run failed."""
    run_set = yaml.safe_load(Path(args.set).read_text())
    jobs = plan_jobs(run_set, args)
    unfinished = [job for job in jobs if not is_finished(job)]
    if args.list:
        print("\n".join(shlex.join(job.command) for job in unfinished))
        return 0
    print(f"{args.set}: {len(jobs)} runs, {len(jobs) - len(unfinished)} of them finished", flush=True)
    failed = run_jobs(unfinished, args.jobs, args.threads)
    file = Path(run_set["results"])
    known = json.loads(file.read_text())["models"] if file.exists() else {}
    models = updated(known, scores(run_set, args.repeats))
    results = {"source": "recipes/experiments/leave_one_out.py", "models": models}
    file.write_text(json.dumps(results, indent=2) + "\n")
    print(leave_one_out_table(results))
    for name, reason in failed.items():
        print(f"\n{name} {reason}", flush=True)
    return 1 if failed else 0


def updated(known: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The scores of a results file, replaced where there are new ones: runs of other machines are kept."""
    models = dict(known)
    for name, model in found.items():
        rows = dict(known.get(name, {}).get("trained_on", {}))
        for kind, by_corpus in model["trained_on"].items():
            rows[kind] = rows.get(kind, {}) | by_corpus
        models[name] = model | {"trained_on": rows}
    return models


def trainings(run_set: dict[str, Any]) -> dict[str, tuple[list[str], list[str]]]:
    """Training and test corpora of each model, by name: without each corpus, on all, and on each alone."""
    corpora, never = [*run_set["corpora"]], [*run_set.get("also_test", [])]
    found = {f"without-{base(each)}": ([c for c in corpora if c != each], [base(each)]) for each in corpora}
    found |= {"all": (corpora, never)} if never else {}
    singles = {
        f"only-{base(each)}": ([each], [*(base(other) for other in corpora if other != each), *never])
        for each in corpora
    }
    return found | singles


def base(corpus: str) -> str:
    """Name of a corpus without its variants."""
    return corpus.split("/")[0]


def plan_jobs(run_set: dict[str, Any], args: LeaveOneOutArguments) -> list[Job]:
    """Every training, followed by its evaluations; seed by seed."""
    replacements = dict(each.split("=", 1) for each in args.replace)
    sizes = {name: len(corpus_table(name)) for name in run_set["corpora"]}
    planned = trainings(run_set)
    if unknown := sorted({*args.only} - {*run_set["models"]}) + sorted({*args.trained_on} - {*planned}):
        raise ValueError(f"Expected models of {[*run_set['models']]} and trainings of {[*planned]}, got {unknown}.")
    jobs = []
    for seed in args.seeds or run_set["seeds"]:
        for name, model in run_set["models"].items():
            if args.only and name not in args.only:
                continue
            kinds = model.get("trained_on", [*planned])
            for kind in (each for each in planned if each in (args.trained_on or kinds)):
                (first, *others), tested = planned[kind]
                mix = mixture(first, others, sizes, run_set["sampling_temperature"]) + model.get("also_trained_on", [])
                shared = {"corpus": first, "protocol": run_set["corpora"][first], "train_on_validation": False}
                shared |= {"seed": seed, **({"mix": mix} if mix else {})}
                folder = Path(run_set["output"]) / run_folder(name, kind, seed)
                before = {
                    key: training_job(model[key], shared, folder.with_name(f"{key}-{folder.name}"), replacements)
                    for key in NEEDED
                    if key in model
                }
                needs = {key: str(job.folder) for key, job in before.items()}
                train = training_job(model, shared | needs, folder, replacements)
                train = replace(train, needs=tuple(job.name for job in before.values()))
                jobs += [*before.values(), train]
                for corpus in tested:
                    output = Path(run_set["output"]) / corpus / folder.name
                    values = {"model": str(folder / "checkpoints" / "last"), "corpus": corpus, "protocol": "all"}
                    values |= {"output": str(output), "repeats": 0, "plots": False}
                    flags = tuple(as_flags(values))
                    jobs.append(Job(f"{corpus}/{folder.name}", "evaluate", flags, output, None, (train.name,)))
    return jobs


def training_job(model: dict[str, Any], shared: dict[str, Any], folder: Path, replacements: dict[str, str]) -> Job:
    """The job that trains a model, or what it needs, in a folder, with arguments that all of its jobs share."""
    values = yaml.safe_load(Path(model["config"]).read_text()) | model.get("arguments", {}) | shared
    values = {key: replace_values(value, replacements) for key, value in (values | {"output": str(folder)}).items()}
    recipe = model.get("recipe", "train_teacher")
    return Job(folder.name, recipe, tuple(as_flags(values)), folder, None, (), FILES_WITHOUT_TEST)


def run_folder(name: str, kind: str, seed: int) -> str:
    """Name of the run folder of a model, a training and a seed."""
    return f"{name}-{kind}-seed-{seed}"


def mixture(first: str, others: list[str], sizes: dict[str, int], temperature: float) -> list[str]:
    """The other corpora with weights, at which the clips of each are sampled as `size ** (1 / temperature)`."""
    return [f"{each}={(sizes[first] / sizes[each]) ** (1 - 1 / temperature):.3f}" for each in others]


def scores(run_set: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Scores over four emotions of every model, training and test corpus that all seeds have finished."""
    found: dict[str, Any] = {}
    for name, model in run_set["models"].items():
        found[name] = {"title": model["title"], "trained_on": {}}
        for kind, (_, tested) in trainings(run_set).items():
            by_corpus = {}
            for corpus in tested:
                folders = [
                    Path(run_set["output"]) / corpus / run_folder(name, kind, seed) for seed in run_set["seeds"]
                ]
                folders = [folder for folder in folders if (folder / "predictions.parquet").is_file()]
                if folders:
                    by_corpus[corpus] = corpus_scores(corpus, folders, repeats)
            if by_corpus:
                found[name]["trained_on"][kind] = by_corpus
    return {name: each for name, each in found.items() if each["trained_on"]}


def corpus_scores(corpus: str, folders: list[Path], repeats: int) -> dict[str, Any]:
    """Means over seeds on one corpus, with the interval of the UAR over speakers, and the UAR of each seed."""
    runs: list[Predictions] = []
    singles, correlations = [], []
    for folder in folders:
        predictions, emotions, dimensions = load_predictions(folder / "predictions.parquet")
        run, kept = only_four(predictions, emotions)
        run = run.take(run.labels >= 0)
        runs.append(run)
        singles.append(class_scores(run, kept, 0))
        if corpus_info(corpus).dimensions_source == "rated":
            each = [aggregate([predictions], f"pearson_{name}", dimensions, 1)[0] for name in dimensions]
            correlations.append(dict(zip(dimensions, each, strict=True)))
    value, interval = aggregate(runs, "uar", dimensions, repeats)
    row = {"uar": value, "interval": interval, "seeds": [each["uar"] for each in singles]}
    row |= {key: float(np.mean([each[key] for each in singles])) for key in MEANS}
    row |= {"classes": len(kept), "chance": 1 / len(kept), "clips": len(runs[0].labels)}
    if correlations:
        row["pearson"] = {key: float(np.mean([each[key] for each in correlations])) for key in correlations[0]}
    return row


def leave_one_out_table(results: dict[str, Any]) -> str:
    """The matrix of UARs over four emotions, a row a training and a column a corpus, in Markdown."""
    tested = {corpus for model in results["models"].values() for row in model["trained_on"].values() for corpus in row}
    corpora = [name for name in TITLES if name in tested]
    lines = []
    for model in results["models"].values():
        trained = model["trained_on"]
        left_out = {
            corpus: row for kind in trained if not kind.startswith("only-") for corpus, row in trained[kind].items()
        }
        rows = {"all others": left_out} | {
            f"{kind.removeprefix('only-')} alone": row for kind, row in trained.items() if kind.startswith("only-")
        }
        for title, row in rows.items():
            cells = [cell(row[name]["uar"], row[name]["interval"]) if name in row else "" for name in corpora]
            complete = title == "all others" and len(row) == len(corpora)
            mean = f"{np.mean([each['uar'] for each in row.values()]):.3f}" if complete else ""
            lines.append([model["title"], title, *cells, mean])
    chance = [
        next(r[c]["chance"] for m in results["models"].values() for r in m["trained_on"].values() if c in r)
        for c in corpora
    ]
    lines.append(["chance", "", *(f"{each:.2f}" for each in chance), f"{np.mean(chance):.3f}"])
    return markdown_table(["model", "trained on", *(TITLES[name] for name in corpora), "mean"], lines)


if __name__ == "__main__":
    sys.exit(main(parse_arguments(LeaveOneOutArguments)))
