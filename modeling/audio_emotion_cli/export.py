"""`audio-emotion export`: write the ONNX graphs of a model."""

from __future__ import annotations

import argparse
from pathlib import Path

from audio_emotion_cli import EXIT_OK, UsageError
from audio_emotion_cli.inputs import load_pipeline


def run(args: argparse.Namespace) -> int:
    """Export, compare with PyTorch, and print the files with their sizes."""
    from audio_emotion.hub.onnx_export import export_onnx

    model = load_pipeline(args.model, args.revision, "cpu").model.float()
    folder = Path(args.output) if args.output else Path(args.model) / "onnx"
    if not args.output and not Path(args.model).is_dir():
        raise UsageError(f"expected --output FOLDER for {args.model}, which is no folder here.")
    try:
        files = export_onnx(model, folder, args.quantize)
    except (ImportError, ValueError) as error:
        raise UsageError(str(error)) from error
    for file in files:
        print(f"{file}  {file.stat().st_size / 1e6:.1f} MB")
    return EXIT_OK
