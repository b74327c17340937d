"""Judges what was observed: the learned policy, the guard's hard rules, incidents, canaries. Decides; does no I/O
beyond the model file; the time is always an argument."""
