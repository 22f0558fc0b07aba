"""Metrics, protocols, robustness and fairness, reports."""
