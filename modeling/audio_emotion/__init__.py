"""Emotion in speech with transformers: importing registers the Auto classes and the "audio-emotion" pipeline."""

from __future__ import annotations

import functools
import json
import logging
import sys
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

__all__ = [
    "AudioClip",
    "AudioEmotionPipeline",
    "EmotionFeatureExtractor",
    "EmotionOutput",
    "FusedEmotionConfig",
    "FusedEmotionForAudioClassification",
    "FusedEmotionModel",
    "StudentEmotionConfig",
    "StudentEmotionForAudioClassification",
    "StudentEmotionModel",
    "__version__",
    "read_audio",
]
_TASK = "audio-emotion"
_EMBEDDED_STUDENT = Path(__file__).parent / "embedded" / "student"

logger = logging.getLogger(__name__)


def _set_broken_torchaudio_aside() -> None:
    """Hide a torchaudio that cannot be imported: transformers asks only whether it exists, and then fails with it.

    A torchaudio built for CUDA raises OSError beside a CPU-only torch, and RuntimeError beside another CUDA's.
    """
    try:
        import torchaudio  # noqa: F401
    except ImportError:
        pass
    except (OSError, RuntimeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
            del sys.modules[name]
        sys.modules["torchaudio"] = None  # type: ignore[assignment]  # from now on it does not exist


try:
    import torch  # noqa: F401

    _set_broken_torchaudio_aside()
    import transformers  # noqa: F401
except ImportError:  # `audio_emotion.runtime` lives without both
    _COMPLETE = False
else:
    _COMPLETE = True

if _COMPLETE:
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification
    from transformers.dynamic_module_utils import custom_object_save
    from transformers.pipelines import PIPELINE_REGISTRY

    from .audio_io import AudioClip, read_audio
    from .configuration_emotion import EmotionConfig
    from .configuration_fused_emotion import FusedEmotionConfig
    from .configuration_student_emotion import StudentEmotionConfig
    from .feature_extraction_emotion import EmotionFeatureExtractor
    from .layers import EmotionOutput
    from .modeling_fused_emotion import FusedEmotionForAudioClassification, FusedEmotionModel
    from .modeling_student_emotion import StudentEmotionForAudioClassification, StudentEmotionModel
    from .pipeline_audio_emotion import AudioEmotionPipeline
    from .pretrained_emotion import auto_map


def __getattr__(name: str) -> Any:
    if name in __all__:
        raise ImportError(f"audio_emotion.{name} needs torch and transformers: `pip install torch transformers`.")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _EmbeddedStudent(dict):
    """The task's default, looked up only when `pipeline("audio-emotion")` is given no model."""

    def __getitem__(self, key: str) -> Any:
        if key == "model":
            _announce_embedded_student()
        return super().__getitem__(key)


@functools.cache
def _announce_embedded_student() -> None:
    """Say once under which terms the default's weights stand.

    Raises:
        ValueError: where this installation has no embedded student.
    """
    try:
        terms = json.loads((_EMBEDDED_STUDENT / "config.json").read_text(encoding="utf-8"))["license"]
    except FileNotFoundError as error:
        raise ValueError(
            f'Expected `pipeline("{_TASK}", model=...)` with a folder or a Hub id, got no model, and this '
            "installation carries no default one. Pass `model`."
        ) from error
    license = _EMBEDDED_STUDENT / "LICENSE"
    logger.warning('The default model of "%s" has weights under %s: see %s.', _TASK, terms, license)


def _register() -> None:
    """Make models known to the Auto classes, the pipeline to `pipeline()`, and let checkpoints carry their code."""
    for config, base, with_heads in (
        (StudentEmotionConfig, StudentEmotionModel, StudentEmotionForAudioClassification),
        (FusedEmotionConfig, FusedEmotionModel, FusedEmotionForAudioClassification),
    ):
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModel.register(config, base, exist_ok=True)
        AutoModelForAudioClassification.register(config, with_heads, exist_ok=True)
        AutoFeatureExtractor.register(config, EmotionFeatureExtractor, exist_ok=True)
        config.register_for_auto_class()
        base.register_for_auto_class("AutoModel")
        with_heads.register_for_auto_class("AutoModelForAudioClassification")
    EmotionFeatureExtractor.register_for_auto_class()
    default = _EmbeddedStudent(model=(str(_EMBEDDED_STUDENT), None))
    PIPELINE_REGISTRY.register_pipeline(
        _TASK, AudioEmotionPipeline, pt_model=AutoModelForAudioClassification, default=default, type="audio"
    )
    # What a checkpoint says of its pipeline is copied from here: the default is a path of this machine, leave it out.
    registered = AudioEmotionPipeline._registered_impl[_TASK]
    AudioEmotionPipeline._registered_impl = {_TASK: {key: registered[key] for key in ("impl", "pt", "type")}}


class _TaskOfRegistry(dict):
    """Names the task, so that `pipeline(model=...)` needs none; `in` denies it, so that the registry's code is run."""

    def __contains__(self, task: object) -> bool:
        return False


def _let_registered_pipeline_win() -> None:
    """Make `config.custom_pipelines` read as what the registry has, though what was read is kept and written.

    `pipeline()` looks at it before the registry, and then demands `trust_remote_code` for code that is installed here.
    Only the classes of this package are changed, never their copies in a checkpoint.
    """

    def keep(config: EmotionConfig, value: dict) -> None:
        config.__dict__["custom_pipelines"] = value

    EmotionConfig.custom_pipelines = property(lambda config: _TaskOfRegistry({_TASK: {}}), keep)


def _let_saved_again_carry_pipeline() -> None:
    """Make a published checkpoint that is loaded and saved again carry the pipeline that its configuration names.

    transformers keeps the entry and forgets the file; for one from the Hub, the entries would point back there.
    """
    save_configuration = EmotionConfig.save_pretrained

    @functools.wraps(save_configuration)
    def save_pretrained(self: EmotionConfig, save_directory: str | Path, *args, **kwargs) -> None:
        if _TASK in self.__dict__.get("custom_pipelines", {}):
            Path(save_directory).mkdir(parents=True, exist_ok=True)
            custom_object_save(AudioEmotionPipeline, save_directory)
            impl = f"{AudioEmotionPipeline.__module__.rpartition('.')[2]}.{AudioEmotionPipeline.__name__}"
            self.__dict__["custom_pipelines"][_TASK]["impl"] = impl
            self.auto_map = auto_map(self)
        save_configuration(self, save_directory, *args, **kwargs)

    EmotionConfig.save_pretrained = save_pretrained


if _COMPLETE:
    _register()
    _let_registered_pipeline_win()
    _let_saved_again_carry_pipeline()
