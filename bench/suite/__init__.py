"""Real attacks by real programs at full speed, against the real daemon on a file system of its own."""
