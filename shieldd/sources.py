"""Which source of events a configuration gets, and why not a better one.

fanotify names the process behind each event and needs rights that only the service has; inotify sees the same changes
and nobody behind them. What a host gets is shown by `status`, with the reason where it is not the best there is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from shieldd.config import Config, DaemonMode, WatchBackend
from shieldd.errors import ShieldError
from shieldd.native.actors import Actors
from shieldd.native.observe import Baseline, Windows
from shieldd.respond import Trees
from shieldd.watch import Source, Tree
from shieldd.watch.native_source import NativeSource

PERSONAL: Final = "personal mode marks no file system; the service does"
ASKED: Final = "the configuration asks for it (watch.backend)"

log = structlog.get_logger("shieldd.sources")


def choose(
    config: Config,
    trees: Trees,
    exclude: Mapping[int, Sequence[bytes]],
    baseline: Baseline,
    windows: Windows,
    actors: Actors,
) -> tuple[Source, str]:
    """The best source that may run here.

    Args:
        exclude: globs of what is not watched, by index of the tree.
        actors: the table of processes that attributed events refer to.

    Returns:
        The source, not started, and why it is not fanotify; empty where it is.

    Raises:
        ShieldError: `watch.*` where the one that was asked for by name may not run.
    """
    section = config.watch
    watched = [
        Tree(root=tree.root, root_fd=tree.root_fd, exclude=tuple(exclude[tree.index]), index=tree.index)
        for tree in trees
    ]
    if section.backend is WatchBackend.PYINOTIFY:
        from shieldd.watch.pyinotify_source import PyinotifySource  # noqa: PLC0415 - only where it is asked for

        return PyinotifySource(watched, inspect=section.inspect, baseline=baseline, windows=windows), ASKED
    why = ASKED
    if section.backend in (WatchBackend.AUTO, WatchBackend.FANOTIFY):
        by_name = section.backend is WatchBackend.FANOTIFY
        why = "" if by_name or config.daemon.mode is DaemonMode.SERVICE else PERSONAL
        if not why:
            why = _refusal(watched)
            if why and by_name:
                raise ShieldError("watch.unsupported", why)
    if not why:
        from shieldd.watch.fanotify_source import FanotifySource  # noqa: PLC0415 - only where it may run

        return (
            FanotifySource(
                watched,
                inspect=section.inspect,
                coalesce_ms=section.coalesce_ms,
                capacity=section.queue,
                baseline=baseline,
                windows=windows,
                actors=actors,
            ),
            "",
        )
    if why not in (ASKED, PERSONAL):
        log.warning("events come from inotify: no process is named or held", reason=why)
    return (
        NativeSource(
            watched,
            inspect=section.inspect,
            coalesce_ms=section.coalesce_ms,
            capacity=section.queue,
            baseline=baseline,
            windows=windows,
        ),
        why,
    )


def _refusal(watched: Sequence[Tree]) -> str:
    """Why fanotify may not watch these trees, by trying it for a moment; empty where it may."""
    from shieldd.watch.fanotify_source import FanotifySource  # noqa: PLC0415 - only in the service

    try:
        trial = FanotifySource(watched, inspect=False, capacity=1024)
    except ShieldError as error:
        return error.message
    try:
        trial.start()
    except ShieldError as error:
        where = f" ({os.fsdecode(error.path)})" if error.path else ""
        return error.message + where
    finally:
        trial.stop()
    return ""
