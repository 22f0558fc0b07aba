"""Corpora, splits, and the way from a table of clips to padded batches."""
