"""One vocabulary: words that readers must not meet in names, messages and pages, and words that they must find.

    python tests/test_vocabulary.py                      # every offending place as `file:line: word -> replacement`
    python tests/test_vocabulary.py modeling/ docs/      # only below these paths

Names are what definitions introduce: functions, classes, arguments, dataclass fields, command-line flags, modules.
Text is comments, docstrings, messages and `--help` (string literals with a blank in them), pages and cards.
"""

from __future__ import annotations

import ast
import io
import json
import re
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
CODE = ("modeling", "recipes", "benchmarks")
PAGES = ("*.md", "docs/**/*.md", "hub_cards/**/*.md", "recipes/**/*.md", ".github/**/*.md", "notebooks/*.ipynb")
SETTINGS = ("Makefile", "CITATION.cff", "mkdocs.yml", "recipes/configs/**/*.yaml", ".github/**/*.yml")
SKIPPED = ("modeling/audio_emotion/embedded/", "build/", "dist/", "runs/")  # written by `save_pretrained`, or built

# A pattern, and what to write in its place. Blanks match line breaks. Names are split into words before matching.
EVERYWHERE = {
    r"apprentices?": "student with projections",
    r"hears?|heard|hearing|unheard|overheard": "is trained on, receives, unseen",
    r"(?:has|have|had|having) met|meets": "is trained on, contains",
    r"judg(?:e|es|ed|ing)": "predict, forward, classify",
    r"sa(?:y|ys|id|ying)": "outputs, states, prints",
    r"tells?|told|telling": "states, reports",
    r"speaks? (?:of|for)|spoke of|spoken of|speaking of": "outputs, predicts, describes",
    r"(?:makes?|made|making) of (?:it|them|all|a|the|each|every)": "predicts for",
    r"sides?": "split",
    r"read[- ]?outs?": "pooling",
    r"mix(?:ed|es|ing)? down": "downmix",
    r"t(?:ake|akes|aken|ook|aking) up": "resume",
    r"t(?:ake|akes|ook|aking) in": "gather, accept",
    r"go(?:es|ing)? on|went on|gone on": "continue",
    r"in words|worded|wordings?": "formatted",
    r"strangers?": "unseen speakers, external models",
    r"whom|whomever|whoever|whence|whereof|thereof": "a plain noun",
    r"(?:teachers?|models?|students?|encoders?|clips?|corpora|corpus|heads?) who": "that",
    r"stands?|stood": "is",
    r"lies": "is",
    r"mend(?:s|ed|ing)?": "fix",
    r"br(?:oken|oke|eak|eaks|eaking) off": "interrupt",
    r"pictures?": "plot (evaluation), frame (video), image",
    r"drawings?": "sampling weights, sampler",
    r"deal(?:s|t|ing)?": "distribute",
    r"starv(?:e|es|ed|ing)": "run out of",
    r"worth": "effect",
    r"ask(?:s|ed|ing)?": "request",
    r"he|him|his|she|hers?|himself|herself": "they, the speaker's",
    r"whilst|amongst|nought|thrice|hitherto": "while, among, zero, three times",
}
IN_NAMES = {
    r"setting": "ExperimentData",
    r"teaching": "DistillationLoss",
    r"shares?": "probabilities, fractions",
    r"deviations?": "std",
    r"conditions?": "corruptions",
    r"exchange": "gather",
    r"words": "output formatting, terms",
}
IN_TEXT = {
    r"(?:a|the|its|their|stated|small|large|same) shares?|shares? of": "fraction, probability",
    r"deviations?": "standard deviation",
    r"the ways? of (?:a|an|the)": "data flow",
    r"of everything": "a concrete noun",
    r"what (?:\w+ ){1,4}costs?": "effect, overhead",
    r"silent teachers?|teachers? (?:is|are|was|stays?) silent": "has no output",
    r"checkpoint room|two rooms|both rooms|other room": "module, folder",
    r"training/order|training/streams|training/batches|training/corpora": "the module's path",
}
# British spellings, as stems: what follows is any ending.
BRITISH = {
    r"(?:colour|behaviour|favour|neighbour|honour|labour|flavour|rumour|vapour)\w*": "-or",
    r"(?:labell|unlabell|modell|cancell|travell|signall|levell|channell|tunnell|fuell)(?:ed|ing|ers?)": "one l",
    r"(?:normal|standard|recogn|optim|initial|organ|summar|serial|deserial|visual|minim|maxim|synthes|penal|general"
    r"|special|real|emphas|quant|token|random|regular|priorit|categor|memor|character|material|util|final|local"
    r"|parametr|discret|vector|synchron|apolog|custom|harmon|neutral|equal)is(?:e|es|ed|ers?|ing|ations?)": "-ize",
    r"analys(?:e|ed|ing)|paralys(?:e|ed|ing)": "-yze",
    r"licences?|licenced|defences?|offences?|practis\w+": "license, defense, offense, practice",
    r"distils?|fulfils?|instal": "distill, fulfill, install",
    r"centres?|centred|metres?|fibres?|theatres?": "-er",
    r"artefacts?|judgements?|grey|greyscale|programmes?|catalogues?": "American spelling",
    r"learnt|spelt|misspelt|burnt|dreamt": "-ed",
}
# Terms that hold one of these words, and places that quote it, each with the reason.
ALLOWED_TERMS = {
    r"side[- ]by[- ]side|(?:client|server|left-hand|right-hand)[- ]side": "technical terms",
    r"(?:longer|shorter|box's|each) side|side of (?:a crop|the box)|both sides of 0": "geometry",
    r"standard deviations?|mean absolute deviations?": "statistics; in names `std`",
    r"He et al": "an author",
    r"deal with|t(?:ell|old)(?: them)? apart|ask the author": "plain English",
    r"stand-?alone": "a technical term",
}
ALLOWED_PLACES = {  # `file: text of the line`
    "recipes/demo.py: What is said": "a row of the table in embedded/speech/SOURCE.md",
    "tests/test_configuration.py: the former key read out": "the key of earlier configurations",
}

