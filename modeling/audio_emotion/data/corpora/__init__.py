"""Corpora: one module each, all giving the same rows."""
