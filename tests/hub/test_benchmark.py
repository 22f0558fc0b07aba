"""Splits and labels as a benchmark data set, the score of a run on it, and a report in the card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from datasets import load_dataset
from huggingface_hub import parse_eval_result_entries

from audio_emotion.data.corpora.crema_d import ACTORS, INFO
from audio_emotion.hub.benchmark import write_benchmark
from audio_emotion.hub.checks import check_folder
from audio_emotion.hub.publish import assemble

REPORT = Path(__file__).parents[2] / "docs" / "reports" / "lite" / "report.json"
LEFT_OUT = sorted(INFO.protocols["crema-d-hicmae-fold-1"].left_out)


@pytest.fixture
def benchmark(tmp_path) -> Path:
    """Three clips of every actor of CREMA-D, and the clips that its folds leave out."""
    names = [f"{actor}_{sentence}_XX" for actor in ACTORS for sentence in ("DFA_ANG", "IEO_HAP", "IOM_SAD")]
    names += [name.partition("/")[2] for name in LEFT_OUT]
    emotions = {"ANG": "angry", "HAP": "happy", "SAD": "sad"}
    rows = [
        {
            "id": f"crema-d/{name}",
            "audio": {"path": f"/data/AudioWAV/{name}.ogg", "bytes": None},
            "speaker": f"crema-d/{name[:4]}",
            "emotion": emotions.get(name[9:12], "neutral"),
        }
        for name in names
    ]
    return write_benchmark(tmp_path / "splits", INFO, rows, "somebody/crema-d-splits")


def test_a_benchmark_loads_by_protocol_with_disjoint_speakers_and_no_audio(benchmark, tmp_path):
    check_folder(benchmark, "dataset")
    assert assemble(benchmark, tmp_path / "out", "somebody/crema-d-splits", kind="dataset") == benchmark

    loaded = load_dataset(str(benchmark), "crema-d-hicmae-fold-1", cache_dir=str(tmp_path / "cache"))

    protocol = INFO.protocols["crema-d-hicmae-fold-1"]
    for split in ("train", "validation", "test"):
        assert set(loaded[split]["speaker"]) == set(getattr(protocol, split))
        assert loaded[split].column_names == ["file", "id", "speaker", "emotion"]
    clips = [name for split in loaded.values() for name in split["id"]]
    assert LEFT_OUT
    assert not {*clips} & {*LEFT_OUT}
    assert len(clips) == len(set(clips)) == 3 * len(ACTORS)
    assert loaded["test"][0]["file"] == loaded["test"][0]["id"].partition("/")[2]


def test_every_task_of_the_benchmark_is_a_configuration_with_a_test_split(benchmark):
    described = yaml.safe_load((benchmark / "eval.yaml").read_text())
    card = yaml.safe_load((benchmark / "README.md").read_text().split("---")[1])

    configs = {each["config_name"]: {file["split"] for file in each["data_files"]} for each in card["configs"]}
    assert [each["id"] for each in described["tasks"]] == [*configs]
    assert all(each["split"] in configs[each["config"]] for each in described["tasks"])
    assert "crema-d-all" not in configs  # it has no test split
    assert card["license"] == "odbl"


def test_a_protocol_without_test_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"with a test split.*got \['crema-d-all'\]"):
        write_benchmark(tmp_path / "splits", INFO, [], "somebody/splits", ["crema-d-all"])


def test_a_published_model_reports_its_score_in_the_form_of_the_hub(tiny_student, make_run, results, tmp_path):
    run = make_run(tiny_student)

    folder = assemble(run, tmp_path / "out", "somebody/mouse", benchmark="somebody/ravdess-splits")

    check_folder(folder)
    (path,) = (folder / ".eval_results").iterdir()
    (entry,) = parse_eval_result_entries(yaml.safe_load(path.read_text()))
    assert (entry.dataset_id, entry.task_id) == ("somebody/ravdess-splits", results["protocol"])
    assert entry.value == round(results["test"]["uar"], 4)
    assert entry.source_url == "https://huggingface.co/somebody/mouse"
    assert not (assemble(run, tmp_path / "out", "somebody/mouse") / ".eval_results").exists()


def test_a_score_on_speakers_of_the_training_is_not_reported(tiny_student, make_run, results, tmp_path):
    run = make_run(tiny_student)
    contaminated = results | {"contaminated_by": results["test"]["speakers"][:1]}
    (run / "results.json").write_text(json.dumps(contaminated))

    with pytest.raises(ValueError, match="Leave `--benchmark` out"):
        assemble(run, tmp_path / "out", "somebody/mouse", benchmark="somebody/ravdess-splits")


def test_a_score_on_validation_speakers_is_not_reported(tiny_student, make_run, results, tmp_path):
    run = make_run(tiny_student)
    results["validation"] = results.pop("test")
    (run / "results.json").write_text(json.dumps(results))

    with pytest.raises(ValueError, match="validation split"):
        assemble(run, tmp_path / "out", "somebody/mouse", benchmark="somebody/ravdess-splits")


@pytest.fixture
def report(tiny_student, tmp_path) -> Path:
    """The report of the embedded model, as if it were of the tiny one."""
    content = json.loads(REPORT.read_text())
    (name,) = content["models"]
    content["models"][name] |= {"parameters": tiny_student.num_parameters(), "training_corpora": ["ravdess"]}
    content["corpora"][0]["models"][name]["contaminated_by"] = ["ravdess/01"]
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.json").write_text(json.dumps(content))
    return tmp_path / "report"


def test_the_card_shows_scores_on_other_corpora_but_none_on_the_training_speakers(
    tiny_student, make_run, report, tmp_path
):
    folder = assemble(make_run(tiny_student), tmp_path / "out", "somebody/mouse", report=report)

    check_folder(folder)
    card = (folder / "README.md").read_text()
    content = json.loads((report / "report.json").read_text())
    shown = {row["name"]: row["models"]["lite"] for row in content["corpora"]}
    for corpus in ("nemo", "emotale"):
        low, high = shown[corpus]["intervals"]["uar"]
        assert f"| {corpus} | {shown[corpus]['clips']} of" in card
        assert f"| {shown[corpus]['uar']:.3f} ({low:.2f} to {high:.2f}) |" in card
    section = card.partition("### On other corpora")[2].partition("###")[0]
    assert "nemo" in section
    assert "ravdess" not in section
    assert "(plots/report.png)" in card
    assert (folder / "plots" / "report.png").read_bytes().startswith(b"\x89PNG")
    assert "### On other corpora" not in (
        assemble(make_run(tiny_student), tmp_path / "out", "somebody/mouse") / "README.md"
    ).read_text(encoding="utf-8")


def test_a_report_of_another_model_is_refused(tiny_student, make_run, tmp_path):
    with pytest.raises(ValueError, match="Expected a report of this model"):
        assemble(make_run(tiny_student), tmp_path / "out", "somebody/mouse", report=REPORT.parent)
    with pytest.raises(ValueError, match=r"without report\.json"):
        assemble(make_run(tiny_student), tmp_path / "out", "somebody/mouse", report=tmp_path)