# What a newcomer searches for: a name that a definition introduces (or a module), or a term in the pages.
# fmt: off
NAMES = [
    "arguments", "attention_mask", "augmentation", "batch_size", "bootstrap", "calibration_error", "card",
    "checkpoint", "collate", "contrastive_loss", "corruption", "cross_fit", "custom",
    "dataset", "decode", "diarization", "dimensions", "distill", "distillation", "downmix", "dropout",
    "embedding", "encoder", "epochs", "evaluate", "feature_extraction", "fine_tune", "fold", "forward",
    "frame_rate", "fusion", "hidden_size", "hop", "input_values", "label_smoothing", "labels", "layers",
    "learning_rate", "load", "log_mel", "logits", "lora", "losses", "macro_f1", "mask", "metrics", "mixup",
    "model", "num_layers", "num_mel_bins", "num_workers", "optim", "optimizer", "pack", "padding", "pipeline",
    "plots", "pooling", "predict", "predictions", "pretrained", "probabilities", "protocol", "provenance",
    "pseudo_label", "publish", "quarantine", "read_audio", "register_corpus", "registry",
    "reliability_diagram", "report", "resample", "resume", "sampler", "sampling_rate", "sampling_weights", "seed",
    "segments", "speaker", "splits", "statistics", "std", "student", "teacher", "teacher_outputs", "temperature",
    "train_teacher", "trainer_state", "trunk", "unweighted_average_recall", "weight_decay", "window",
]
TERMS = [
    "activation", "arousal", "augmentation", "balanced accuracy", "bootstrap", "calibration", "checkpoint",
    "concordance correlation coefficient", "confusion matrix", "corpus", "corruption", "cross-validation",
    "data augmentation", "diarization", "dominance", "embedding", "encoder", "fine-tune", "fusion",
    "hyperparameter", "inference", "knowledge distillation", "license", "log-mel", "lora", "macro f1",
    "mixed precision", "model card", "padding", "permutation test", "pooling", "protocol", "pseudo-label",
    "random seed", "recall", "resample", "resume", "sampling rate", "sampling weight", "segment",
    "speaker-independent", "split", "streaming", "student", "teacher", "test set", "training set", "trunk",
    "unweighted average recall", "valence", "validation set", "window",
]
# fmt: on


