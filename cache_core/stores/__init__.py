"""Where keyed entries live: one protocol, Redis and an embedded SQLite file."""
