"""From a run folder to the Hub: assemble what is published, refuse what is not fit, upload, tag."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

import torch
import yaml
from huggingface_hub import HfApi
from safetensors import SafetensorError
from transformers import AutoModelForAudioClassification, PreTrainedModel
from transformers.utils import CONFIG_NAME, cached_file, extract_commit_hash, logging

import audio_emotion
from audio_emotion.feature_extraction_emotion import EmotionFeatureExtractor
from audio_emotion.hub.card_facts import metric_facts, model_facts, pseudo_label_facts
from audio_emotion.hub.cards import Template, render_card
from audio_emotion.hub.checkpoints import BASE_ENCODERS, write_checkpoint
from audio_emotion.pretrained_emotion import ADAPTER
from audio_emotion_command import FINE, UsageError

RepositoryType = Literal["model", "dataset", "space"]
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill", ".npy", ".npz"}
CARRIED_CLASS = re.compile(r"[A-Za-z_]\w*\.[A-Za-z_]\w*")  # `module.Class`: no other repository, no other folder
ROWS_A_FILE = 100_000  # of a data set


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
            folder = source / "published"
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
        folder: where to write; what an earlier call has written there is replaced.
        repo: `owner/name` on the Hub: the card tells how to load it.
        kind: `"model"` writes a checkpoint of the run, `"dataset"` its `teacher_outputs/` as pseudo-labels, `"space"`
            a metric.
        which: `"best"` or `"last"` checkpoint of the run.
        adapter_only: of a run with LoRA, leave the pretrained encoders out.

    Returns:
        the folder: `folder`, or `source` where that is complete already.

    Raises:
        ValueError: where something is missing, does not fit, or may not be published.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ValueError(f"Expected a repository as owner/name, got {repo!r}.")
    if (source / "README.md").is_file() and not (source / "checkpoints").is_dir():
        if adapter_only and not (source / ADAPTER).is_dir():
            raise ValueError(f"Expected a run folder to take the adapters from, got {source}, which is complete.")
        return source
    if adapter_only and kind != "model":
        raise ValueError(f"Expected `--adapter-only` with a model, got it with a {kind}. Leave it out.")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / "README.md").is_file():
            raise ValueError(f"Expected an empty folder to write to, or an earlier publication, got {folder}.")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "model":
        return _assemble_model(source, folder, repo, which, adapter_only)
    if kind == "dataset":
        return _assemble_pseudo_labels(source, folder, repo, which)
    return _assemble_metric(source, folder, repo)


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
    (folder / "results.json").write_text(json.dumps(without_machine_paths(results), indent=2) + "\n")
    _write_training_configuration(run_folder, folder)
    plots = []
    for picture in sorted(run_folder.rglob("*.png")):
        inside = picture.relative_to(run_folder)
        if not {"checkpoints", "published", "state"} & set(inside.parts):
            (folder / "plots").mkdir(exist_ok=True)
            shutil.copyfile(picture, folder / "plots" / picture.name)
            plots.append(f"plots/{picture.name}")
    megabytes = sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 1e6
    facts = model_facts(model, repo, results, megabytes, plots)
    template: Template = "student" if model.config.model_type == "student-emotion" else "teacher"
    card = render_card(template, facts)
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

    from audio_emotion.training.teacher_outputs import TeacherOutputs

    if not (run_folder / "teacher_outputs" / "teacher_outputs.json").is_file():
        raise ValueError(
            f"Expected a teacher's run folder with teacher_outputs/ in it, got {run_folder}. Train with --cross_fit."
        )
    said = TeacherOutputs.load(run_folder / "teacher_outputs")
    config = json.loads((run_folder / "checkpoints" / which / "config.json").read_text(encoding="utf-8"))
    probabilities = said.logits.float().softmax(-1)  # (N, C)
    dimensions = said.dimensions.float()  # (N, 3)
    columns: dict[str, Any] = {"id": said.ids, "teacher": said.teacher.tolist()}
    columns |= {name: dimensions[:, column].tolist() for column, name in enumerate(config["dimensions"])}
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
    (folder / "README.md").write_text(render_card("pseudo_labels", facts), encoding="utf-8")
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


def _read_results(run_folder: Path) -> dict[str, Any]:
    """`results.json` of a run that has ended.

    Raises:
        ValueError: where there is none.
    """
    path = run_folder / "results.json"
    if not path.is_file():
        raise ValueError(f"Expected {path}, got none: a card needs results. Let the run end, or evaluate it first.")
    return json.loads(path.read_text(encoding="utf-8"))


def without_machine_paths(value: Any) -> Any:
    """The same nested value, of absolute paths their last part alone: they mean nothing elsewhere and tell of us."""
    if isinstance(value, dict):
        return {key: without_machine_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_machine_paths(item) for item in value]
    if isinstance(value, str):
        for path in (PurePosixPath(value), PureWindowsPath(value)):
            if path.is_absolute():
                return path.name
    return value


def load_strictly(checkpoint: Path, encoders: dict[str, str] | None = None) -> PreTrainedModel:
    """The model of a checkpoint or of an adapter, with every weight from its safetensors.

    Args:
        checkpoint: its folder.
        encoders: of a teacher published as an adapter, folders of its encoders by the name of the stream.

    Raises:
        ValueError: where weights are missing, left over, of another shape, or not in safetensors.
    """
    check_files(checkpoint)
    if (checkpoint / "adapter_config.json").is_file():
        return _load_adapter_strictly(checkpoint)
    over = {"encoders": encoders} if encoders else {}
    try:
        model, report = AutoModelForAudioClassification.from_pretrained(
            checkpoint, use_safetensors=True, output_loading_info=True, **over
        )
    except (OSError, RuntimeError, TypeError, KeyError, SafetensorError) as error:
        raise ValueError(f"Expected a checkpoint that loads from safetensors, got {checkpoint}: {error}") from error
    if left_over := sorted(report["unexpected_keys"]):
        raise ValueError(
            f"Expected a configuration that fits the weights, got weights in {checkpoint} that it does not know: "
            f"{left_over}. Write the checkpoint anew with the model that was trained."
        )
    return model


def _load_adapter_strictly(checkpoint: Path) -> PreTrainedModel:
    """The base that an adapter names, with the adapter in it.

    transformers would load both at once, and then report all that the adapter has not as missing.
    """
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    base = json.loads((checkpoint / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    try:
        model = AutoModelForAudioClassification.from_pretrained(base, use_safetensors=True)
        model.load_adapter(str(checkpoint))
        with safe_open(checkpoint / "adapter_model.safetensors", framework="pt") as file:
            given = {name.removeprefix("base_model.model."): file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (OSError, RuntimeError, TypeError, KeyError, SafetensorError) as error:
        raise ValueError(f"Expected an adapter that loads over {base}, got {checkpoint}: {error}") from error
    held = {
        name.removeprefix("base_model.model."): list(tensor.shape)
        for name, tensor in get_peft_model_state_dict(model).items()
    }
    if wrong := sorted(name for name in given.keys() | held.keys() if given.get(name) != held.get(name)):
        raise ValueError(f"Expected an adapter that fits {base}, got {checkpoint}, which differs in {wrong}.")
    return model


def check_folder(folder: Path, kind: RepositoryType = "model", encoders: dict[str, str] | None = None) -> None:
    """Refuse what may not be published.

    See `check_files`; a model must also load strictly, over `encoders` if it is an adapter, and every repository needs
    its card.

    Raises:
        ValueError: naming what is wrong.
    """
    check_files(folder)
    if not (folder / "README.md").is_file():
        raise ValueError(f"Expected a card, README.md, in {folder}, got none.")
    if kind == "model":
        load_strictly(folder, encoders)


def check_files(folder: Path) -> None:
    """Refuse pickles, links, and names inside configurations that lead out of the folder.

    Raises:
        ValueError: naming the file.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise ValueError(f"Expected plain files, got the link {path}: what it leads to would be published.")
        if path.suffix.lower() in PICKLES:
            raise ValueError(
                f"Expected weights in safetensors, got {path}: loading it could run code. Convert it, or remove it."
            )
    for name in ("config.json", "preprocessor_config.json"):
        if (folder / name).is_file():
            _check_carried_code(folder, json.loads((folder / name).read_text(encoding="utf-8")), name)
    for index in folder.glob("*.safetensors.index.json"):
        for file in sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())):
            if file != Path(file).name or "\\" in file or not (folder / file).is_file():
                raise ValueError(f"Expected shards beside {index}, got {file!r}.")


def _check_carried_code(folder: Path, values: dict[str, Any], name: str) -> None:
    """Classes that a configuration names must stand in files beside it."""
    named = dict(values.get("auto_map") or {})
    named |= {task: each["impl"] for task, each in (values.get("custom_pipelines") or {}).items()}
    for use, reference in named.items():
        for each in reference if isinstance(reference, list) else [reference]:
            if each is None:
                continue
            if not CARRIED_CLASS.fullmatch(each) or not (folder / f"{each.partition('.')[0]}.py").is_file():
                raise ValueError(
                    f"Expected {name} to name classes of files beside it, got {each!r} for {use}. Write the "
                    "checkpoint anew with `write_checkpoint`."
                )


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
