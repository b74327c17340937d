//! The inotify watcher.
