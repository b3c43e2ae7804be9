"""One put: who may read an answer, whether it may be stored, and the writes."""
