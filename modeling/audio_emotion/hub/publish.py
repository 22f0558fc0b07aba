"""Assemble a publishable folder from a run, and upload it to the Hub."""

from __future__ import annotations

import json
import re
import shutil
from filecmp import cmp
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi, RepoCard

from audio_emotion.checkpoint_loading import ADAPTER
from audio_emotion.data.corpora.corpus_info import CorpusInfo
from audio_emotion.feature_extraction_emotion import EmotionFeatureExtractor
from audio_emotion.hub.adapters import record_base_encoders, replace_weights_by_adapter
from audio_emotion.hub.card import render_card
from audio_emotion.hub.card_facts import holds_whisper, metric_facts, model_facts, model_kind, pseudo_label_facts
from audio_emotion.hub.card_sections import scored_split
from audio_emotion.hub.checkpoint import write_checkpoint
from audio_emotion.hub.checks import RepositoryType, check_published, load_strictly
from audio_emotion.hub.onnx_export import can_export, export_onnx
from audio_emotion.hub.private_names import without_private_names
from audio_emotion.hub.published_scores import add_report, write_eval_results
from audio_emotion.hub.space import assemble_space, holds_model

ROWS_PER_FILE = 100_000  # of a data set
# In a card, what precedes the id that the model or data set is loaded from.
BEFORE_ID = r"(?:(?<=load_dataset\(\")|(?<=, model=\")|(?<= --model )|(?<=audio-emotion info ))"
LOADED_FROM = re.compile(r"(?:load_dataset\(|pipeline\(\"audio-emotion\", model=)\"([^\"]+)\"")


