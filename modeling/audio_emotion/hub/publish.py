"""The command `publish`: assemble, check, then upload and tag, unless it is a dry run."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from filecmp import cmp
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
import yaml
from huggingface_hub import HfApi
from transformers import PreTrainedModel
from transformers.utils import CONFIG_NAME, cached_file, extract_commit_hash, logging

import audio_emotion
from audio_emotion.feature_extraction_emotion import EmotionFeatureExtractor
from audio_emotion.hub.card import Template, render_card
from audio_emotion.hub.card_sections import metric_facts, model_facts, pseudo_label_facts
from audio_emotion.hub.checkpoint import BASE_ENCODERS, write_checkpoint
from audio_emotion.hub.checks import RepositoryType, check_files, check_folder, load_strictly
from audio_emotion.pretrained_emotion import ADAPTER
from audio_emotion_cli import FINE, UsageError

ROWS_A_FILE = 100_000  # of a data set
# The words in a card after which stands from where it is loaded.
BEFORE_ADDRESS = r"(?:(?<=load_dataset\(\")|(?<=, model=\")|(?<= --model )|(?<=audio-emotion info ))"
ADDRESS = re.compile(r"(?:load_dataset\(|pipeline\(\"audio-emotion\", model=)\"([^\"]+)\"")


def assemble(
    source: Path,
    folder: Path,
    repo: str,
    kind: RepositoryType = "model",
    which: str = "last",
    adapter_only: bool = False,
) -> Path:
    """Write what will be published.

    Args:
        source: a run folder; a folder of a metric module (`space`); or one that is complete already, with its card.
        folder: where to write, outside of one that is complete already; what an earlier call has written there is
            replaced.
        repo: `owner/name` on the Hub: the card tells how to load it.
        kind: `"model"` writes a checkpoint of the run, `"dataset"` its `teacher_outputs/` as pseudo-labels, `"space"`
            a metric.
        which: `"best"` or `"last"` checkpoint of the run; the run has scored the last.
        adapter_only: of a run with LoRA, leave the pretrained encoders out.

    Returns:
        the folder: `folder`, or `source` where that is complete already and its card loads from `repo`.

    Raises:
        ValueError: where something is missing, does not fit, or may not be published.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ValueError(f"Expected a repository as owner/name, got {repo!r}.")
    complete, card = is_complete(source), ""
    if complete:
        if adapter_only and not (source / ADAPTER).is_dir():
            raise ValueError(f"Expected a run folder to take the adapters from, got {source}, which is complete.")
        told = (source / "README.md").read_text(encoding="utf-8")
        card = _loading_from(told, repo)
        if card == told:
            return source
        check_files(source)  # links above all: a copy would hide them
    elif adapter_only and kind != "model":
        raise ValueError(f"Expected `--adapter-only` with a model, got it with a {kind}. Leave it out.")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / "README.md").is_file():
            raise ValueError(f"Expected an empty folder to write to, or an earlier publication, got {folder}.")
        shutil.rmtree(folder)
    try:
        if complete:
            shutil.copytree(source, folder, dirs_exist_ok=True)
            (folder / "README.md").write_text(card, encoding="utf-8")
            return folder
        folder.mkdir(parents=True, exist_ok=True)
        if kind == "model":
            return _assemble_model(source, folder, repo, which, adapter_only)
        if kind == "dataset":
            return _assemble_pseudo_labels(source, folder, repo, which)
        return _assemble_metric(source, folder, repo)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # half of it would be taken for somebody else's the next time
        raise


def is_complete(source: Path) -> bool:
    """Whether a folder is what will be published, with its card, and no run."""
    return (source / "README.md").is_file() and not (source / "checkpoints").is_dir()


def _loading_from(card: str, repo: str) -> str:
    """A card of ours whose code loads from a repository, and no longer from a folder or from another one."""
    found = ADDRESS.search(card)
    if not found or "`audio-emotion`" not in card:  # in the cards of others it may be anything
        return card
    return re.sub(rf"{BEFORE_ADDRESS}{re.escape(found[1])}(?=[\"\s])", repo, card)


