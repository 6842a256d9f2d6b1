"""Snapshots in; breach streaks, escalation and alert transitions out."""
