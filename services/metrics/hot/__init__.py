"""The hot path: what nearly every event is, taken in whole columns at a time. docs/decisions/ says why and how.

``decoding`` reads plain events from a run's bytes, ``memory`` knows what was met last and what is stored,
``joining`` joins in columns, ``copying`` writes rows. Whatever is not plain goes the way next door, one by one.
"""
