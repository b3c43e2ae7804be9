"""The learned policy on labelled traffic."""
