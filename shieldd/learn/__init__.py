"""Where policies come from: simulator, environment, trainer, evaluation, export (extra `shieldd[learn]`).

Nothing that runs in the daemon imports this package. Synthetic events go through the same native windows as the
kernel's, so a trained policy meets no number that was computed otherwise.
"""
