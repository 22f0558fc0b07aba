"""Configurations: invalid fields are refused by name, and saving preserves every field."""

from __future__ import annotations

import json

import pytest
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassFieldValidationError

from audio_emotion.configuration_emotion import FusedEmotionConfig, StudentEmotionConfig
from audio_emotion.layers import TRUNKS

LOG_MEL = {"name": "log-mel", "kind": "log-mel", "num_mel_bins": 40}
BOTH = [
    (StudentEmotionConfig, {"teacher_emotions": {"speech": ["a", "b"]}, "num_mel_bins": 20}),
    (FusedEmotionConfig, {"streams": [LOG_MEL], "fusion": "gate", "stream_dropout": 0.5}),
]


@pytest.mark.parametrize(("kind", "fields"), BOTH)
def test_a_configuration_is_loaded_as_it_was_saved(kind, fields, tmp_path):
    config = kind(
        **fields,
        emotions=["calm", "angry"],
        dimension_weights=[0.5, 0.25, 0.25],
        pooling="statistics",
        license="CC-BY-NC-SA-4.0",
        training_data=[{"corpus": "ravdess", "speakers": ["01"]}],
        dimensions_source="norm-derived",
    )
    config.save_pretrained(tmp_path)

    again = kind.from_pretrained(tmp_path)

    assert again.to_json_string() == config.to_json_string()
    assert again.id2label == {0: "calm", 1: "angry"}
    assert again.label2id == {"calm": 0, "angry": 1}


@pytest.mark.parametrize(("kind", "fields"), BOTH)
@pytest.mark.parametrize("value", [0, 1, 0.0, 0.25])
def test_a_whole_number_is_accepted_as_a_float(kind, fields, value, tmp_path):
    """JSON and YAML may write 1.0 as 1, which a strict float field would refuse."""
    kind(**fields, dropout=value, dimension_weights=[1, 0, 0.5]).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    written["dropout"] = int(value) if value == int(value) else value
    (tmp_path / "config.json").write_text(json.dumps(written))

    again = kind.from_pretrained(tmp_path)

    assert again.dropout == value
    assert list(again.dimension_weights) == [1, 0, 0.5]


def test_stream_dropout_may_be_a_whole_number():
    assert FusedEmotionConfig(streams=[LOG_MEL], stream_dropout=0).stream_dropout == 0


@pytest.mark.parametrize(
    ("kind", "misspelled", "meant"),
    [
        (StudentEmotionConfig, "hiden_size", "hidden_size"),
        (StudentEmotionConfig, "frame_per_step", "frames_per_step"),
        (StudentEmotionConfig, "emotion", "emotions"),
        (FusedEmotionConfig, "projecton_size", "projection_size"),
        (FusedEmotionConfig, "poolling", "pooling"),
    ],
)
def test_a_misspelled_field_is_an_error_that_names_the_right_one(kind, misspelled, meant):
    with pytest.raises(TypeError, match=f"{misspelled}.*Did you mean `{meant}`"):
        kind(**{misspelled: 5})


@pytest.mark.parametrize(("kind", "fields"), BOTH)
@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"pooling": "mean"}, "pooling"),
        ({"dimension_weights": [1.0]}, "dimension_weights"),
        ({"look_ahead": 3}, "look_ahead"),
        ({"look_ahead": -1}, "look_ahead"),
        ({"emotions": ["calm", "calm"]}, "emotions"),
    ],
)
def test_inconsistent_fields_are_refused_by_name(kind, fields, wrong, named):
    with pytest.raises((ValueError, StrictDataclassClassValidationError), match=named):
        kind(**fields, **wrong)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"fusion": "sum"}, "fusion"),
        ({"streams": [LOG_MEL, LOG_MEL]}, "name"),
        ({"streams": [{**LOG_MEL, "kind": "mfcc"}]}, "kind"),
    ],
)
def test_wrong_streams_are_refused_by_name(wrong, named):
    with pytest.raises((ValueError, StrictDataclassClassValidationError), match=named):
        FusedEmotionConfig(**wrong)


def test_a_field_of_the_wrong_type_is_refused():
    with pytest.raises(StrictDataclassFieldValidationError, match="hidden_size"):
        StudentEmotionConfig(hidden_size="128")


def test_an_unknown_size_is_an_error_that_names_the_known_ones():
    with pytest.raises(ValueError, match=r"nano.*small.*base.*'huge'"):
        StudentEmotionConfig.of_size("huge")


def test_a_field_overrides_that_of_the_size():
    config = StudentEmotionConfig.of_size("nano", hidden_size=40, emotions=["calm"])

    assert config.hidden_size == 40
    assert config.convolution_size == TRUNKS["tc-gru"].sizes["nano"]["convolution_size"]


@pytest.mark.parametrize(("kind", "fields"), BOTH)
def test_a_model_of_dimensions_only_has_no_labels(kind, fields, tmp_path):
    kind(**fields).save_pretrained(tmp_path)
    for config in (kind(**fields), kind.from_pretrained(tmp_path)):
        assert list(config.emotions) == []
        assert config.id2label == {}
        assert config.label2id == {}
        assert config.num_labels == 0


@pytest.mark.parametrize(
    "assign",
    [
        lambda config: setattr(config, "id2label", {0: "x", 1: "y"}),
        lambda config: setattr(config, "id2label", {"1": "y", "0": "x"}),
        lambda config: setattr(config, "emotions", ["x", "y"]),
    ],
)
def test_emotions_and_labels_are_consistent_whichever_is_assigned(assign):
    config = StudentEmotionConfig(emotions=["a", "b", "c"])
    assign(config)

    assert config.emotions == ["x", "y"]
    assert {int(index): name for index, name in config.id2label.items()} == {0: "x", 1: "y"}
    assert config.label2id == {"x": 0, "y": 1}
    assert config.num_labels == 2


def test_labels_without_emotions_name_the_emotions():
    config = StudentEmotionConfig(id2label={0: "x", 1: "y"}, label2id={"x": 0, "y": 1})

    assert config.emotions == ["x", "y"]


def test_a_number_of_labels_creates_as_many_emotions():
    config = StudentEmotionConfig(num_labels=3)

    assert config.emotions == ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert config.num_labels == 3


def test_more_than_ten_labels_are_ordered_by_number(tmp_path):
    names = [f"emotion {number}" for number in range(12)]
    StudentEmotionConfig(emotions=names).save_pretrained(tmp_path)

    assert StudentEmotionConfig.from_pretrained(tmp_path).emotions == names


@pytest.mark.parametrize(("kind", "fields"), BOTH)
@pytest.mark.parametrize("trunk", ["tc-gru", "convolutional"])
@pytest.mark.parametrize("pooling", ["last", "attentive"])
def test_the_former_key_read_out_is_read_as_pooling_and_written_as_pooling(kind, fields, trunk, pooling, tmp_path):
    kind(**fields, look_ahead=0, trunk=trunk, pooling="statistics").save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    del written["pooling"]
    (tmp_path / "config.json").write_text(json.dumps(written | {"read_out": pooling}))

    config = kind.from_pretrained(tmp_path)
    config.save_pretrained(tmp_path)

    again = json.loads((tmp_path / "config.json").read_text())
    assert config.pooling == pooling
    assert "read_out" not in again
    assert kind.from_pretrained(tmp_path).pooling == pooling


def test_an_unknown_former_pooling_is_refused():
    with pytest.raises(StrictDataclassClassValidationError, match=r"`pooling` must be one of .*'mean'"):
        StudentEmotionConfig(read_out="mean")