def assemble(
    source: Path,
    folder: Path,
    repo: str,
    kind: RepositoryType = "model",
    which: str = "last",
    adapter_only: bool = False,
    runtime: Path | None = None,
    benchmark: str = "",
    report: Path | None = None,
) -> Path:
    """Write the content of a repository to a folder.

    Args:
        source: a run folder; the folder of a metric module (`space`); or a folder that is complete, with its card.
        folder: output folder, not used for a complete source that needs no change; an earlier output is replaced.
        repo: `owner/name` on the Hub, which the code in the card loads from.
        kind: `"model"` publishes a checkpoint of the run, `"dataset"` its `teacher_outputs/`, `"space"` a metric, or
            of a run or checkpoint a page or an app that runs the model.
        which: `"best"` or `"last"` checkpoint of the run; the scores of the run are of the last.
        adapter_only: leave out the pretrained encoders of a run with LoRA.
        runtime: own copy of the browser's runtime for a page, see `find_runtime`.
        benchmark: data set on the Hub with `eval.yaml`, of which the protocol of the run is a task; empty for none.
        report: folder of an evaluation report whose first model this is, for the card.

    Returns:
        `folder`, or `source` if that is complete and its card loads from `repo`.

    Raises:
        ValueError: if something is missing, inconsistent, or must not be published.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ValueError(f"Expected a repository as owner/name, got {repo!r}.")
    is_space_of_model = kind == "space" and holds_model(source)
    complete, card = is_complete(source) and not is_space_of_model, ""
    if complete:
        if adapter_only and not (source / ADAPTER).is_dir():
            raise ValueError(f"Expected a run folder to take the adapters from, got {source}, which is complete.")
        original = (source / "README.md").read_text(encoding="utf-8")
        card = _replace_id(original, repo)
        check_published(source, kind)  # before copying, which would replace links by their targets
        if card == original:
            return source
    elif adapter_only and kind != "model":
        raise ValueError(f"Expected `--adapter-only` with a model, got it with a {kind}. Leave it out.")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / "README.md").is_file():
            raise ValueError(f"Expected an empty folder to write to, or an earlier output, got {folder}.")
        shutil.rmtree(folder)
    try:
        if complete:
            shutil.copytree(source, folder, dirs_exist_ok=True)
            (folder / "README.md").write_text(card, encoding="utf-8")
            return folder
        folder.mkdir(parents=True, exist_ok=True)
        if kind == "model":
            return _assemble_model(source, folder, repo, which, adapter_only, benchmark, report)
        if kind == "dataset":
            return _assemble_pseudo_labels(source, folder, repo, which)
        if is_space_of_model:
            return assemble_space(source, folder, repo, which, runtime)
        return _assemble_metric(source, folder, repo)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # without its card, the next call would refuse to replace it
        raise


def is_complete(source: Path) -> bool:
    """Whether a folder can be published as it is: it has a card and is no run folder."""
    return (source / "README.md").is_file() and not (source / "checkpoints").is_dir()


def upload(
    folder: Path,
    repo: str,
    kind: RepositoryType = "model",
    private: bool = False,
    branch: str | None = None,
    tag: str | None = None,
) -> str:
    """Make a repository equal to a folder, in one commit or, for very large folders, several.

    After an interruption the same call continues: files that the Hub has are not sent again.

    Args:
        folder: from `assemble`.
        repo: `owner/name`; created if missing.
        kind: of the repository.
        private: whether the repository has to be private.
        branch: to commit to; created from the main branch if missing.
        tag: a new tag for the commit.

    Returns:
        The hash of the commit, to be pinned as `revision`.

    Raises:
        ValueError: if the tag exists, or a repository that has to be private is public.
        OSError: if the Hub refuses.
    """
    api = HfApi()
    sdk = {"space_sdk": RepoCard.load(folder / "README.md").data.sdk} if kind == "space" else {}
    api.create_repo(repo, repo_type=kind, private=private or None, exist_ok=True, **sdk)
    if private and not api.repo_info(repo, repo_type=kind).private:
        raise ValueError(f"Expected {repo} to be private, got a public repository. Change that on the Hub first.")
    if tag and tag in [each.name for each in api.list_repo_refs(repo, repo_type=kind).tags]:
        raise ValueError(f"Expected a new tag, got {tag!r}, which {repo} has. Tags do not move: choose another.")
    if branch:
        api.create_branch(repo, branch=branch, repo_type=kind, exist_ok=True)
    commit = api.upload_folder(
        repo_id=repo,
        folder_path=folder,
        repo_type=kind,
        revision=branch,
        delete_patterns="*",  # files of an earlier publication that this one does not have
        commit_message=f"Publish with audio-emotion {version('audio-emotion')}",
    )
    if tag:
        api.create_tag(repo, tag=tag, revision=commit.oid, repo_type=kind)
    return commit.oid


def _assemble_model(
    run_folder: Path,
    folder: Path,
    repo: str,
    which: str,
    adapter_only: bool,
    benchmark: str,
    report: Path | None,
) -> Path:
    """A checkpoint with its code, card, results, plots and the configuration of its run."""
    checkpoint = run_folder / "checkpoints" / which
    if not checkpoint.is_dir():
        present = sorted(each.name for each in (run_folder / "checkpoints").glob("*")) or "no checkpoint"
        raise ValueError(f"Expected a run folder with checkpoints/{which}, got {present} in {run_folder}.")
    model = load_strictly(checkpoint)
    own = _run_corpora(run_folder)
    results = without_private_names(_read_results(run_folder), own)
    model.config.training_data = without_private_names(model.config.training_data, own)
    has_feature_extractor = (checkpoint / "preprocessor_config.json").is_file()  # an adapter alone has none
    if adapter_only:
        record_base_encoders(model, checkpoint)
    feature_extractor = EmotionFeatureExtractor.from_pretrained(checkpoint) if has_feature_extractor else None
    write_checkpoint(model, folder, feature_extractor)
    if adapter_only:
        replace_weights_by_adapter(folder, checkpoint, model, encoder_folders(run_folder))
    else:
        _write_endpoint_handler(folder)
        if can_export(model):
            export_onnx(model.float(), folder / "onnx")
        if holds_whisper(model.config):
            shutil.copyfile(Path(__file__).with_name("LICENSE-whisper"), folder / "LICENSE-whisper")
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    _write_training_configuration(run_folder, folder)
    plots = []
    for plot in sorted((run_folder / "plots").glob("*.png")):
        (folder / "plots").mkdir(exist_ok=True)
        shutil.copyfile(plot, folder / "plots" / plot.name)
        plots.append(f"plots/{plot.name}")
    megabytes = sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 1e6
    facts = model_facts(model, repo, results, megabytes, plots, _has_last_weights(run_folder, checkpoint))
    if adapter_only:
        facts["adapter_encoders"] = [each for each in model.config.streams if each["kind"] == "encoder"]
    if report is not None:
        facts["report"] = add_report(report, folder, model)
    if benchmark:
        if not facts["eval_results"]:
            raise ValueError(
                "Expected scores of these weights on speakers that neither they nor a teacher were trained on, got "
                "none in results.json. Leave `--benchmark` out."
            )
        split, scores = scored_split(results)
        write_eval_results(folder, benchmark, repo, results, split, scores)
    card = render_card(model_kind(model.config), facts, own)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


def _write_endpoint_handler(folder: Path) -> None:
    """Write what Inference Endpoints run, and what they install for it; torch is in their image."""
    shutil.copyfile(Path(__file__).with_name("endpoint_handler.py"), folder / "handler.py")
    needed = [
        each for each in requires("audio-emotion") or () if re.match("(transformers|numpy|soundfile|soxr)\\b", each)
    ]
    (folder / "requirements.txt").write_text("\n".join(sorted(needed)) + "\n", encoding="utf-8")


def _assemble_pseudo_labels(run_folder: Path, folder: Path, repo: str, which: str) -> Path:
    """The teacher outputs of a run as Parquet, with a card; clips are referenced by id and not contained."""
    from datasets import Dataset  # slow to import, and not needed for a model

    from audio_emotion.teachers.outputs import TeacherOutputs

    if not (run_folder / "teacher_outputs" / "teacher_outputs.json").is_file():
        raise ValueError(
            f"Expected a teacher's run folder with teacher_outputs/ in it, got {run_folder}. Let the run of "
            "recipes/train_teacher.py end; of a run of recipes/pseudo_label.py, publish its folder dataset/."
        )
    config_file = run_folder / "checkpoints" / which / "config.json"
    if not config_file.is_file():
        raise ValueError(
            f"Expected {config_file}, which holds the license and the dimensions for the card, got none. A run of "
            "recipes/experiments/face_teacher.py keeps no checkpoint: its outputs are for recipes/distill.py."
        )
    outputs, own = TeacherOutputs.load(run_folder / "teacher_outputs").of_clips(), _run_corpora(run_folder)
    results = without_private_names(_read_results(run_folder), own)
    outputs.training_data = without_private_names(outputs.training_data, own)
    config = json.loads(config_file.read_text(encoding="utf-8"))
    probabilities = outputs.logits.float().softmax(-1)  # (N, C)
    dimensions = outputs.dimensions.float()  # (N, A)
    columns: dict[str, Any] = {"id": outputs.ids, "teacher": outputs.teacher.tolist()}
    columns |= {name: dimensions[:, column].tolist() for column, name in enumerate(config["dimensions"])}
    if outputs.emotions:
        columns["emotion"] = [outputs.emotions[index] for index in probabilities.argmax(-1).tolist()]
        columns["probabilities"] = [dict(zip(outputs.emotions, row, strict=True)) for row in probabilities.tolist()]
    columns["embedding"] = outputs.embedding.float().tolist()
    table = Dataset.from_dict(columns)
    num_files = -(-len(table) // ROWS_PER_FILE)
    (folder / "data").mkdir()
    for number in range(num_files):
        path = folder / "data" / f"train-{number:05d}-of-{num_files:05d}.parquet"
        table.shard(num_files, number).to_parquet(path)
    _write_training_configuration(run_folder, folder)
    card = render_card("pseudo_labels", pseudo_label_facts(outputs, config, repo, results), own)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


def _assemble_metric(source: Path, folder: Path, repo: str) -> Path:
    """A metric module under the name of its repository, which `evaluate.load` expects."""
    module = source / f"{source.name}.py"
    if not module.is_file():
        raise ValueError(f"Expected a metric's folder with {module.name} in it, got {source}.")
    shutil.copyfile(module, folder / f"{repo.partition('/')[2]}.py")
    (folder / "README.md").write_text(render_card("metric", metric_facts(module, repo)), encoding="utf-8")
    return folder


def _replace_id(card: str, repo: str) -> str:
    """A card of this package with code that loads from `repo`; any other card unchanged."""
    found = LOADED_FROM.search(card)
    if not found or "`audio-emotion`" not in card:
        return card
    return re.sub(rf"{BEFORE_ID}{re.escape(found[1])}(?=[\"\s])", repo, card)


def encoder_folders(run_folder: Path) -> dict[str, str]:
    """Local folders of the pretrained encoders of a run, by name of the stream."""
    path = run_folder / "config.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {Path(source).name: source for source in values.get("encoders", []) if Path(source).is_dir()}


def _run_corpora(run_folder: Path) -> dict[str, CorpusInfo]:
    """The corpora that a run was trained on, by name: known ones, and those that files describe.

    Raises:
        ValueError: if such a file does not exist.
    """
    from audio_emotion.data.registry import CORPORA, corpus_info  # slow: imports `datasets`

    values = yaml.safe_load((run_folder / "config.yaml").read_text(encoding="utf-8"))
    corpora = {}
    for name in filter(None, [values.get("corpus", ""), *(each.partition("=")[0] for each in values.get("mix", []))]):
        if not name.endswith(".yaml") and name.split("/")[0] not in CORPORA:
            continue  # registered by a program that is not running
        copy = run_folder / re.split(r"[/\\]", name)[-1]
        try:
            info = corpus_info(str(copy) if name.endswith(".yaml") and copy.is_file() else name)
        except OSError as error:
            raise ValueError(
                f"Expected `{name}`, the description of a training corpus that the card cites, got no such "
                f"file. Publish from the folder in which the run was started, or copy the file to `{copy}`."
            ) from error
        corpora[info.name] = info
    return corpora


def _has_last_weights(run_folder: Path, checkpoint: Path) -> bool:
    """Whether a checkpoint has the last weights of the run, which are the ones that the run has scored."""
    last = run_folder / "checkpoints" / "last"
    names = [path.name for path in checkpoint.glob("*.safetensors")]
    return all((last / name).is_file() and cmp(checkpoint / name, last / name, shallow=False) for name in names)


def _read_results(run_folder: Path) -> dict[str, Any]:
    """`results.json` of a finished run.

    Raises:
        ValueError: if there is none.
    """
    path = run_folder / "results.json"
    if not path.is_file():
        raise ValueError(f"Expected {path}, got none: a card needs results. Let the run end, or evaluate it first.")
    return json.loads(path.read_text(encoding="utf-8"))


def _write_training_configuration(run_folder: Path, folder: Path) -> None:
    """Write the run's configuration, which the training command in the card refers to, without paths."""
    values = without_private_names(yaml.safe_load((run_folder / "config.yaml").read_text(encoding="utf-8")))
    (folder / "training").mkdir()
    (folder / "training" / "config.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
