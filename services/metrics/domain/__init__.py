"""The rules of metrics: pure functions on frozen data."""
