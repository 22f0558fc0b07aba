"""Hooks of `mkdocs build`: pages from the repository's root, links to other files, types in the API reference.

CONTRIBUTING.md and CHANGELOG.md become pages of the site. A link to a file of the repository that is not a page is
shown as text, or as a link where `repo_url` is set; one to a missing file is a warning, which fails a strict build.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
FROM_ROOT = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]\[]*(?:\[[^\]]*\][^\]\[]*)?)\]\((?P<target>[^)\s#]*)(?P<anchor>#[^)\s]*)?\)")

logger = logging.getLogger("mkdocs.hooks")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are kept in the root of the repository."""
    for page, source in FROM_ROOT.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at pages of the site; check those at other files of the repository."""
    source = FROM_ROOT.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    pages = {f"docs/{file.src_uri}": file.src_uri for file in files}
    pages |= {source: page for page, source in FROM_ROOT.items()} | {"README.md": "index.md"}

    def replaced(match: re.Match[str]) -> str:
        target, anchor = match["target"], match["anchor"] or ""
        if not target or re.match(r"[a-z]+:", target):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if path in pages:
            return f"[{match['text']}]({pages[path]}{anchor})"
        if not (ROOT / path).exists():
            logger.warning("%s links to %s, which does not exist.", source, path)
        if config.repo_url:
            return f"[{match['text']}]({config.repo_url.rstrip('/')}/blob/main/{path})"
        return match["text"]

    blocks = re.split(r"(^```.*?^```$)", markdown, flags=re.DOTALL | re.MULTILINE)
    return "".join(block if block.startswith("```") else LINK.sub(replaced, block) for block in blocks)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Remove Markdown marks from the types of the API reference, which are not rendered: `` `int`, *optional* ``."""
    if page.file.src_uri != "api.md":
        return html
    return re.sub(r"<code>[^<]*`[^<]*</code>", lambda match: match[0].replace("`", "").replace("*", ""), html)
