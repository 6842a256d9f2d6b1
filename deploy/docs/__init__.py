"""The documents that are generated from the running code, and the check that they are not stale."""
