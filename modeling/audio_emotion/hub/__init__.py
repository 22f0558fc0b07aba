"""Publishing: checkpoints that load where the package is absent, and their cards."""
