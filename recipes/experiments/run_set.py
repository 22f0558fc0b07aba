"""Run a set of recipes over folds and seeds, several at once, a student after its teacher.

    python recipes/experiments/run_set.py --set recipes/configs/mitra2022/ravdess.yaml --jobs 2

The set, a YAML file, names the runs; docs/mitra2022.md explains its keys. A run writes to
`<output>/<name>-fold-<k>-seed-<s>`, what it prints goes into `log.txt` there. Finished runs are left alone and killed
ones go on, so the same command continues a set that was stopped; the same set may also be started twice, each run is
trained once. Of a finished run `results.json` and `predictions.parquet` are copied to the set's `results` as
`<name>-fold-<k>-seed-<s>.json` and `.parquet`, from which `recipes/experiments/table.py` renders the table.
"""

import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.dataclasses import strict

from audio_emotion.training.arguments import parse_arguments

RECIPES = Path(__file__).parents[1]
RECIPES = ("baseline", "train_teacher", "distill")
FILES = ("predictions.parquet", "results.json")  # that a finished run leaves
LAST_LINES = 15  # of the log of a failed run, shown at the end
SHOWN = ("uar", "ccc_activation", "ccc_valence", "ccc_dominance")  # of a finished run


@strict
@dataclass(kw_only=True)
class SetArguments:
    """Which set is run, which part of it, and how much at once."""

    set: str = field(default="recipes/configs/mitra2022/ravdess.yaml", metadata={"help": "File that names the runs."})
    jobs: int = field(default=1, metadata={"help": "Runs at once."})
    threads: int = field(default=1, metadata={"help": "Threads of each run."})
    only: list[str] = field(default_factory=list, metadata={"help": "Runs by name, and the teachers that they need."})
    folds: list[int] = field(default_factory=list, metadata={"help": "These folds only."})
    seeds: list[int] = field(default_factory=list, metadata={"help": "These seeds only."})
    replace: list[str] = field(
        default_factory=list,
        metadata={"help": "WORD=OTHER for every value that is WORD: openai/whisper-tiny.en=FOLDER."},
    )


@strict
@dataclass(kw_only=True)
class Run:
    """One row of a set.

    Attributes:
        name: of its folders and files.
        recipe: one of `RECIPES`.
        title: in the table; a run without one is there for others, and is no row.
        config: file of its arguments.
        arguments: in place of single ones of that file.
        teacher: name of the run whose output of the same fold and seed is its teacher.
        folds: on which it is run.
        seeds: with which it is run.
        conditions: under which the first seed's checkpoints are evaluated too, as `evaluate.py` names them.
        priority: runs of a lower number come first.
    """

    name: str
    recipe: str
    title: str = ""
    config: str = ""
    arguments: dict = field(default_factory=dict)
    teacher: str = ""
    folds: list[int]
    seeds: list[int]
    conditions: list[str] = field(default_factory=list)
    priority: int = 0


