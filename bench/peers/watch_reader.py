"""Readers of one tree that are measured beside each other: ours and the libraries that Python offers.

usage: python -m bench.peers.watch_reader NAME DIR

Prints `ready` once all is watched, and one line of JSON once a file called END was written: events delivered, events
known to be lost, processor seconds, distinct files reported, files looked at; and what the set-up took (ours alone).
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


def _cpu_s() -> float:
    use = resource.getrusage(resource.RUSAGE_SELF)
    return use.ru_utime + use.ru_stime


def _rss_kib() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() // 1024


class Report:
    """What a reader says at the end."""

    def __init__(self) -> None:
        self.files: set[bytes] = set()
        self.events = 0
        self.lost = 0
        self.looked = 0
        self.before_s = 0.0
        self.begun_s = 0.0
        self.start_s = 0.0
        self.start_rss_kib = self.bare_rss_kib = 0

    def begin(self) -> None:
        """From here on it sets itself up."""
        self.bare_rss_kib = _rss_kib()
        self.begun_s = time.perf_counter()

    def ready(self) -> None:
        """From here on it counts."""
        self.start_s = time.perf_counter() - self.begun_s
        self.start_rss_kib = _rss_kib()
        self.before_s = _cpu_s()
        print("ready", flush=True)

    def done(self) -> None:
        """All was seen."""
        spent = _cpu_s() - self.before_s
        line = {
            "events": self.events,
            "lost": self.lost,
            "cpu_s": round(spent, 6),
            "files": len(self.files),
            "looked": self.looked,
            "rss_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            "start_s": round(self.start_s, 6),
            "start_rss_kib": self.start_rss_kib,
            "bare_rss_kib": self.bare_rss_kib,
        }
        print(json.dumps(line), flush=True)


def _ours(kind: str, path: str, *, inspect: bool) -> None:
    from shieldd.model.event import FactFlag, Kind
    from shieldd.native.actors import Actors
    from shieldd.watch import Source, Tree
    from shieldd.watch.fanotify_source import FanotifySource
    from shieldd.watch.native_source import NativeSource
    from shieldd.watch.pyinotify_source import PyinotifySource

    report, keep = Report(), os.environ.get("KEEP_FILES") is not None
    tree = Tree(os.fsencode(path), os.open(path, os.O_RDONLY))
    source: Source
    report.begin()
    if kind == "fanotify":
        source = FanotifySource([tree], inspect=inspect, actors=Actors(own=[os.getpid()]))
    else:
        source = (NativeSource if kind == "native" else PyinotifySource)([tree], inspect=inspect)
    source.start()
    report.ready()
    ended = False
    while not ended:
        batch = source.next_batch(1.0)
        if batch is None:
            continue
        events = batch.events
        report.looked += int((batch.facts["flags"] & np.uint64(FactFlag.LOOKED) != 0).sum())
        if keep:
            report.files.update(batch.path(int(row)) for row in (events["kind"] <= Kind.WRITE).nonzero()[0])
        at = batch.names.find(b"END")
        ended = at >= 0 and any(batch.path(int(row)) == b"END" for row in (events["path_off"] == at).nonzero()[0])
    now = source.status()
    report.events, report.lost = now.events, now.events_lost
    report.done()
    source.stop()


def _inotify_simple(path: str) -> None:
    from inotify_simple import INotify, flags  # type: ignore[import-untyped]

    mask = flags.CREATE | flags.MODIFY | flags.CLOSE_WRITE | flags.ATTRIB | flags.DELETE
    mask |= flags.MOVED_FROM | flags.MOVED_TO | flags.ONLYDIR
    report, queue, paths = Report(), INotify(), {}
    for top, _, _ in os.walk(path):
        paths[queue.add_watch(top, mask)] = top
    report.ready()
    while True:
        for event in queue.read():
            report.events += 1
            if event.mask & flags.Q_OVERFLOW:
                report.lost += 1
            elif event.mask & flags.ISDIR and event.mask & (flags.CREATE | flags.MOVED_TO):
                for top, _, names in os.walk(os.path.join(paths[event.wd], event.name)):
                    paths[queue.add_watch(top, mask)] = top
                    report.files.update(os.fsencode(os.path.join(top, n)) for n in names)
            elif event.mask & flags.CREATE and "KEEP_FILES" in os.environ:
                report.files.add(os.fsencode(os.path.join(paths[event.wd], event.name)))
            if event.name == "END" and event.mask & flags.CLOSE_WRITE:
                report.done()
                return


def _pyinotify(path: str) -> None:
    import pyinotify

    report, manager = Report(), pyinotify.WatchManager()
    mask = pyinotify.IN_CREATE | pyinotify.IN_MODIFY | pyinotify.IN_CLOSE_WRITE | pyinotify.IN_ATTRIB
    mask |= pyinotify.IN_DELETE | pyinotify.IN_MOVED_FROM | pyinotify.IN_MOVED_TO

    class Handler(pyinotify.ProcessEvent):  # type: ignore[misc]
        def process_default(self, event: Any) -> None:
            report.events += 1
            if event.mask & pyinotify.IN_CREATE and not event.dir and "KEEP_FILES" in os.environ:
                report.files.add(os.fsencode(event.pathname))
            if event.name == "END" and event.mask & pyinotify.IN_CLOSE_WRITE:
                report.done()
                os._exit(0)

        def process_IN_Q_OVERFLOW(self, event: Any) -> None:  # noqa: N802
            report.lost += 1

    notifier = pyinotify.Notifier(manager, Handler())
    manager.add_watch(path, mask, rec=True, auto_add=True)
    report.ready()
    notifier.loop()


def _watchdog(path: str) -> None:
    import threading

    from watchdog.events import FileSystemEvent, FileSystemEventHandler
    from watchdog.observers.inotify import InotifyObserver

    report, ended = Report(), threading.Event()

    class Handler(FileSystemEventHandler):
        def on_any_event(self, event: FileSystemEvent) -> None:
            report.events += 1
            if event.event_type == "created" and not event.is_directory and "KEEP_FILES" in os.environ:
                report.files.add(os.fsencode(event.src_path))
            if event.event_type == "closed" and os.fsencode(event.src_path).endswith(b"/END"):
                ended.set()

    observer = InotifyObserver()
    observer.schedule(Handler(), path, recursive=True)
    observer.start()
    report.ready()
    ended.wait()
    report.done()
    os._exit(0)


READERS: dict[str, Callable[[str], None]] = {
    "native": lambda path: _ours("native", path, inspect=False),
    "native-inspect": lambda path: _ours("native", path, inspect=True),
    "fanotify": lambda path: _ours("fanotify", path, inspect=False),
    "pyinotify-source": lambda path: _ours("pyinotify", path, inspect=False),
    "inotify_simple": _inotify_simple,
    "pyinotify": _pyinotify,
    "watchdog": _watchdog,
}


def names() -> Iterator[str]:
    """Readers there are."""
    yield from READERS


if __name__ == "__main__":
    READERS[sys.argv[1]](sys.argv[2])
