"""Snapshots in; decisions, retraining jobs, and what became of them out."""
