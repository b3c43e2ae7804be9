"""Everything that can be set: settings at the start, tuning while the cache runs."""
