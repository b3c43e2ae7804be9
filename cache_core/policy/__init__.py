"""Policy of semantic hits: which stored answer may be served, by what is known of it.

Pure functions and values: no store, no model, no clock. `answers.py` says whether two answers are
the same, `curve.py` how likely one is right at a similarity, `evidence.py` what was learned of each
answer, and `decide.py` what is served, or why nothing is.
"""
