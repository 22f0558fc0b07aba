"""How well do norms of an emotion agree with listeners' ratings of speech in that emotion?

python recipes/experiments/norms.py

For every clip of a rated corpus, the norms of its *true* label are correlated with its ratings: what a model that
knows the label, and nothing else about the voice, can reach. Writes `recipes/results/norms.json` and the table in
docs/dimensions.md.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from huggingface_hub.dataclasses import strict
from table import replace_table

from audio_emotion.data.affective_norms import DIMENSIONS, NORM_SETS, norm_derived_dimensions
from audio_emotion.data.registry import corpus_rows
from audio_emotion.evaluation.bootstrap import bootstrap_interval
from audio_emotion.evaluation.metrics import concordance_correlation, pearson_correlation
from audio_emotion.training.arguments import parse_arguments

ROOT = Path(__file__).parents[2]
RESULTS, PAGE = ROOT / "recipes" / "results" / "norms.json", ROOT / "docs" / "dimensions.md"
TITLES = {
    "norm-derived": "words (Warriner et al. 2013)",
    "norm-derived-pad": "states (Russell and Mehrabian 1977)",
}
METRICS = {"pearson": pearson_correlation, "ccc": concordance_correlation}


@strict
@dataclass(kw_only=True)
class NormsArguments:
    """Compare norms of the true label with ratings."""

    corpus: str = field(default="emotale", metadata={"help": "A corpus with rated dimensions."})
    repeats: int = field(default=1000, metadata={"help": "Bootstrap samples of each interval."})


def main(args: NormsArguments) -> dict:
    """Score both sets on the emotions that both have; write the results and the table."""
    known = set.intersection(*(set(norms) for norms, _, _ in NORM_SETS.values()))
    rows = [row for row in corpus_rows(args.corpus) if row["emotion"] in known]
    speakers = np.array([row["speaker"] for row in rows])
    results = {"corpus": args.corpus, "clips": len(rows), "speakers": len(set(speakers)), "norms": {}}
    results["emotions"] = sorted({row["emotion"] for row in rows})
    for source in NORM_SETS:
        norms = np.array([norm_derived_dimensions(row["emotion"], source=source) for row in rows])  # (N, 3)
        scores = results["norms"][source] = {"intervals": {}}
        for column, name in enumerate(DIMENSIONS):
            rated = np.array([row[name] for row in rows])
            for metric, statistic in METRICS.items():
                ends = bootstrap_interval(statistic, norms[:, column], rated, groups=speakers, repeats=args.repeats)
                scores[f"{metric}_{name}"] = float(statistic(norms[:, column], rated))
                scores["intervals"][f"{metric}_{name}"] = [float(end) for end in ends]
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    PAGE.write_text(replace_table(PAGE.read_text(), "norms", norms_table(results)))
    print(norms_table(results))
    return results


def norms_table(results: dict) -> str:
    """Pearson correlation and CCC of each dimension, with intervals over speakers."""
    header = ["norms of", *(f"{metric} {name}" for metric in ("r", "CCC") for name in DIMENSIONS)]
    lines = ["| " + " | ".join(header) + " |", "| --- " * len(header) + "|"]
    for source, scores in results["norms"].items():
        cells = []
        for name in (f"{metric}_{each}" for metric in METRICS for each in DIMENSIONS):
            low, high = scores["intervals"][name]
            cells.append(f"{scores[name]:.2f} ({low:.2f} to {high:.2f})")
        lines.append(f"| {TITLES[source]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(parse_arguments(NormsArguments))
