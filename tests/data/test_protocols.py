"""Named protocols put every speaker in one split and are those that were published."""

import csv
import os
from collections import Counter
from pathlib import Path

import pytest
from datasets import Dataset

from audio_emotion.data.corpora.synthetic import SPEAKERS
from audio_emotion.data.protocols import Protocol, assert_disjoint, divide, random_protocol, split_of
from audio_emotion.data.registry import apply_protocol, load_protocol, protocols

ALL = {f"ravdess/{actor:02d}" for actor in range(1, 21)}
FOLDS = [name for name in protocols() if name.startswith("ravdess-20-fold")]
FAMILIES = {  # of published folds: how many, and over whom
    "ravdess-emobox-fold": (6, {f"ravdess/{actor:02d}" for actor in range(1, 25)}),
    "ravdess-hicmae-fold": (6, {f"ravdess/{actor:02d}" for actor in range(1, 25)}),
    "ravdess-luna-jimenez-fold": (5, {f"ravdess/{actor:02d}" for actor in range(1, 25)}),
    "crema-d-hicmae-fold": (5, {f"crema-d/{actor}" for actor in range(1001, 1092)}),
    "iemocap-session": (5, {f"iemocap/Ses0{session}{speaker}" for session in range(1, 6) for speaker in "FM"}),
}
LABELS = Path(os.environ.get("AUDIO_EMOTION_DATA", "/nowhere")) / "crema_d_labels"
needs_crema_d_names = pytest.mark.skipif(
    not LABELS.is_dir(), reason="needs AUDIO_EMOTION_DATA with crema_d_labels/ in it"
)


def podcast(*rows):
    """A table of (clip, speaker, partition)."""
    return Dataset.from_list(
        [
            {"id": f"msp-podcast/{clip}", "speaker": f"msp-podcast/{speaker}", "partition": partition}
            for clip, speaker, partition in rows
        ]
    )


def ravdess(actors):
    return Dataset.from_list(
        [{"id": f"ravdess/clip-{actor:02d}", "speaker": f"ravdess/{actor:02d}"} for actor in actors]
    )


@pytest.mark.parametrize("name", ["ravdess-20-fixed", *FOLDS])
def test_every_actor_is_in_exactly_one_split(name):
    protocol = load_protocol(name)

    assert_disjoint(protocol)
    assert {*protocol.train, *protocol.validation, *protocol.test} == ALL
    assert (len(protocol.train), len(protocol.validation), len(protocol.test)) == (12, 4, 4)


@pytest.mark.parametrize("name", protocols())
def test_nobody_is_in_two_splits_of_any_protocol(name):
    protocol = load_protocol(name)
    names = [*protocol.train, *protocol.validation, *protocol.test]

    assert_disjoint(protocol)
    assert len(names) == len(set(names)) > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_published_folds_test_everybody_once_and_validate_on_the_next(family):
    number, speakers = FAMILIES[family]
    folds = [load_protocol(f"{family}-{fold}") for fold in range(1, number + 1)]

    assert f"{family}-{number + 1}" not in protocols()
    assert Counter(speaker for fold in folds for speaker in fold.test) == dict.fromkeys(speakers, 1)
    assert [fold.validation for fold in folds] == [fold.test for fold in folds[1:] + folds[:1]]
    assert all({*fold.train, *fold.validation, *fold.test} == speakers for fold in folds)


def test_published_ravdess_folds_are_those_of_their_papers():
    def tests(family, folds):
        return [
            " ".join(speaker.removeprefix("ravdess/") for speaker in load_protocol(f"{family}-fold-{fold}").test)
            for fold in range(1, folds + 1)
        ]

    assert tests("ravdess-emobox", 6) == [
        "01 11 20 21",
        "04 10 12 14",
        "08 09 19 23",
        "03 05 07 24",
        "02 15 16 18",
        "06 13 17 22",
    ]
    assert tests("ravdess-hicmae", 6)[::5] == ["01 02 03 04", "21 22 23 24"]
    assert tests("ravdess-luna-jimenez", 5)[3:] == ["08 17 21 23 24", "01 04 09 22"]


