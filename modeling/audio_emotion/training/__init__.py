"""The workshop: what recipes need and checkpoints do not."""
