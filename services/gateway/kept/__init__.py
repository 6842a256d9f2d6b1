"""Answers kept in memory, each under the revision of what it is about, and given only while that stands."""