@dataclass(frozen=True)
class Job:
    """One run on one fold with one seed, or the evaluation of what it has trained.

    Attributes:
        name: `<name>-fold-<k>-seed-<s>`, with the test set before it where that is not the run's own.
        command: that runs it.
        folder: its run folder.
        results: where its files are copied, without their ending; None if they are not.
        needs: name of the job that has to be finished before.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    results: Path | None
    needs: str | None

    @property
    def finished(self) -> bool:
        """Whether it has ended well, now or earlier."""
        return all((self.folder / file).exists() for file in FILES)


def main(args: SetArguments) -> int:
    """Run what is not finished yet; returns the exit code, 1 if a run has failed."""
    jobs = plan(args)
    before = [job for job in jobs if job.finished]
    for job in before:
        copy_results(job)
    print(f"{args.set}: {len(jobs)} runs, {len(before)} of them finished", flush=True)
    failed = run_all(jobs, args.jobs, args.threads)
    for name, why in failed.items():
        print(f"\n{name} {why}", flush=True)
    return 1 if failed else 0


def plan(args: SetArguments) -> list[Job]:
    """Every job of a set that is asked for, in the order in which they are started if nothing is missing.

    Raises:
        ValueError: for a set that contradicts itself, and for names, folds or seeds that it does not have.
    """
    whole = yaml.safe_load(Path(args.set).read_text())
    runs = read_runs(whole, args.set)
    if unknown := sorted(set(args.only) - set(runs)):
        raise ValueError(f"Expected `--only` among {list(runs)}, got {unknown}.")
    if wrong := [each for each in args.replace if "=" not in each]:
        raise ValueError(f"Expected `--replace` WORD=OTHER, got {wrong}.")
    words = dict(each.split("=", 1) for each in args.replace)
    wanted = args.only or [*runs]
    wanted = [*wanted, *(runs[name].teacher for name in wanted if runs[name].teacher)]  # a teacher has no teacher
    places = list(runs)
    jobs = []
    for name in dict.fromkeys(wanted):
        run = runs[name]
        for fold in [fold for fold in run.folds if not args.folds or fold in args.folds]:
            for seed in [seed for seed in run.seeds if not args.seeds or seed in args.seeds]:
                # All folds of a seed make one set of test clips, so a seed is brought to its end before the next.
                key = (run.priority, seed, fold, places.index(name))
                jobs += [(key, job) for job in jobs_of(run, fold, seed, whole, words)]
    if not jobs:
        raise ValueError(f"Expected `--folds` and `--seeds` that {args.set} has, got {args.folds} and {args.seeds}.")
    return [job for _, job in sorted(jobs, key=lambda each: each[0])]


def read_runs(whole: dict[str, Any], file: str) -> dict[str, Run]:
    """The runs of a set by name.

    Raises:
        ValueError: for an unknown recipe, or a teacher that is not there on every fold and seed of its student.
    """
    common = {"folds": whole["folds"], "seeds": whole["seeds"]}
    runs = {name: Run(name=name, **{**common, **values}) for name, values in whole["runs"].items()}
    for run in runs.values():
        if run.recipe not in RECIPES:
            raise ValueError(f"{file}, {run.name}: expected a recipe among {list(RECIPES)}, got {run.recipe!r}.")
        if not run.teacher:
            continue
        teacher = runs.get(run.teacher)
        if teacher is None or not (set(run.folds) <= set(teacher.folds) and set(run.seeds) <= set(teacher.seeds)):
            raise ValueError(
                f"{file}, {run.name}: expected a teacher that is run on folds {run.folds} and seeds {run.seeds}, got "
                f"{run.teacher!r}. Name another, or give it these folds and seeds."
            )
    return runs


def jobs_of(run: Run, fold: int, seed: int, whole: dict[str, Any], words: dict[str, str]) -> list[Job]:
    """The job of one run on one fold with one seed, and its evaluations on other test sets and under conditions."""
    output, name = Path(whole["output"]), f"{run.name}-fold-{fold}-seed-{seed}"
    results = Path(whole["results"]) if run.title else None
    split = whole["split"].format(fold=fold)
    configured = yaml.safe_load(Path(run.config).read_text()) if run.config else {}
    values = {**whole.get("arguments", {}), **run.arguments, "output": str(output / name), "split": split}
    if run.recipe != "baseline":  # in which nothing is random
        values["seed"] = seed
    needs = f"{run.teacher}-fold-{fold}-seed-{seed}" if run.teacher else None
    if needs:
        values["teacher"] = str(output / needs)
    resolved = {key: replaced(value, words) for key, value in {**configured, **values}.items()}
    said = {key: value for key, value in resolved.items() if key in values or value != configured[key]}
    command = [*script(run.recipe), *(["--config", run.config] if run.config else []), *flags(said)]
    jobs = [Job(name, tuple(command), output / name, results / name if results else None, needs)]
    if not run.title or run.recipe == "baseline":  # which leaves no checkpoint
        return jobs
    tests = {test: {"split": replaced(other, words)} for test, other in whole.get("also_test", {}).items()}
    tests = {test: values for test, values in tests.items() if values["split"]}
    if seed == run.seeds[0]:
        tests |= {each: {"split": split, "condition": each} for each in run.conditions}
    for test, values in tests.items():
        said = {key: resolved[key] for key in ("corpus", "corpus_path") if key in resolved} | values
        said |= {"model": str(output / name / "checkpoints" / "last"), "pictures": False}
        said |= {"output": str(output / test / name)}
        command = [*script("evaluate"), *flags(said)]
        jobs.append(Job(f"{test}/{name}", tuple(command), output / test / name, results / test / name, name))
    return jobs


def script(recipe: str) -> list[str]:
    """The beginning of a command."""
    return [
        sys.executable,
        str(
            next(
                path for path in (RECIPES / f"{recipe}.py", RECIPES / "experiments" / f"{recipe}.py") if path.exists()
            )
        ),
    ]


def flags(values: dict[str, Any]) -> list[str]:
    """Arguments as they are typed."""
    typed = []
    for name, value in values.items():
        each = value if isinstance(value, list) else [value]
        typed += [f"--{name}", *(str(one).lower() if isinstance(one, bool) else str(one) for one in each)]
    return typed


def replaced(value: Any, words: dict[str, str]) -> Any:
    """A value, or the values of a list, with other words in place of some."""
    if isinstance(value, list):
        return [replaced(each, words) for each in value]
    return words.get(value, value) if isinstance(value, str) else value


def run_all(jobs: list[Job], at_once: int, threads: int) -> dict[str, str]:
    """Run jobs in their order, each when what it needs is finished; returns the failed ones, and why."""
    waiting = [job for job in jobs if not job.finished]
    done, failed = {job.name for job in jobs if job.finished}, {}
    running: dict[Future, Job] = {}
    processes: list[subprocess.Popen] = []
    with ThreadPoolExecutor(at_once) as pool:
        try:
            while waiting or running:
                for job in [job for job in waiting if job.needs in failed]:
                    waiting.remove(job)
                    failed[job.name] = f"was not run, for it needs {job.needs}."
                ready = [job for job in waiting if job.needs is None or job.needs in done]
                for job in ready[: at_once - len(running)]:
                    waiting.remove(job)
                    running[pool.submit(execute, job, threads, processes)] = job
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    if why := failure(job, future):
                        failed[job.name] = why
                    else:
                        done.add(job.name)
                        copy_results(job)
                    ended = "failed" if why else f"{future.result():.0f} s, {headline(job)}"
                    print(f"[{len(done) + len(failed)}/{len(jobs)}] {job.name}: {ended}", flush=True)
        finally:
            for process in processes:  # those that have ended are not harmed
                process.terminate()
    return failed


def execute(job: Job, threads: int, processes: list[subprocess.Popen]) -> float:
    """Run one job to its end, well or not; returns its seconds."""
    begin = time.monotonic()
    job.folder.mkdir(parents=True, exist_ok=True)
    with (job.folder / "log.txt").open("a") as log:
        # The process inherits the lock, and keeps it if this one dies: whoever comes by waits for its end.
        fcntl.flock(log, fcntl.LOCK_EX)
        if not job.finished:
            print(shlex.join(job.command), file=log, flush=True)
            environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
            process = subprocess.Popen(job.command, stdout=log, stderr=subprocess.STDOUT, env=environment)
            processes.append(process)
            process.wait()
    return time.monotonic() - begin


def failure(job: Job, future: Future) -> str | None:
    """Why a job has failed, with the end of its log; None if it has not."""
    if future.exception() is None and job.finished:
        return None
    log = job.folder / "log.txt"
    lines = log.read_text().replace("\r", "\n").splitlines() if log.exists() else []
    reason = f" ({future.exception()})" if future.exception() else ""
    return "\n".join([f"failed{reason}; the end of {log}:", *(f"    {line}" for line in lines[-LAST_LINES:])])


def copy_results(job: Job) -> None:
    """Put a finished run's numbers and predictions where the table is made from."""
    if job.results is None:
        return
    job.results.parent.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        shutil.copyfile(job.folder / file, f"{job.results}{Path(file).suffix}")


def headline(job: Job) -> str:
    """The test scores of a finished job in one line."""
    scores = json.loads((job.folder / "results.json").read_text()).get("test", {})
    return ", ".join(f"{name} {scores[name]:.3f}" for name in SHOWN if name in scores)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes are ended, too
    sys.exit(main(parse_arguments(SetArguments)))
