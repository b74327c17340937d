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
    /// Where in the kernel's queue the last of it is at most; `u64::MAX` while the act goes on.
    last: u64,
}

impl Announced {
    /// Over: its time has passed, and all that the kernel had queued of it was read, however late that was.
    fn is_over(&self, now_ns: u64, at: u64) -> bool {
        self.until_ns <= now_ns && (self.last == u64::MAX || self.last <= at)
    }
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

    /// The act on a path is over. What the kernel still has queued of it may come, also after `until_ns`; then it is
    /// nobody's any more.
    ///
    /// `last`: where the queue ends now, counted as in [`Expected::takes`].
    pub(crate) fn end(&mut self, tree: u16, path: &[u8], until_ns: u64, last: u64) {
        if let Some(entry) = self.paths.get_mut(&(tree, Box::from(path))) {
            entry.until_ns = entry.until_ns.min(until_ns);
            entry.last = last;
        }
    }

    /// Announces `count` operations of each kind in `kinds` (bits `1 << kind`) on a path.
    pub(crate) fn add(
        &mut self,
        tree: u16,
        path: &[u8],
        kinds: u16,
        count: u16,
        until_ns: u64,
        now_ns: u64,
    ) {
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
            last: u64::MAX,
        });
        if entry.until_ns <= now_ns && entry.last == u64::MAX {
            entry.left = [0; 16];
        }
        entry.until_ns = entry.until_ns.max(until_ns);
        entry.last = u64::MAX;
        for (kind, left) in entry.left.iter_mut().enumerate() {
            if kinds & (1 << kind) != 0 {
                *left = left.saturating_add(count);
            }
        }
    }

    /// Whether this operation was announced; `ends` counts it off (a write that goes on does not). `at`: where in the
    /// kernel's queue the read began that brought it.
    pub(crate) fn takes(
        &mut self,
        tree: u16,
        path: &[u8],
        kinds: &[Kind],
        ends: bool,
        (now_ns, at): (u64, u64),
    ) -> bool {
        if self.paths.is_empty() {
            return false;
        }
        let key = (tree, Box::from(path));
        let Some(entry) = self.paths.get_mut(&key) else {
            return false;
        };
        if entry.is_over(now_ns, at) {
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
        assert!(!own.takes(0, b"b", &[Kind::Delete], true, (1, 0)));
        assert!(!own.takes(1, b"a", &[Kind::Delete], true, (1, 0)));
        assert!(own.takes(0, b"a", &[Kind::Write], false, (1, 0)));
        assert!(own.takes(0, b"a", &[Kind::Write], true, (1, 0)));
        assert!(!own.takes(0, b"a", &[Kind::Write], true, (1, 0)));
        assert!(own.takes(0, b"a", &[Kind::Delete], true, (1, 0)));
        assert!(own.is_empty());
    }

    #[test]
    fn announcements_end() {
        let mut own = Expected::default();
        own.add(0, b"a", 1 << Kind::Delete as u16, 1, 100, 0);
        assert!(!own.takes(0, b"a", &[Kind::Delete], true, (100, 0)));
        assert!(own.is_empty());
    }

    #[test]
    fn an_act_that_ended_owns_what_was_queued_of_it_however_late_it_is_read() {
        let mut own = Expected::default();
        own.add(0, b"a", 1 << Kind::Delete as u16, 1, 1_000, 0);
        own.end(0, b"a", 10, 500);
        assert!(own.takes(0, b"a", &[Kind::Delete], true, (900, 499)));
        own.add(0, b"a", 1 << Kind::Delete as u16, 1, 1_000, 0);
        own.end(0, b"a", 10, 500);
        assert!(!own.takes(0, b"a", &[Kind::Delete], true, (900, 500)));
        assert!(own.is_empty());
    }

    #[test]
    fn a_new_act_on_the_name_keeps_what_is_still_queued_of_the_last() {
        let mut own = Expected::default();
        own.add(0, b"a", 1 << Kind::Delete as u16, 1, 1_000, 0);
        own.end(0, b"a", 10, 500);
        own.add(0, b"a", 1 << Kind::Create as u16, 1, 1_000, 20);
        assert!(own.takes(0, b"a", &[Kind::Delete], true, (30, 499)));
        assert!(own.takes(0, b"a", &[Kind::Create], true, (30, 600)));
        assert!(own.is_empty());
    }
}
