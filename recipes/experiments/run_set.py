"""Run a set of recipes over folds and seeds, each student after its teacher and its pretraining.

    python recipes/experiments/run_set.py --set recipes/configs/mitra2022/ravdess.yaml --jobs 2
    python recipes/experiments/run_set.py --set recipes/configs/mitra2022/ravdess.yaml --list

The set is a YAML file that defines the runs; docs/mitra2022.md lists its keys. A run writes to
`<output>/<name>-fold-<k>-seed-<s>`, with its console output in `log.txt`. Finished runs are skipped and interrupted
runs resumed, so the same command continues a set. `results.json` and `predictions.parquet` of finished runs are copied
to the `results` folder of the set, as `<name>-fold-<k>-seed-<s>.json` and `.parquet`: the input of `table.py`.

`--list` prints the commands of unfinished runs instead, one per line in dependency order, for SLURM, make or xargs.
"""

import json
import os
import runpy
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.dataclasses import strict

from audio_emotion.training.arguments import argument_group, option, parse_arguments
from audio_emotion.training.trainer_state import RunFolder

RECIPES = Path(__file__).parents[1]
WITHOUT_CHECKPOINT = ("baseline", "reslstm")
ARGUMENTS = {  # recipe: the class of its arguments
    "baseline": "BaselineArguments",
    "reslstm": "ResLSTMArguments",
    "train_teacher": "TeacherArguments",
    "pretrain_student": "PretrainArguments",
    "distill": "DistillArguments",
    "evaluate": "EvaluateArguments",
}
FILES = ("predictions.parquet", "results.json")  # of a finished run
FILES_WITHOUT_TEST = ("results.json",)  # of one that is not tested
LAST_LINES = 15  # of the log of a failed run, printed at the end
PRINTED_METRICS = ("uar", "ccc_activation", "ccc_valence", "ccc_dominance")


@argument_group()
class SetArguments:
    """Run a set of recipes over folds and seeds."""

    set: str = option("recipes/configs/mitra2022/ravdess.yaml", "YAML file of the set.")
    jobs: int = option(1, "Number of runs in parallel.")
    threads: int = option(1, "CPU threads of each run.")
    only: list[str] = option([], "Names of runs; their teachers and pretrainings are included.")
    folds: list[int] = option([], "Only these folds.")
    seeds: list[int] = option([], "Only these seeds.")
    replace: list[str] = option([], "OLD=NEW: replace every value OLD, as in openai/whisper-tiny.en=FOLDER.")
    # Last, because it hides the built-in name in this class.
    list: bool = option(False, "Print the commands of unfinished runs, and run nothing.")


@strict
@dataclass(kw_only=True)
class Run:
    """One row of a set."""

    name: str  # in folder and file names
    recipe: str  # a key of `ARGUMENTS` but `evaluate`
    title: str = ""  # row name in the table; a run without title has no row
    config: str = ""  # file of its arguments
    arguments: dict = field(default_factory=dict)  # override those of the file
    teacher: str = ""  # name of the run that trains its teacher, on the same fold, with the same seed or its only one
    initial_model: str = ""  # name of the run that pretrains it, in the same way
    folds: list[int]
    seeds: list[int]
    corruptions: list[str] = field(default_factory=list)  # of evaluations of the first seed; see evaluate.py
    priority: int = 0  # runs with a lower number come first

    @property
    def needed(self) -> dict[str, str]:
        """Names of the runs that come before it, by the argument that is their result."""
        names = {"teacher": self.teacher, "initial_model": self.initial_model}
        return {argument: name for argument, name in names.items() if name}

    def seed_for(self, seed: int) -> int:
        """Its seed for a run that needs it and has another seed: its only one serves all."""
        return self.seeds[0] if len(self.seeds) == 1 else seed


@dataclass(frozen=True)
class Job:
    """One command: a run on one fold with one seed, or an evaluation of its checkpoint."""

    name: str  # `<name>-fold-<k>-seed-<s>`, with the test set or corruption before it for an evaluation
    recipe: str
    flags: tuple[str, ...]  # command-line arguments of the recipe
    folder: Path  # its run folder
    results: Path | None  # path without suffix to which its results are copied; None for no copy
    needs: tuple[str, ...]  # names of the jobs that must be finished before
    files: tuple[str, ...] = FILES  # that it writes at its end

    @property
    def command(self) -> list[str]:
        """Program and arguments."""
        return [sys.executable, str(recipe_path(self.recipe)), *self.flags]

    @property
    def has_results(self) -> bool:
        """Whether the files of a finished run exist."""
        return all((self.folder / file).exists() for file in self.files)


