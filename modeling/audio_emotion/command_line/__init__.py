"""What the subcommands of `audio-emotion` do; their arguments stand in `audio_emotion_command`."""