def _assemble_model(run_folder: Path, folder: Path, repo: str, which: str, adapter_only: bool) -> Path:
    """A checkpoint with its code, card, results, plots and the configuration of its run."""
    checkpoint = run_folder / "checkpoints" / which
    if not checkpoint.is_dir():
        there = sorted(each.name for each in (run_folder / "checkpoints").glob("*")) or "no checkpoint"
        raise ValueError(f"Expected a run folder with checkpoints/{which}, got {there} in {run_folder}.")
    results = _read_results(run_folder)
    model = load_strictly(checkpoint)
    has_front_end = (checkpoint / "preprocessor_config.json").is_file()  # an adapter alone need not
    if adapter_only:
        _name_base_encoders(model, checkpoint)
    write_checkpoint(model, folder, EmotionFeatureExtractor.from_pretrained(checkpoint) if has_front_end else None)
    if adapter_only:
        _leave_encoders_out(folder, checkpoint, model, encoder_folders(run_folder))
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    _write_training_configuration(run_folder, folder)
    plots = []
    for picture in sorted(run_folder.rglob("*.png")):
        inside = picture.relative_to(run_folder)
        if not {"checkpoints", "published", "state"} & set(inside.parts):
            (folder / "plots").mkdir(exist_ok=True)
            shutil.copyfile(picture, folder / "plots" / picture.name)
            plots.append(f"plots/{picture.name}")
    megabytes = sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 1e6
    facts = model_facts(model, repo, results, megabytes, plots, _are_the_last(run_folder, checkpoint))
    template: Template = "student" if model.config.model_type == "student-emotion" else "teacher"
    card = render_card(template, facts, _citations(run_folder))
    if adapter_only:
        needed = [each for each in model.config.streams if each["kind"] == "encoder"]
        section = render_card("adapter", {"model_id": repo, "encoders": needed})
        card = card.replace("\n## What comes out\n", f"\n{section}\n## What comes out\n", 1)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


def _name_base_encoders(model: PreTrainedModel, checkpoint: Path) -> None:
    """Write into a teacher's configuration over which encoders its adapters were trained, to the bit.

    Raises:
        ValueError: where the checkpoint keeps no adapters.
    """
    path = checkpoint / ADAPTER / BASE_ENCODERS
    if not path.is_file():
        raise ValueError(
            f"Expected the checkpoint of a run with `--tuning lora`, with its adapters in {ADAPTER}/, got none in "
            f"{checkpoint}. Publish the whole model: leave `--adapter-only` out."
        )
    digests = json.loads(path.read_text(encoding="utf-8"))
    for stream in model.config.streams:
        if stream["kind"] == "encoder":
            stream["base_sha256"] = digests[stream["name"]]
            if stream["revision"] is None and stream["source"].count("/") == 1:
                # The newest; that it is the one of the training is proved by the digest when it is loaded.
                path = cached_file(stream["source"], CONFIG_NAME)
                stream["revision"] = extract_commit_hash(path, None)


def _leave_encoders_out(folder: Path, checkpoint: Path, model: PreTrainedModel, encoders: dict[str, str]) -> None:
    """Put the adapters in place of the weights, and prove that they and the encoders make the same model.

    Raises:
        ValueError: where they do not.
    """
    for weights in folder.glob("model*.safetensors*"):
        weights.unlink()
    shutil.copytree(checkpoint / ADAPTER, folder / ADAPTER, ignore=shutil.ignore_patterns(BASE_ENCODERS))
    ours = load_strictly(folder, encoders).state_dict()
    differing = [
        name
        for name, tensor in model.state_dict().items()
        if not name.endswith("masked_spec_embed") and not torch.allclose(ours[name], tensor, rtol=1e-5, atol=1e-5)
    ]
    if differing:
        raise ValueError(
            f"Expected adapters that make the weights of {checkpoint}, got others for {differing}. Train again, or "
            "publish the whole model: leave `--adapter-only` out."
        )


def encoder_folders(run_folder: Path) -> dict[str, str]:
    """By the name of its stream, the folder from which a run took a pretrained encoder."""
    path = run_folder / "config.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {Path(source).name: source for source in values.get("encoders", []) if Path(source).is_dir()}


