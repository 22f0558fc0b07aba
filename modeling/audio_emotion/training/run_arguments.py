"""The arguments that every training recipe has."""

from dataclasses import dataclass, field

from huggingface_hub.dataclasses import strict


@strict
@dataclass(kw_only=True)
class RunArguments:
    """Where a training's clips come from, how it runs and where it writes."""

    output: str = field(metadata={"help": "Run folder."})
    corpus: str = field(default="synthetic", metadata={"help": "Corpus by name, or the .yaml that describes it."})
    corpus_path: str = field(default="", metadata={"help": "Its folder; else $AUDIO_EMOTION_DATA/<corpus>."})
    corpus_count: int = field(default=600, metadata={"help": "Clips of the synthetic corpus."})
    split: str = field(default="", metadata={"help": "Speaker split by name; else the corpus's own."})
    train_on_validation: bool = field(default=False, metadata={"help": "Train on the validation speakers too."})
    dropout: float = field(default=0.2, metadata={"help": "Dropout of trunk and heads."})
    batch_size: int = field(default=32, metadata={"help": "Clips of a global batch, over which the CCC is taken."})
    weight_decay: float = field(default=0.01, metadata={"help": "AdamW's."})
    label_smoothing: float = field(default=0.1, metadata={"help": "Of the cross-entropy with labels."})
    dimensions_weight: float = field(default=1.0, metadata={"help": "Weight of the CCC with labels."})
    emotions_weight: float = field(default=1.0, metadata={"help": "Weight of the cross-entropy with labels."})
    mixed_precision: str = field(default="", metadata={"help": "no or bf16; else as launched."})
    trackers: list[str] = field(default_factory=list, metadata={"help": "tensorboard, trackio."})
    num_workers: int = field(default=0, metadata={"help": "Processes that read ahead, of each training process."})
    max_bad_share: float = field(default=0.05, metadata={"help": "More undecodable clips than this stop the run."})
    save_every: int = field(default=200, metadata={"help": "Steps between states from which a killed run goes on."})
    restart: bool = field(default=False, metadata={"help": "Write over what another run has left in `output`."})
    seed: int = field(default=0, metadata={"help": "Of everything."})