class Place(NamedTuple):
    """One piece of a file in which words are looked for."""

    path: str
    line: int
    text: str
    is_name: bool


class Offense(NamedTuple):
    """A word that must not be there."""

    path: str
    line: int
    found: str
    instead: str
    excerpt: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.found!r} -> {self.instead} | {self.excerpt}"


def compiled(patterns: dict[str, str]) -> list[tuple[re.Pattern[str], str]]:
    """Patterns as whole words; a blank matches any white space."""
    spaced = {pattern.replace(" ", r"\s+"): instead for pattern, instead in patterns.items()}
    return [
        (re.compile(rf"(?<![\w-])(?:{pattern})(?!\w)", re.IGNORECASE), instead) for pattern, instead in spaced.items()
    ]


NAME_PATTERNS = compiled(EVERYWHERE | IN_NAMES | BRITISH)
TEXT_PATTERNS = compiled(EVERYWHERE | IN_TEXT | BRITISH)
TERMS_TO_PASS_OVER = [pattern for pattern, _ in compiled(ALLOWED_TERMS)]


def words_of(name: str) -> str:
    """`SpeakerTurns` and `speaker_turns` as `speaker turns`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).replace("_", " ").replace("-", " ").strip().lower()


def code_files() -> list[Path]:
    """Every Python file of the package, the recipes and the benchmarks."""
    paths = [path for top in CODE for path in sorted((ROOT / top).rglob("*.py"))]
    return [path for path in paths if not path.relative_to(ROOT).as_posix().startswith(SKIPPED)]


def page_files(patterns: tuple[str, ...]) -> list[Path]:
    """Pages and settings, each once; links (the cards beside the package) are left out."""
    return sorted({path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()})


def defined_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Functions, classes, arguments, fields of classes and command-line flags, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = node.args
            every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
            yield from ((argument.arg, argument.lineno) for argument in every if argument is not None)
        if isinstance(node, ast.ClassDef):
            fields = [each.target for each in node.body if isinstance(each, ast.AnnAssign)]
            yield from ((field.id, field.lineno) for field in fields if isinstance(field, ast.Name))
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.fullmatch(r"--[a-z][\w-]+", node.value)
        ):
            yield node.value[2:], node.lineno


def code_places(path: Path) -> Iterator[Place]:
    """Names, texts and comments of one Python file."""
    name, source = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    lines, tree = source.splitlines(), ast.parse(source)
    if path.stem not in ("__init__", "__main__"):
        yield Place(name, 1, words_of(path.stem), True)
    for defined, line in defined_names(tree):
        yield Place(name, line, words_of(defined), True)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            yield Place(name, node.lineno, node.value, False)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Place(name, token.start[0], lines[token.start[0] - 1][token.start[1] :], False)


def page_places(path: Path) -> Iterator[Place]:
    """The text of one page, or of a notebook's cells."""
    name, text = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        for cell in json.loads(text)["cells"]:
            yield Place(name, 1, "".join(cell["source"]), False)
    else:
        yield Place(name, 1, text, False)


