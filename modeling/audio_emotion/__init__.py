"""Speech emotion recognition with transformers: registers the Auto classes and the pipeline "audio-emotion"."""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

__all__ = [
    "DEFAULT",
    "STUDENT",
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
_DEFAULT_MODEL = Path(__file__).parent / "embedded" / "lite"
DEFAULT = str(_DEFAULT_MODEL)  # of the pipeline
# A student that streams, for non-commercial use: `pipeline("audio-emotion", model=audio_emotion.STUDENT)`.
STUDENT = str(_DEFAULT_MODEL.with_name("student"))

logger = logging.getLogger(__name__)


def _hide_broken_torchaudio() -> None:
    """Hide a torchaudio that is installed but cannot be imported, on which transformers would fail.

    A torchaudio built for CUDA raises OSError with a CPU-only torch, and RuntimeError with another CUDA version.
    """
    try:
        import torchaudio  # noqa: F401
    except ImportError:
        pass
    except (OSError, RuntimeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
            del sys.modules[name]
        sys.modules["torchaudio"] = None  # type: ignore[assignment]  # importing it raises ImportError


try:
    if os.environ.get("AUDIO_EMOTION_RUNTIME"):  # imported for `audio_emotion.runtime` alone: as where torch is absent
        raise ImportError
    import torch  # noqa: F401

    _hide_broken_torchaudio()
    import transformers  # noqa: F401
except ImportError:  # importing the package works without both
    _HAS_MODELS = False
else:
    _HAS_MODELS = True

if _HAS_MODELS:
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification
    from transformers.dynamic_module_utils import custom_object_save
    from transformers.pipelines import PIPELINE_REGISTRY

    from .audio_io import AudioClip, read_audio
    from .checkpoint_loading import require_checkpoint
    from .configuration_emotion import EmotionConfig, FusedEmotionConfig, StudentEmotionConfig
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


class _DefaultModel(dict):
    """The default model of the task, looked up only for `pipeline("audio-emotion")` without a model."""

    def __getitem__(self, key: str) -> Any:
        if key == "model":
            _log_license_of_default_model()
        return super().__getitem__(key)


@functools.cache
def _log_license_of_default_model() -> None:
    """Log the license of the default model once.

    Raises:
        ValueError: where this installation has no default model.
    """
    try:
        license = json.loads((_DEFAULT_MODEL / "config.json").read_text(encoding="utf-8"))["license"]
    except FileNotFoundError as error:
        raise ValueError(
            f'Expected `pipeline("{_TASK}", model=...)` with a folder or a Hub id, got no model, and this '
            "installation has no default model. Pass `model`."
        ) from error
    text = _DEFAULT_MODEL / "LICENSE"
    logger.warning('The weights of the default model of "%s" are licensed under %s: see %s.', _TASK, license, text)


def _register() -> None:
    """Register models and pipeline with transformers, and let checkpoints carry their code."""
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
    default = _DefaultModel(model=(str(_DEFAULT_MODEL), None))
    PIPELINE_REGISTRY.register_pipeline(
        _TASK, AudioEmotionPipeline, pt_model=AutoModelForAudioClassification, default=default, type="audio"
    )
    # Copied into every checkpoint; without the default, which is a local path.
    registered = AudioEmotionPipeline._registered_impl[_TASK]
    AudioEmotionPipeline._registered_impl = {_TASK: {key: registered[key] for key in ("impl", "pt", "type")}}


class _RegisteredTask(dict):
    """Names the task, which `pipeline(model=...)` then infers; `in` is False, so that its registry is used."""

    def __contains__(self, task: object) -> bool:
        return False


def _prefer_registered_pipeline() -> None:
    """Hide `config.custom_pipelines` from `pipeline()`; the stored value is kept and written.

    `pipeline()` checks it before its registry, and then requires `trust_remote_code` for code that is installed here.
    Only the classes of this package are changed, never their copies in a checkpoint.
    """

    def store(config: EmotionConfig, value: dict) -> None:
        config.__dict__["custom_pipelines"] = value

    EmotionConfig.custom_pipelines = property(lambda config: _RegisteredTask({_TASK: {}}), store)


def _save_pipeline_with_configuration() -> None:
    """Make `save_pretrained` of a published checkpoint's model write the pipeline that its configuration names.

    transformers writes the entry without the file, and for a checkpoint from the Hub entries that point to the Hub.
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


def _name_checkpoint_of_run_folder() -> None:
    """Make `pipeline(model="a run folder")` and the Auto classes name the folder to load; nothing else changes."""
    load_configuration = AutoConfig.from_pretrained.__func__

    @functools.wraps(load_configuration)
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        require_checkpoint(pretrained_model_name_or_path)
        return load_configuration(cls, pretrained_model_name_or_path, **kwargs)

    AutoConfig.from_pretrained = classmethod(from_pretrained)


if _HAS_MODELS:
    _register()
    _name_checkpoint_of_run_folder()
    _prefer_registered_pipeline()
    _save_pipeline_with_configuration()