def main(args: SetArguments) -> int:
    """Run the unfinished jobs, or list them; returns the exit code, 1 if a run failed."""
    jobs = plan_jobs(args)
    finished = [job for job in jobs if is_finished(job)]
    unfinished = [job for job in jobs if job not in finished]
    if args.list:
        print("\n".join(shlex.join(job.command) for job in unfinished))
        return 0
    for job in finished:
        copy_results(job)
    print(f"{args.set}: {len(jobs)} runs, {len(finished)} of them finished", flush=True)
    failed = run_jobs(unfinished, args.jobs, args.threads)
    for name, reason in failed.items():
        print(f"\n{name} {reason}", flush=True)
    return 1 if failed else 0


def plan_jobs(args: SetArguments) -> list[Job]:
    """The requested jobs of a set, each after those that it needs."""
    run_set = yaml.safe_load(Path(args.set).read_text())
    runs = read_runs(run_set, args.set)
    if unknown := sorted(set(args.only) - set(runs)):
        raise ValueError(f"Expected `--only` among {list(runs)}, got {unknown}.")
    if wrong := [each for each in args.replace if "=" not in each]:
        raise ValueError(f"Expected `--replace` OLD=NEW, got {wrong}.")
    replacements = dict(each.split("=", 1) for each in args.replace)
    names, seeds_of = args.only or [*runs], {name: set[int]() for name in runs}
    for run in (runs[name] for name in names):
        selected = [seed for seed in run.seeds if not args.seeds or seed in args.seeds]
        seeds_of[run.name].update(selected)
        for needed in run.needed.values():
            seeds_of[needed].update(map(runs[needed].seed_for, selected))
    jobs: dict[tuple, list[Job]] = {}
    for place, run in enumerate(runs.values()):
        for fold, seed in product(run.folds, sorted(seeds_of[run.name])):
            if not args.folds or fold in args.folds:
                # The folds of a seed make up one test set, so all folds of a seed come before the next seed.
                jobs[run.priority, seed, fold, place] = jobs_of_run(run, fold, seed, runs, run_set, replacements)
    if not jobs:
        raise ValueError(f"Expected `--folds` and `--seeds` that {args.set} has, got {args.folds} and {args.seeds}.")
    by_name = {job.name: job for key in sorted(jobs) for job in jobs[key]}
    ordered: dict[str, Job] = {}

    def add(job: Job) -> None:
        for name in job.needs:
            add(by_name[name])
        ordered.setdefault(job.name, job)

    for job in by_name.values():
        add(job)
    return list(ordered.values())


def read_runs(run_set: dict[str, Any], file: str) -> dict[str, Run]:
    """The runs of a set by name."""
    common = {"folds": run_set["folds"], "seeds": run_set["seeds"]}
    runs = {name: Run(name=name, **{**common, **values}) for name, values in run_set["runs"].items()}
    recipes = [recipe for recipe in ARGUMENTS if recipe != "evaluate"]
    for run in runs.values():
        if run.recipe not in recipes:
            raise ValueError(f"{file}, {run.name}: expected a recipe among {recipes}, got {run.recipe!r}.")
        for argument, name in run.needed.items():
            needed = runs.get(name)
            if (
                needed is None
                or not {*run.folds} <= {*needed.folds}
                or not {*map(needed.seed_for, run.seeds)} <= {*needed.seeds}
            ):
                raise ValueError(
                    f"{file}, {run.name}: expected as `{argument}` a run on folds {run.folds} with one seed or seeds "
                    f"{run.seeds}, got {name!r}. Name another, or give it these folds and seeds."
                )
    return runs


def jobs_of_run(
    run: Run, fold: int, seed: int, runs: dict[str, Run], run_set: dict[str, Any], replacements: dict[str, str]
) -> list[Job]:
    """The job of one run on one fold with one seed, and its evaluations on other test sets and with corruptions."""
    output, name = Path(run_set["output"]), f"{run.name}-fold-{fold}-seed-{seed}"
    results = Path(run_set["results"]) if run.title else None
    protocol = run_set["protocol"].format(fold=fold)
    from_file = yaml.safe_load(Path(run.config).read_text()) if run.config else {}
    overrides = {**run_set.get("arguments", {}), **run.arguments, "output": str(output / name), "protocol": protocol}
    if run.recipe != "baseline":  # which is deterministic
        overrides["seed"] = seed
    needs = {key: f"{each}-fold-{fold}-seed-{runs[each].seed_for(seed)}" for key, each in run.needed.items()}
    overrides |= {key: str(output / each) for key, each in needs.items()}
    values = {key: replace_values(value, replacements) for key, value in {**from_file, **overrides}.items()}
    passed = {key: value for key, value in values.items() if key in overrides or value != from_file[key]}
    flags = [*(["--config", run.config] if run.config else []), *as_flags(passed)]
    copied = results / name if results else None
    files = FILES_WITHOUT_TEST if run.recipe == "pretrain_student" else FILES
    jobs = [Job(name, run.recipe, tuple(flags), output / name, copied, tuple(needs.values()), files)]
    if results is None or run.recipe in WITHOUT_CHECKPOINT:
        return jobs

    also_test = {test: replace_values(each, replacements) for test, each in run_set.get("also_test", {}).items()}
    evaluations = {test: {"protocol": each} for test, each in also_test.items() if each}
    if seed == run.seeds[0]:
        evaluations |= {each: {"protocol": protocol, "corruption": each} for each in run.corruptions}
    for evaluation, arguments in evaluations.items():
        passed = {key: values[key] for key in ("corpus", "corpus_path") if key in values} | arguments
        passed |= {"model": str(output / name / "checkpoints" / "last"), "plots": False}
        passed |= {"output": str(output / evaluation / name)}
        folder, copied = output / evaluation / name, results / evaluation / name
        jobs.append(Job(f"{evaluation}/{name}", "evaluate", tuple(as_flags(passed)), folder, copied, (name,)))
    return jobs


