"""The rehearsal behind `shieldctl drill`: a hospital's files made up by seed, a real attack on them, and the count.

`tree` owns the marked scratch directory and every write and delete in it; `corpus` and the writers it calls make
the files; `attack` runs the real tool in a process group of its own; `drops` are the malware and the export;
`score` compares digests before and after; `rehearsal` is the story from start to end. Nothing here decides
anything about protection: that is the daemon, asked through `shieldctl.client` only.
"""
