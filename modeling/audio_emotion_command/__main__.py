"""`python -m audio_emotion_command`: the command where no script is installed."""

from audio_emotion_command import main

if __name__ == "__main__":
    raise SystemExit(main())
