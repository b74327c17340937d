"""Configuration: shieldd.toml(5) or the arguments of personal mode → one immutable snapshot with a generation.

An unknown key, a wrong value, a tree that cannot be guarded: each is a problem with file, key and reason, and all of a
file are told at once (`ConfigError`, exit status 7). A reload builds a new snapshot and swaps it only when it is whole;
`diff` says which changes take a restart.
"""

from shieldd.config.changes import Change, diff
from shieldd.config.problems import ConfigError, Problem
from shieldd.config.sections import (
    ApiSection,
    DaemonMode,
    DaemonSection,
    GuardSection,
    KeyProvider,
    KeysSection,
    LogLevel,
    PolicySection,
    PreserveSection,
    RetentionSection,
    SealSection,
    TreeMode,
    TreeSection,
    TrustSection,
    Unlock,
    WatchBackend,
    WatchSection,
)
from shieldd.config.snapshot import Config

__all__ = [
    "ApiSection",
    "Change",
    "Config",
    "ConfigError",
    "DaemonMode",
    "DaemonSection",
    "GuardSection",
    "KeyProvider",
    "KeysSection",
    "LogLevel",
    "PolicySection",
    "PreserveSection",
    "Problem",
    "RetentionSection",
    "SealSection",
    "TreeMode",
    "TreeSection",
    "TrustSection",
    "Unlock",
    "WatchBackend",
    "WatchSection",
    "diff",
]
