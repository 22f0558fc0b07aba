"""The command `publish`: assemble, check, then upload and tag, unless it is a dry run."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import HfApi
from transformers.utils import logging

import audio_emotion
from audio_emotion.hub.assembling import assemble, encoder_folders, is_complete
from audio_emotion.hub.checking import RepositoryType, check_folder
from audio_emotion_command import FINE, UsageError


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
