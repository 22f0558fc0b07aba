"""Publish a model, pseudo-labels or a metric on the Hub: the same as `audio-emotion publish`.

python recipes/publish.py runs/distill_ravdess --repo somebody/student --dry-run --output runs/student_to_publish
python recipes/publish.py runs/distill_ravdess --repo somebody/student --private --tag v1
"""

import sys

from audio_emotion_cli import main

if __name__ == "__main__":
    raise SystemExit(main(["publish", *sys.argv[1:]]))
