"""A run folder is resumed with the same arguments only."""

from dataclasses import dataclass, field

import pytest
import yaml

from audio_emotion.training.trainer_state import RunFolder


@dataclass
class Arguments:
    corpus: str
    epochs: int = 3
    telephone: float = 0.0
    speakers: list[str] = field(default_factory=list)


def test_a_finished_run_of_the_same_arguments_returns_its_results(tmp_path):
    RunFolder(tmp_path, Arguments("a", epochs=2)).results({"uar": 0.5})

    assert RunFolder(tmp_path, Arguments("a", epochs=2), resume=True).finished == {"uar": 0.5}
    with pytest.raises(ValueError, match=r"`epochs` was 2 there, is 3 here"):
        RunFolder(tmp_path, Arguments("a"), resume=True)


@pytest.mark.parametrize(("now", "same"), [(0.0, True), (0.3, False)])
def test_an_argument_added_since_had_its_default(now, same, tmp_path):
    RunFolder(tmp_path, Arguments("a")).results({"uar": 0.5})
    stored = yaml.safe_load((tmp_path / "config.yaml").read_text())
    del stored["telephone"], stored["speakers"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(stored))

    if same:
        assert RunFolder(tmp_path, Arguments("a", telephone=now), resume=True).finished == {"uar": 0.5}
    else:
        with pytest.raises(ValueError, match=r"`telephone` was 0\.0 there, is 0\.3 here"):
            RunFolder(tmp_path, Arguments("a", telephone=now), resume=True)
