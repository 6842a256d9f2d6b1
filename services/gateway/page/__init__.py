"""The page for people: static files, the reads that only it needs, and the stream that keeps it current."""
