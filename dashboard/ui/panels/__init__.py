"""Parts of the page *Tuning*: controls with their effects, the proposal, the outcomes."""
