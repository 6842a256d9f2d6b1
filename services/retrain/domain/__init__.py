"""The rules of retraining: pure functions over frozen data, with time as an argument."""