def _assemble_pseudo_labels(run_folder: Path, folder: Path, repo: str, which: str) -> Path:
    """What a run's teachers said of clips, as Parquet; the clips themselves are named and not contained."""
    from datasets import Dataset  # slow to import, and of no use to a model

    from audio_emotion.teachers.outputs import TeacherOutputs

    if not (run_folder / "teacher_outputs" / "teacher_outputs.json").is_file():
        raise ValueError(
            f"Expected a teacher's run folder with teacher_outputs/ in it, got {run_folder}. Let the run of "
            "recipes/train_teacher.py end; of one of recipes/pseudo_label.py, publish the folder dataset/ in it."
        )
    told = run_folder / "checkpoints" / which / "config.json"
    if not told.is_file():
        raise ValueError(
            f"Expected {told}, from which the card tells terms and dimensions, got none. A run of "
            "recipes/experiments/face_teacher.py keeps no checkpoint: what it says is for recipes/distill.py."
        )
    said = TeacherOutputs.load(run_folder / "teacher_outputs")
    config = json.loads(told.read_text(encoding="utf-8"))
    probabilities = said.logits.float().softmax(-1)  # (N, C)
    dimensions = said.dimensions.float()  # (N, A)
    columns: dict[str, Any] = {"id": said.ids, "teacher": said.teacher.tolist()}
    columns |= {name: dimensions[:, column].tolist() for column, name in enumerate(config["dimensions"])}
    if said.emotions:
        columns["emotion"] = [said.emotions[index] for index in probabilities.argmax(-1).tolist()]
        columns["probabilities"] = [dict(zip(said.emotions, row, strict=True)) for row in probabilities.tolist()]
    columns["embedding"] = said.embedding.float().tolist()
    table = Dataset.from_dict(columns)
    files = -(-len(table) // ROWS_A_FILE)
    (folder / "data").mkdir()
    for number in range(files):
        table.shard(files, number).to_parquet(folder / "data" / f"train-{number:05d}-of-{files:05d}.parquet")
    _write_training_configuration(run_folder, folder)
    facts = pseudo_label_facts(said, config, repo, _read_results(run_folder))
    (folder / "README.md").write_text(render_card("pseudo_labels", facts, _citations(run_folder)), encoding="utf-8")
    return folder


def _assemble_metric(source: Path, folder: Path, repo: str) -> Path:
    """A metric module, named as its repository, which is where `evaluate.load` looks for it."""
    module = source / f"{source.name}.py"
    if not module.is_file():
        raise ValueError(f"Expected a metric's folder with {module.name} in it, got {source}.")
    shutil.copyfile(module, folder / f"{repo.partition('/')[2]}.py")
    (folder / "README.md").write_text(render_card("metric", metric_facts(module, repo)), encoding="utf-8")
    return folder


def _write_training_configuration(run_folder: Path, folder: Path) -> None:
    """The configuration of the run, which the card's command names."""
    values = without_machine_paths(yaml.safe_load((run_folder / "config.yaml").read_text(encoding="utf-8")))
    (folder / "training").mkdir()
    (folder / "training" / "config.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def _are_the_last(run_folder: Path, checkpoint: Path) -> bool:
    """Whether a checkpoint has the weights with which the run ended, which are those that it has scored."""
    names = [path.name for path in checkpoint.glob("*.safetensors")]
    last = run_folder / "checkpoints" / "last"
    return all((last / name).is_file() and cmp(checkpoint / name, last / name, shallow=False) for name in names)


def _citations(run_folder: Path) -> dict[str, str]:
    """By name, how the corpora want to be cited that the run's configuration describes by files.

    Raises:
        ValueError: where such a file is not there.
    """
    from audio_emotion.data.registry import corpus_info  # imports `datasets`

    values = yaml.safe_load((run_folder / "config.yaml").read_text(encoding="utf-8"))
    named = [values.get("corpus", ""), *(each.partition("=")[0] for each in values.get("mix", []))]
    citations = {}
    for description in (name for name in named if name.endswith(".yaml")):
        beside = run_folder / re.split(r"[/\\]", description)[-1]
        try:
            info = corpus_info(str(beside) if beside.is_file() else description)
        except OSError as error:
            raise ValueError(
                f"Expected `{description}`, the description of a corpus that the run's configuration names and the "
                f"card cites, got none to read. Publish where the run was started, or copy it to `{beside}`."
            ) from error
        citations[info.name] = info.citation
    return citations


def _read_results(run_folder: Path) -> dict[str, Any]:
    """`results.json` of a run that has ended, without paths of this machine.

    Raises:
        ValueError: where there is none.
    """
    path = run_folder / "results.json"
    if not path.is_file():
        raise ValueError(f"Expected {path}, got none: a card needs results. Let the run end, or evaluate it first.")
    return without_machine_paths(json.loads(path.read_text(encoding="utf-8")))


def without_machine_paths(value: Any) -> Any:
    """The same nested value, of absolute paths their last part alone: they mean nothing elsewhere and tell of us.

    So too behind a name or a kind (`second=speech:PATH`); addresses and names on the Hub stay.
    """
    if isinstance(value, dict):
        return {without_machine_paths(key): without_machine_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_machine_paths(item) for item in value]
    return _without_machine_path(value) if isinstance(value, str) else value


def _without_machine_path(text: str) -> str:
    """A text that is a path, or ends in one behind `name=` or `kind:`."""
    for path in (PurePosixPath(text), PureWindowsPath(text)):
        if path.is_absolute():
            return path.name
    named = re.match(r"[^=:]*[=:]", text)
    rest = text[named.end() :] if named else ""
    if not named or (
        named[0].endswith(":") and rest.startswith("//") and named[0] != "file:"
    ):  # https://..., hf://...
        return text
    return named[0] + _without_machine_path(rest)


def run(args: argparse.Namespace) -> int:
    """Assemble and check; then upload, unless it is a dry run."""
    logging.disable_progress_bar()
    source = Path(args.folder)
    if not source.is_dir():
        raise UsageError(f"expected a folder, got {source}.")
    if args.output and not args.dry_run:
        raise UsageError("--output says where a dry run is written: add --dry-run.")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(args.output) if args.output else Path(scratch) / "published"
        if args.dry_run and not args.output:
            folder = source.with_name(f"{source.name}_published") if is_complete(source) else source / "published"
        try:
            folder = assemble(source, folder, args.repo, args.type, args.which, args.adapter_only)
            check_folder(folder, args.type, encoder_folders(source))
            if args.dry_run:
                print(folder)
                return FINE
            commit = upload(folder, args.repo, args.type, args.private, args.branch, args.tag)
        except ImportError as error:
            raise UsageError(
                f"publishing needs the training extra, `pip install audio-emotion[train]`: {error}"
            ) from error
        except (ValueError, OSError) as error:  # the Hub's own errors are OSErrors
            raise UsageError(str(error)) from error
    print(commit)
    return FINE


def upload(
    folder: Path,
    repo: str,
    kind: RepositoryType = "model",
    private: bool = False,
    branch: str | None = None,
    tag: str | None = None,
) -> str:
    """Make the repository equal to the folder, in one commit or, of very large folders, several.

    Broken off, the same call goes on: what the Hub has already is not sent again.

    Args:
        folder: as `assemble` wrote it.
        repo: `owner/name`; made if missing.
        kind: of the repository.
        private: whether a new repository is private.
        branch: where to; made from the main branch if missing.
        tag: name for the new commit.

    Returns:
        the commit's hash: the revision to pin.

    Raises:
        ValueError: where the tag exists, or a repository that should be private is public.
        OSError: where the Hub refuses.
    """
    api = HfApi()
    sdk = {"space_sdk": "static"} if kind == "space" else {}
    api.create_repo(repo, repo_type=kind, private=private or None, exist_ok=True, **sdk)
    if private and not api.repo_info(repo, repo_type=kind).private:
        raise ValueError(f"Expected {repo} to be private, got a public repository. Change that on the Hub first.")
    if tag and tag in _tags(api, repo, kind):
        raise ValueError(f"Expected a new tag, got {tag!r}, which {repo} has. Tags do not move: choose another.")
    if branch:
        api.create_branch(repo, branch=branch, repo_type=kind, exist_ok=True)
    commit = api.upload_folder(
        repo_id=repo,
        folder_path=folder,
        repo_type=kind,
        revision=branch,
        delete_patterns="*",  # what an earlier publication had and this one has not
        commit_message=f"Publish with audio-emotion {audio_emotion.__version__}",
    )
    if tag:
        api.create_tag(repo, tag=tag, revision=commit.oid, repo_type=kind)
    return commit.oid


def _tags(api: HfApi, repo: str, kind: RepositoryType) -> Iterator[str]:
    """Names of a repository's tags."""
    return (each.name for each in api.list_repo_refs(repo, repo_type=kind).tags)
