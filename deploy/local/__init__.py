"""The local stack: its parts (broker, PostgreSQL), and the supervisor that keeps it running."""