def recipe_path(recipe: str) -> Path:
    """File of a recipe, in `recipes/` or in `recipes/experiments/`."""
    return next(path for path in (RECIPES / f"{recipe}.py", RECIPES / "experiments" / f"{recipe}.py") if path.exists())


def as_flags(values: dict[str, Any]) -> list[str]:
    """Arguments as command-line flags."""
    flags = []
    for name, value in values.items():
        items = value if isinstance(value, list) else [value]
        flags += [f"--{name}", *(str(item).lower() if isinstance(item, bool) else str(item) for item in items)]
    return flags


def replace_values(value: Any, replacements: dict[str, str]) -> Any:
    """A value, or each value of a list, replaced if it is one of `replacements`."""
    if isinstance(value, list):
        return [replace_values(each, replacements) for each in value]
    return replacements.get(value, value) if isinstance(value, str) else value


@cache
def arguments_class(recipe: str) -> type:
    """Dataclass of the arguments of a recipe."""
    return runpy.run_path(str(recipe_path(recipe)))[ARGUMENTS[recipe]]


def is_finished(job: Job) -> bool:
    """Whether a run has finished in the job's folder; one of other arguments there is an error."""
    if not job.has_results:
        return False
    arguments = parse_arguments(arguments_class(job.recipe), [*job.flags])
    return RunFolder(job.folder, arguments, resume=True).finished is not None


def run_jobs(jobs: list[Job], parallel: int, threads: int) -> dict[str, str]:
    """Run jobs, each after those that it needs; returns the reasons of the failed ones by name."""
    futures: dict[str, Future[str]] = {}

    def run(number: int, job: Job) -> str:
        for name in job.needs:
            if name in futures and futures[name].result():  # starts earlier, so that it can be waited for
                return f"was not run, because it needs {name}."
        begin = time.monotonic()
        reason = execute(job, threads)
        outcome = "failed" if reason else f"{time.monotonic() - begin:.0f} s, {copy_results(job)}"
        print(f"[{number}/{len(jobs)}] {job.name}: {outcome}", flush=True)
        return reason

    with ThreadPoolExecutor(parallel) as pool:
        try:
            for number, job in enumerate(jobs, start=1):
                futures[job.name] = pool.submit(run, number, job)
            return {name: reason for name, future in futures.items() if (reason := future.result())}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def execute(job: Job, threads: int) -> str:
    """Run the command of one job; returns the reason if it failed, with the end of its log, else an empty string."""
    job.folder.mkdir(parents=True, exist_ok=True)
    path = job.folder / "log.txt"
    with path.open("a") as log:
        print(shlex.join(job.command), file=log, flush=True)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        code = subprocess.run(job.command, stdout=log, stderr=subprocess.STDOUT, env=environment).returncode
    if code == 0 and job.has_results:
        return ""
    lines = path.read_text().replace("\r", "\n").splitlines()[-LAST_LINES:]
    return "\n    ".join([f"failed with exit code {code}; the end of {path}:", *lines])


def copy_results(job: Job) -> str:
    """Copy results and predictions of a finished job to the results of the set; returns its main scores as text."""
    if job.results is not None:
        job.results.parent.mkdir(parents=True, exist_ok=True)
        for file in FILES:
            shutil.copyfile(job.folder / file, f"{job.results}{Path(file).suffix}")
    scores = json.loads((job.folder / "results.json").read_text()).get("test", {})
    return ", ".join(f"{name} {scores[name]:.3f}" for name in PRINTED_METRICS if name in scores)


if __name__ == "__main__":
    sys.exit(main(parse_arguments(SetArguments)))
