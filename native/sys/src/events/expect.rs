//! Our own writes: operations that were announced and are not reported.

use std::collections::HashMap;

use shieldd_core::event::Kind;

/// Announcements kept at once; beyond it the one that ends first makes room.
const MOST: usize = 65_536;

#[derive(Clone, Copy)]
struct Announced {
    /// How many of each kind may still come.
    left: [u16; 16],
    until_ns: u64,
}

#[derive(Default)]
pub(crate) struct Expected {
    paths: HashMap<(u16, Box<[u8]>), Announced>,
    pub(crate) dropped: u64,
}

impl Expected {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Announces `count` operations of each kind in `kinds` (bits `1 << kind`) on a path. A count of 0 ends what was
    /// announced of it at `until_ns`, if that is sooner.
    pub(crate) fn add(
        &mut self,
        tree: u16,
        path: &[u8],
        kinds: u16,
        count: u16,
        until_ns: u64,
        now_ns: u64,
    ) {
        if count == 0 {
            // The act is over: what the kernel still has queued of it may come, and then it is nobody's any more.
            if let Some(entry) = self.paths.get_mut(&(tree, Box::from(path))) {
                entry.until_ns = entry.until_ns.min(until_ns);
            }
            return;
        }
        if self.paths.len() >= MOST {
            self.paths.retain(|_, a| a.until_ns > now_ns);
        }
        if self.paths.len() >= MOST {
            let first = self
                .paths
                .iter()
                .min_by_key(|(_, a)| a.until_ns)
                .map(|(key, _)| key.clone());
            first.map(|key| self.paths.remove(&key));
        }
        let entry = self.paths.entry((tree, path.into())).or_insert(Announced {
            left: [0; 16],
            until_ns,
        });
        if entry.until_ns <= now_ns {
            entry.left = [0; 16];
        }
        entry.until_ns = entry.until_ns.max(until_ns);
        for (kind, left) in entry.left.iter_mut().enumerate() {
            if kinds & (1 << kind) != 0 {
                *left = left.saturating_add(count);
            }
        }
    }

    /// Whether this operation was announced; `ends` counts it off (a write that goes on does not).
    pub(crate) fn takes(
        &mut self,
        tree: u16,
        path: &[u8],
        kinds: &[Kind],
        ends: bool,
        now_ns: u64,
    ) -> bool {
        if self.paths.is_empty() {
            return false;
        }
        let key = (tree, Box::from(path));
        let Some(entry) = self.paths.get_mut(&key) else {
            return false;
        };
        if entry.until_ns <= now_ns {
            self.paths.remove(&key);
            return false;
        }
        let Some(kind) = kinds.iter().copied().find(|&k| entry.left[k as usize] > 0) else {
            return false;
        };
        // One chmod, chown or utimes each gives an event, and so does each page of a write: they end with the announcement.
        if ends && kind != Kind::Attrib {
            entry.left[kind as usize] -= 1;
        }
        self.dropped += 1;
        if entry.left.iter().all(|&left| left == 0) {
            self.paths.remove(&key);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_announced_is_taken() {
        let mut own = Expected::default();
        own.add(
            0,
            b"a",
            1 << Kind::Delete as u16 | 1 << Kind::Write as u16,
            1,
            100,
            0,
        );
        assert!(!own.takes(0, b"b", &[Kind::Delete], true, 1));
        assert!(!own.takes(1, b"a", &[Kind::Delete], true, 1));
        assert!(own.takes(0, b"a", &[Kind::Write], false, 1));
        assert!(own.takes(0, b"a", &[Kind::Write], true, 1));
        assert!(!own.takes(0, b"a", &[Kind::Write], true, 1));
        assert!(own.takes(0, b"a", &[Kind::Delete], true, 1));
        assert!(own.is_empty());
    }

    #[test]
    fn announcements_end() {
        let mut own = Expected::default();
        own.add(0, b"a", 1 << Kind::Delete as u16, 1, 100, 0);
        assert!(!own.takes(0, b"a", &[Kind::Delete], true, 100));
        assert!(own.is_empty());
    }
}
