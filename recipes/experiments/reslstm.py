"""A published small model in our protocol: ResLSTM-SA (Krasnoproshin & Vashkevich 2026, arXiv 2606.03359).

    python recipes/experiments/reslstm.py --protocol ravdess-20-fold-1

MFCC and chroma per frame, an LSTM with a residual connection, an LSTM with soft attention, 46,772 parameters. Written
anew from the paper. Unlike there, features are normalized by the training speakers alone, and hyperparameters are
chosen on validation speakers: `--trials` random ones of the paper's kind are trained without them, and the best is
trained again on training and validation speakers. Our choices: features of the same durations at 16 kHz (the paper's
recordings have 48 kHz), padding is excluded from the batch statistics, the learning rate falls to zero along a cosine,
the last epoch is used, and the learning rates searched are higher, for fewer epochs.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import set_seed
from datasets import Dataset
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchaudio.transforms import MFCC

from audio_emotion.data.dataset import ClipStream
from audio_emotion.data.registry import apply_protocol, corpus_info, corpus_table, select_speakers
from audio_emotion.data.training_set import class_numbers
from audio_emotion.evaluation.metrics import unweighted_average_recall
from audio_emotion.evaluation.predictions import Predictions, save_predictions
from audio_emotion.evaluation.report import measure
from audio_emotion.training.arguments import argument_group, option, parse_arguments
from audio_emotion.training.feature_cache import digest_of
from audio_emotion.training.trainer_state import RunFolder

WINDOW, HOP, SAMPLING_RATE = 1364, 682, 16_000  # 85 and 43 ms, as 4096 and 2048 samples at 48 kHz
NUM_MFCC, NUM_CHROMA = 34, 12


@argument_group()
class ResLSTMArguments:
    """Train and test ResLSTM-SA."""

    corpus: str = option("ravdess", "Name of the corpus.")
    protocol: str = option("ravdess-20-fold-1", "Name of the protocol.")
    hidden_size: int = option(64, "Width of the second LSTM: 64 for 46,772 parameters.")
    trials: int = option(6, "Random hyperparameters that are compared on the validation speakers.")
    epochs: int = option(60, "Number of training epochs.")
    seed: int = option(0, "Random seed of the final training; that of the trials is 0.")
    cache: str = option("runs/cache", "Folder of the scores of trials, which runs with other seeds share.")
    output: str = option("runs/reslstm", "Run folder.")
    restart: bool = option(False, "Overwrite another run in the output folder.")


@dataclass(frozen=True)
class Hyperparameters:
    """What is chosen on the validation speakers."""

    learning_rate: float
    weight_decay: float
    dropout: float
    batch_size: int

    @classmethod
    def sample(cls, random: np.random.Generator) -> "Hyperparameters":
        """A random choice; the ranges of weight decay and dropout are the paper's."""
        return cls(
            learning_rate=float(np.exp(random.uniform(np.log(3e-4), np.log(3e-3)))),
            weight_decay=float(np.exp(random.uniform(np.log(2e-5), np.log(2e-2)))),
            dropout=float(random.uniform(0.1, 0.5)),
            batch_size=int(random.choice([32, 64])),
        )