@needs_crema_d_names
def test_crema_d_protocols_have_the_published_numbers_of_clips():
    with (LABELS / "SentenceFilenames.csv").open(newline="") as lines:
        names = [line["Filename"] for line in csv.DictReader(lines)]
    table = Dataset.from_list([{"id": f"crema-d/{name}", "speaker": f"crema-d/{name[:4]}"} for name in names])

    def clips(name, split):
        rows, speakers = divide(table, load_protocol(name))
        return sum(speaker in getattr(speakers, split) for speaker in rows["speaker"])

    assert [clips(f"crema-d-hicmae-fold-{fold}", "test") for fold in range(1, 6)] == [1463, 1470, 1475, 1474, 1555]
    assert [clips("crema-d-63-9-19", split) for split in ("train", "validation", "test")] == [5144, 738, 1556]


def test_crema_d_splits_have_63_9_and_19_speakers():
    protocol = load_protocol("crema-d-63-9-19")

    assert (len(protocol.train), len(protocol.validation), len(protocol.test)) == (63, 9, 19)


def test_clip_that_a_published_protocol_leaves_out_is_in_no_split():
    protocol = load_protocol("crema-d-63-9-19")

    assert split_of({"id": "crema-d/1006_TIE_NEU_XX", "speaker": "crema-d/1006"}, protocol) is None
    assert split_of({"id": "crema-d/1006_TIE_SAD_XX", "speaker": "crema-d/1006"}, protocol) == "train"


def test_emobox_fold_of_crema_d_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="all 91 actors in training and in test"):
        load_protocol("crema-d-emobox-fold-1")


@pytest.mark.parametrize("family", ["ravdess-emobox", "ravdess-hicmae", "ravdess-luna-jimenez"])
def test_actors_that_the_corpus_lacks_are_named(family):
    with pytest.raises(ValueError, match=r"'ravdess/21', 'ravdess/22', 'ravdess/23', 'ravdess/24'\]"):
        divide(ravdess(range(1, 21)), load_protocol(f"{family}-fold-1"))


def test_one_split_needs_its_speakers_only():
    rows, speakers = divide(ravdess(range(5, 9)), load_protocol("ravdess-hicmae-fold-2"), ["test"])

    assert rows["speaker"][:] == ["ravdess/05", "ravdess/06", "ravdess/07", "ravdess/08"]
    assert speakers == Protocol(train=(), validation=(), test=load_protocol("ravdess-hicmae-fold-2").test)


def test_dividing_by_speakers_keeps_their_order_and_drops_other_speakers():
    table = ravdess([24, *range(1, 21)])

    rows, speakers = divide(table, load_protocol("ravdess-20-fold-1"))

    assert set(rows["speaker"]) == ALL
    assert speakers == load_protocol("ravdess-20-fold-1")


def test_partitions_become_the_speakers_of_their_rows():
    table = podcast(("a", "7", "train"), ("b", "3", "train"), ("c", "5", "validation"), ("d", "9", "test-2"))

    rows, speakers = divide(table, load_protocol("msp-podcast-1.12-test-2"))

    assert speakers.train == ("msp-podcast/3", "msp-podcast/7")
    assert (speakers.validation, speakers.test) == (("msp-podcast/5",), ("msp-podcast/9",))
    assert speakers.by == "speaker"
    assert len(rows) == 4


def test_speakers_of_two_test_sets_are_no_overlap_of_one_protocol():
    table = podcast(("a", "7", "train"), ("b", "5", "validation"), ("c", "9", "test"), ("d", "9", "test-2"))

    rows, speakers = divide(table, load_protocol("msp-podcast-1.12-test"))

    assert rows["id"][:] == ["msp-podcast/a", "msp-podcast/b", "msp-podcast/c"]
    assert speakers.test == ("msp-podcast/9",)