def names_of_tests() -> Iterator[Place]:
    """Names of tests; what is in their bodies is their own matter."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        name, tree = path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))
        yield Place(name, 1, words_of(path.stem), True)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield Place(name, node.lineno, words_of(node.name), True)


def allowed_places() -> list[tuple[str, str]]:
    """Files and texts of the places that may hold one of the words."""
    return [(path, text) for path, _, text in (place.partition(": ") for place in ALLOWED_PLACES)]


def offenses_in(place: Place) -> Iterator[Offense]:
    """What one place must not hold."""
    text = place.text
    for pattern in TERMS_TO_PASS_OVER:
        text = pattern.sub(lambda match: re.sub(r"\S", ".", match[0]), text)
    for pattern, instead in NAME_PATTERNS if place.is_name else TEXT_PATTERNS:
        for match in pattern.finditer(text):
            line = place.line + place.text.count("\n", 0, match.start())
            begin = place.text.rfind("\n", 0, match.start()) + 1
            end = place.text.find("\n", match.end())
            excerpt = " ".join(place.text[begin : end if end >= 0 else None].split())[:140]
            if not any(place.path == path and quoted in excerpt for path, quoted in allowed_places()):
                yield Offense(place.path, line, " ".join(match[0].split()), instead, excerpt)


def offenses(paths: list[Path], places=None) -> list[Offense]:
    """Everything in these files that must not be there, by file and line."""
    found: set[Offense] = set()
    for path in paths:
        for place in (places or (code_places if path.suffix == ".py" else page_places))(path):
            found.update(offenses_in(place))
    return sorted(found)


@cache
def all_names() -> str:
    """Every public name that code defines and every module, in snake case, a line each."""
    names = {path.stem for path in code_files()}
    for path in code_files():
        names.update(name for name, _ in defined_names(ast.parse(path.read_text(encoding="utf-8"))))
    return "\n".join(sorted(words_of(name).replace(" ", "_") for name in names if not name.startswith("_")))


@cache
def all_pages() -> str:
    """The text of all pages, with single blanks."""
    return " ".join(" ".join(path.read_text(encoding="utf-8") for path in page_files(PAGES)).split()).lower()


@pytest.mark.parametrize("top", CODE)
def test_code_uses_the_vocabulary(top: str):
    found = offenses([path for path in code_files() if path.relative_to(ROOT).parts[0] == top])
    assert not found, f"{len(found)} places:\n" + "\n".join(map(str, found[:50]))


def test_pages_and_cards_use_the_vocabulary():
    found = offenses(page_files(PAGES + SETTINGS))
    assert not found, f"{len(found)} places:\n" + "\n".join(map(str, found[:50]))


def test_names_of_tests_use_the_vocabulary():
    found = sorted({each for place in names_of_tests() for each in offenses_in(place)})
    assert not found, f"{len(found)} places:\n" + "\n".join(map(str, found[:50]))


@pytest.mark.parametrize(
    ("text", "is_name", "number"),
    [
        ("heard_teachers", True, 1),
        ("ApprenticeModel", True, 1),
        ("a judgment of the sides", False, 1),
        ("the run takes\nup its labelled clips", False, 2),
        ("compared side by side, as beside it, by consideration", False, 0),
        ("standard deviation; a deviation", False, 1),
        ("deviation", True, 1),
        ("he trains (He et al. 2016)", False, 1),
    ],
)
def test_patterns_find_whole_terms_and_nothing_else(text: str, is_name: bool, number: int):
    place = Place("file", 1, words_of(text) if is_name else text, is_name)
    assert len(list(offenses_in(place))) == number


@pytest.mark.parametrize("name", NAMES)
def test_newcomer_finds_the_name(name: str):
    assert re.search(rf"(?:^|_){name}s?(?:_|$)", all_names(), re.MULTILINE), f"No definition or module has {name!r}."


@pytest.mark.parametrize("term", TERMS)
def test_newcomer_finds_the_term_in_the_pages(term: str):
    assert term in all_pages(), f"No page has {term!r}."


def test_every_allowed_place_is_still_there():
    texts = {path: " ".join(words_of((ROOT / path).read_text()).split()) for path, _ in allowed_places()}
    gone = [(path, text) for path, text in allowed_places() if text.lower() not in texts[path]]
    assert gone == []


def main(tops: list[str]) -> int:
    """Print what must not be there; below `tops` alone if any are given."""
    found = set(offenses([*code_files(), *page_files(PAGES + SETTINGS)]))
    found |= {each for place in names_of_tests() for each in offenses_in(place)}
    tops = [top.removeprefix("./") for top in tops] or [""]
    shown = sorted(each for each in found if each.path.startswith(tuple(tops)))
    print("\n".join(map(str, shown)))
    print(f"{len(shown)} places in {len({each.path for each in shown})} files")
    return 1 if shown else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
