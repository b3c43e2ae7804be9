"""One question as the caller passes it: its words, user, context, history and day."""
