"""What training recipes share; checkpoints do not contain it."""
