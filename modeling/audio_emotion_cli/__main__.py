"""`python -m audio_emotion_cli`: the command where no script is installed."""

from audio_emotion_cli import main

if __name__ == "__main__":
    raise SystemExit(main())