class ResLSTM(nn.Module):
    """LSTM with a residual connection, LSTM with soft attention, classifier.

    Args:
        num_features: per frame, `F`.
        hidden_size: of the second LSTM, `H`.
        num_classes: `C`.
        dropout: before the classifier.
    """

    def __init__(self, num_features: int, hidden_size: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.LSTM(num_features, num_features, batch_first=True)
        self.first_norm = nn.BatchNorm1d(num_features)
        self.second = nn.LSTM(num_features, hidden_size, batch_first=True)
        self.attention = nn.Parameter(torch.empty(hidden_size))
        self.norm = nn.BatchNorm1d(hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden_size, num_classes)
        nn.init.normal_(self.attention, std=hidden_size**-0.5)
        for lstm in (self.first, self.second):
            nn.init.xavier_normal_(lstm.weight_ih_l0)
            nn.init.orthogonal_(lstm.weight_hh_l0)
            for bias in (lstm.bias_ih_l0, lstm.bias_hh_l0):
                nn.init.zeros_(bias)
                bias.data[lstm.hidden_size : 2 * lstm.hidden_size] = 1.0  # of the forget gate

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `(B, C)` and attention weights `(B, T)`, 0 in padding, of `(B, T, F)` with `lengths (B,)` frames."""
        inside = torch.arange(features.shape[1]) < lengths[:, None]  # (B, T)
        states, _ = self.first(features)  # padding follows the clip, and an LSTM depends on earlier frames alone
        residual = torch.zeros_like(features)
        residual[inside] = self.first_norm((states + features)[inside])
        states, _ = self.second(residual)  # (B, T, H)
        scores = states @ self.attention  # (B, T)
        weights = scores.masked_fill(~inside, -torch.inf).softmax(-1)
        pooled = torch.einsum("bt,bth->bh", weights, states)
        return self.classifier(self.dropout(self.norm(pooled))), weights


def chroma_filters(num_bins: int) -> Tensor:
    """Fraction of each bin in the twelve pitch classes from C, `(num_bins, 12)`: linear between the nearest two.

    Bins below 32.7 Hz (C1) are left out. A4 = 440 Hz is class 9.
    """
    frequencies = torch.arange(num_bins) * SAMPLING_RATE / WINDOW
    audible = frequencies >= 32.7
    pitch = (12 * torch.log2(frequencies.clamp(min=32.7) / 440) + 9) % NUM_CHROMA  # semitones above C
    distance = (pitch[:, None] - torch.arange(NUM_CHROMA)).abs()
    distance = torch.minimum(distance, NUM_CHROMA - distance)
    return (1 - distance).clamp(min=0) * audible[:, None]


class Features(nn.Module):
    """34 MFCC and 12 chroma values per frame of 85 ms, every 43 ms."""

    def __init__(self) -> None:
        super().__init__()
        spectrogram = {"n_fft": WINDOW, "hop_length": HOP, "n_mels": 64}
        self.mfcc = MFCC(SAMPLING_RATE, NUM_MFCC, melkwargs=spectrogram)
        self.filters = chroma_filters(WINDOW // 2 + 1)

    def forward(self, waveform: Tensor) -> Tensor:
        """`(S,)` to `(T, 46)`."""
        window = torch.hann_window(WINDOW)
        spectrum = torch.stft(waveform, WINDOW, HOP, window=window, return_complex=True).abs().square()  # (bins, T)
        chroma = spectrum.T @ self.filters
        chroma = chroma / chroma.amax(-1, keepdim=True).clamp(min=1e-10)
        return torch.cat([self.mfcc(waveform).T, chroma], dim=-1)


def train(
    rows: tuple[list[Tensor], Tensor], given: Hyperparameters, args: ResLSTMArguments, num_classes: int, seed: int
) -> ResLSTM:
    """Train on normalized features `(T, F)` of each clip, and class numbers `(N,)`."""
    features, labels = rows
    set_seed(seed)
    model = ResLSTM(features[0].shape[1], args.hidden_size, num_classes, given.dropout)
    optimizer = torch.optim.Adam(model.parameters(), lr=given.learning_rate, weight_decay=given.weight_decay)
    steps = len(features) // given.batch_size  # the last short batch is left out, for the batch statistics
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs * steps)
    for _ in range(args.epochs):
        model.train()
        order = torch.randperm(len(features))[: steps * given.batch_size].view(steps, -1)
        for batch in order.tolist():
            logits, _ = model(*padded([features[row] for row in batch]))
            loss = nn.functional.cross_entropy(logits, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def padded(features: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Padded features `(B, T, F)` and number of frames `(B,)`."""
    return pad_sequence(features, batch_first=True), torch.tensor([len(each) for each in features])


@torch.no_grad()
def predict(model: ResLSTM, features: list[Tensor]) -> np.ndarray:
    """Logits `(N, C)`."""
    parts = [model(*padded(features[begin : begin + 64]))[0] for begin in range(0, len(features), 64)]
    return torch.cat(parts).numpy()


def main(args: ResLSTMArguments) -> dict:
    """Choose hyperparameters, train on training and validation speakers, test, and write the run folder."""
    run = RunFolder(args.output, args, restart=args.restart)
    if run.finished is not None:
        return run.finished
    info = corpus_info(args.corpus)
    emotions = list(info.emotions)
    table, speakers = apply_protocol(args.corpus, corpus_table(args.corpus), args.protocol)
    front_end = Features()
    clips = ClipStream(table)
    computed = {each["id"]: front_end(torch.as_tensor(each["waveform"])) for each in clips.clips(range(len(table)))}

    def normalized(rows: Dataset, by: Dataset) -> list[Tensor]:
        frames = torch.cat([computed[name] for name in by["id"]])
        mean, std = frames.mean(0), frames.std(0)
        return [(computed[name] - mean) / std for name in rows["id"]]

    def labels(rows: Dataset) -> Tensor:
        return torch.from_numpy(class_numbers(rows, emotions))

    train_rows, validation = select_speakers(table, speakers.train), select_speakers(table, speakers.validation)
    both = select_speakers(table, speakers.train + speakers.validation)
    test = select_speakers(table, speakers.test)

    def validation_score(given: Hyperparameters) -> float:
        facts = [args.protocol, args.corpus, args.hidden_size, args.epochs, asdict(given)]
        file = Path(args.cache) / "reslstm" / f"{digest_of(facts)}.json"
        if not file.exists():
            model = train((normalized(train_rows, train_rows), labels(train_rows)), given, args, len(emotions), seed=0)
            logits = predict(model, normalized(validation, train_rows))
            score = unweighted_average_recall(logits.argmax(-1), labels(validation).numpy())
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({"uar": float(score), **asdict(given)}))
        return json.loads(file.read_text())["uar"]

    random = np.random.default_rng(0)
    trials = [Hyperparameters.sample(random) for _ in range(args.trials)]
    for number, given in enumerate(trials, start=1):
        run.log(model=f"trial {number}", validation_uar=round(validation_score(given), 4), **asdict(given))
    best = max(trials, key=validation_score)
    model = train((normalized(both, both), labels(both)), best, args, len(emotions), args.seed)
    logits = predict(model, normalized(test, both))
    nothing = np.zeros((len(logits), 0))
    ids, names = list(test["id"]), np.array(test["speaker"])
    predictions = Predictions(ids, names, logits, nothing, nothing, labels(test).numpy(), nothing)
    predictions.name_genders(dict(zip(ids, test["gender"], strict=True)))
    results = {
        "recipe": "reslstm",
        "model": f"ResLSTM-SA, width {args.hidden_size}",
        "protocol": args.protocol,
        "seed": args.seed,
        "parameters": sum(each.numel() for each in model.parameters()),
        "hyperparameters": asdict(best),
        "train_speakers": sorted({*both["speaker"]}),
        "test": measure(predictions, emotions, [], None),
    }
    save_predictions(predictions, run.path / "predictions.parquet", emotions, [])
    run.results(results)
    print(f"{args.protocol}, seed {args.seed}: UAR {results['test']['uar']:.3f} with {best}")
    return results


if __name__ == "__main__":
    main(parse_arguments(ResLSTMArguments))