def test_speaker_of_two_partitions_is_named_with_both_splits():
    table = podcast(("a", "7", "train"), ("b", "5", "validation"), ("c", "7", "test"))

    with pytest.raises(ValueError, match=r"msp-podcast/7.*`train`.*`test`"):
        divide(table, load_protocol("msp-podcast-1.12-test"))


def test_partition_that_the_corpus_lacks_is_named():
    with pytest.raises(ValueError, match=r"msp-podcast/test-2"):
        divide(podcast(("a", "7", "train"), ("b", "5", "validation")), load_protocol("msp-podcast-1.12-test-2"))


def test_test_set_of_another_size_than_its_release_is_refused():
    table = podcast(("a", "7", "train"), ("b", "5", "validation"), ("c", "9", "test"))

    with pytest.raises(ValueError, match=r"Expected 10124 clips .* got 1\."):
        divide(table, load_protocol("msp-podcast-1.6-test"))


def test_table_without_partitions_is_refused_by_a_protocol_of_partitions():
    with pytest.raises(ValueError, match="column `partition`"):
        divide(ravdess([1]), load_protocol("msp-podcast-1.12-test"))


def test_the_protocol_for_shipped_weights_tests_nobody():
    assert {*load_protocol("ravdess-20-all").train} == ALL
    assert not load_protocol("ravdess-20-all").validation + load_protocol("ravdess-20-all").test


def test_the_synthetic_protocol_has_every_voice_in_one_split():
    protocol = load_protocol("synthetic-10")

    assert_disjoint(protocol)
    assert {*protocol.train, *protocol.validation, *protocol.test} == set(SPEAKERS)


def test_fixed_protocol_tests_the_last_four_actors():
    protocol = load_protocol("ravdess-20-fixed")

    assert protocol.test == ("ravdess/17", "ravdess/18", "ravdess/19", "ravdess/20")
    assert protocol.validation == ("ravdess/13", "ravdess/14", "ravdess/15", "ravdess/16")


def test_folds_test_every_actor_once_and_validate_on_the_next_fold():
    folds = [load_protocol(name) for name in FOLDS]

    assert Counter(speaker for fold in folds for speaker in fold.test) == dict.fromkeys(ALL, 1)
    assert [fold.validation for fold in folds] == [fold.test for fold in folds[1:] + folds[:1]]


def test_folds_are_those_of_earlier_results():
    tests = [" ".join(speaker.removeprefix("ravdess/") for speaker in load_protocol(name).test) for name in FOLDS]

    assert tests == ["01 11 17 20", "04 10 12 14", "08 09 15 19", "03 05 07 18", "02 06 13 16"]


def test_speaker_in_two_splits_is_named_with_both_splits():
    with pytest.raises(ValueError, match=r"ravdess/03.*`train`.*`test`"):
        assert_disjoint(Protocol(train=("ravdess/02", "ravdess/03"), validation=(), test=("ravdess/03",)))


def test_unknown_protocol_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match="ravdess-20-fold-5"):
        load_protocol("ravdess-24")


def test_a_corpus_without_a_default_protocol_requires_a_name():
    table = ravdess(range(1, 25))

    with pytest.raises(ValueError, match="`--protocol`, because ravdess has several"):
        apply_protocol("ravdess", table)
    _, protocol = apply_protocol("ravdess", table, "ravdess-hicmae-fold-1")
    assert protocol.test == load_protocol("ravdess-hicmae-fold-1").test


def test_the_protocol_all_is_every_clip_as_a_test_clip():
    table = ravdess([1, 7])

    rows, protocol = apply_protocol("ravdess", table, "all", splits=("test",))

    assert rows["id"][:] == table["id"][:]
    assert protocol == Protocol(train=(), validation=(), test=("ravdess/01", "ravdess/07"))


def test_random_splits_need_a_speaker_each():
    fractions = {"train": 0.5, "validation": 0.25, "test": 0.25}

    assert random_protocol(["a/1", "a/2", "a/3"], fractions, 0).by == "speaker"
    with pytest.raises(ValueError, match="at least 3 speakers"):
        random_protocol(["a/1", "a/2"], fractions, 0)
