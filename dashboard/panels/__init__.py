"""The parts of the page *Tuning*: controls with what they would do, the proposal, what came."""
