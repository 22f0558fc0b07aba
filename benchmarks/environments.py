"""Sizes of the environments that one can install, and how much of them is for CUDA.

    python benchmarks/environments.py            # needs uv and a package index; a minute
    python benchmarks/environments.py --render   # the table of docs/deployment.md alone

Installs each set of packages into an environment of its own, and adds up its files.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results") / "environments.json"
PAGE = ROOT / "docs" / "deployment.md"
# Packages that only a build of torch for CUDA needs, and the parts of torch that a build for CPUs lacks.
FOR_CUDA = re.compile(
    r"site-packages/(nvidia|triton|cuda|torch/lib/lib(torch_cuda|torch_nvshmem|c10_cuda|caffe2_nvrtc))"
)


def extras(*names: str) -> list[str]:
    """Requirements of extras, without what the package itself requires."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [each for name in names for each in project["optional-dependencies"][name]]


ENVIRONMENTS = {
    "prediction without torch: extra `runtime` alone": extras("runtime"),
    "a server without torch: extras `runtime` and `serve`": extras("runtime", "serve"),
    "`pip install audio-emotion`": [str(ROOT)],
    "training: extra `train`": [f"{ROOT}[train]"],
    "development: extra `dev`": [f"{ROOT}[dev]"],
}


def measure(packages: list[str]) -> dict[str, int]:
    """Megabytes of an environment, without Python itself."""
    with tempfile.TemporaryDirectory() as folder:
        python = f"{folder}/bin/python"
        subprocess.run(["uv", "venv", "-q", "--python", sys.executable, folder], check=True)
        constraints = ["-c", str(ROOT / "constraints.txt")]
        subprocess.run(["uv", "pip", "install", "-q", "--python", python, *constraints, *packages], check=True)
        files = [each for each in Path(folder).rglob("*") if each.is_file() and not each.is_symlink()]
        sizes = {each.as_posix(): each.stat().st_size for each in files}
    for_cuda = sum(size for name, size in sizes.items() if FOR_CUDA.search(name))
    return {"megabytes": round(sum(sizes.values()) / 1e6), "for_cuda": round(for_cuda / 1e6)}


def table(results: dict[str, dict[str, int]]) -> str:
    """The table of the page, in Markdown."""
    lines = ["| Environment | MB | of these for CUDA | MB without |", "| --- | --- | --- | --- |"]
    for name, each in results.items():
        without = each["megabytes"] - each["for_cuda"]
        lines.append(f"| {name} | {each['megabytes']:,} | {each['for_cuda']:,} | {without:,} |")
    return "\n".join(lines)


def render(page: str, results: dict[str, dict[str, int]]) -> str:
    """The page with the table between its two marks."""
    marks = r"(<!-- environments:begin -->\n).*?(<!-- environments:end -->)"
    return re.sub(marks, lambda found: f"{found[1]}{table(results)}\n{found[2]}", page, flags=re.DOTALL)


def main(args: argparse.Namespace) -> None:
    if not args.render:
        results = {name: measure(packages) for name, packages in ENVIRONMENTS.items()}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    results = json.loads(RESULTS.read_text())
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true", help="measure nothing")
    main(parser.parse_args())
