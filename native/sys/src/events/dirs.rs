//! The watch table: which directory each watch stands for, and where that is now.
//!
//! The id of a directory is its watch descriptor, which the kernel does not give out twice; a directory that could
//! not be watched has a negative id of ours. Names are kept once per directory, so a rename is one change.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Hashes ids and hashes that are spread well enough once multiplied.
#[derive(Default, Clone, Copy)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.write_u64(u64::from(b));
        }
    }
    fn write_i32(&mut self, n: i32) {
        self.write_u64(n as u32 as u64);
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(5) ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 32;
    }
}

pub(crate) type Table<K, V> = HashMap<K, V, BuildHasherDefault<Spread>>;

/// No directory: the parent of a root, the end of a list.
pub(crate) const NONE: i32 = 0;

#[derive(Debug)]
pub(crate) struct Dir {
    pub(crate) parent: i32,
    first_child: i32,
    next: i32,
    prev: i32,
    pub(crate) tree: u16,
    pub(crate) name: Box<[u8]>,
}

#[derive(Default)]
pub(crate) struct Dirs {
    by_id: Table<i32, Dir>,
    by_name: Table<u64, i32>,
    unwatched: i32,
    last_unwatched: i32,
    /// Grows whenever a path may have changed.
    pub(crate) moves: u64,
}

fn name_key(seed: u64, parent: i32, name: &[u8]) -> u64 {
    let low = u64::from(super::pending::hash(seed, parent, name));
    let high = u64::from(super::pending::hash(!seed, parent, name));
    high << 32 | low
}

impl Dirs {
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn unwatched(&self) -> usize {
        self.unwatched as usize
    }

    #[inline]
    pub(crate) fn get(&self, id: i32) -> Option<&Dir> {
        self.by_id.get(&id)
    }

    /// The directory of this name, if it is known.
    pub(crate) fn child(&self, seed: u64, parent: i32, name: &[u8]) -> Option<i32> {
        let id = *self.by_name.get(&name_key(seed, parent, name))?;
        let dir = self.by_id.get(&id)?;
        (dir.parent == parent && &*dir.name == name).then_some(id)
    }

    /// A new id for a directory that has no watch.
    pub(crate) fn unwatched_id(&mut self) -> i32 {
        self.last_unwatched -= 1;
        self.last_unwatched
    }

    /// Ids that have no watch, in no order.
    pub(crate) fn unwatched_ids(&self) -> Vec<i32> {
        if self.unwatched == 0 {
            return Vec::new();
        }
        self.by_id.keys().copied().filter(|&id| id < 0).collect()
    }

    pub(crate) fn insert(&mut self, seed: u64, id: i32, parent: i32, name: &[u8], tree: u16) {
        let next = self.by_id.get(&parent).map_or(NONE, |p| p.first_child);
        if let Some(sibling) = self.by_id.get_mut(&next) {
            sibling.prev = id;
        }
        if let Some(p) = self.by_id.get_mut(&parent) {
            p.first_child = id;
        }
        let dir = Dir {
            parent,
            first_child: NONE,
            next,
            prev: NONE,
            tree,
            name: name.into(),
        };
        if self.by_id.insert(id, dir).is_none() && id < 0 {
            self.unwatched += 1;
        }
        if parent != NONE {
            self.by_name.insert(name_key(seed, parent, name), id);
        }
    }

    fn unlink(&mut self, seed: u64, id: i32) {
        let Some(dir) = self.by_id.get(&id) else {
            return;
        };
        let (parent, next, prev) = (dir.parent, dir.next, dir.prev);
        let key = name_key(seed, parent, &dir.name);
        if self.by_name.get(&key) == Some(&id) {
            self.by_name.remove(&key);
        }
        if let Some(d) = self.by_id.get_mut(&next) {
            d.prev = prev;
        }
        match self.by_id.get_mut(&prev) {
            Some(d) => d.next = next,
            None => {
                if let Some(p) = self.by_id.get_mut(&parent) {
                    p.first_child = next;
                }
            }
        }
    }

    /// Ids of the directories directly inside.
    pub(crate) fn children(&self, id: i32) -> Vec<i32> {
        let mut out = Vec::new();
        let mut at = self.by_id.get(&id).map_or(NONE, |d| d.first_child);
        while at != NONE {
            out.push(at);
            at = self.by_id.get(&at).map_or(NONE, |d| d.next);
        }
        out
    }

    /// The directory and all below it.
    pub(crate) fn subtree(&self, id: i32) -> Vec<i32> {
        let mut out = vec![id];
        let mut at = 0;
        while at < out.len() {
            out.extend(self.children(out[at]));
            at += 1;
        }
        out
    }

    /// The directory and all below it, each with its path relative to it: empty, or ending in a slash.
    pub(crate) fn below(&self, id: i32) -> Vec<(i32, Vec<u8>)> {
        let mut out = vec![(id, Vec::new())];
        let mut at = 0;
        while at < out.len() {
            let (above, prefix) = out[at].clone();
            for child in self.children(above) {
                let mut path = prefix.clone();
                path.extend_from_slice(&self.by_id[&child].name);
                path.push(b'/');
                out.push((child, path));
            }
            at += 1;
        }
        out
    }

    /// Takes the directory and all below it out; returns their ids.
    pub(crate) fn remove(&mut self, seed: u64, id: i32) -> Vec<i32> {
        if !self.by_id.contains_key(&id) {
            return Vec::new();
        }
        let ids = self.subtree(id);
        self.unlink(seed, id);
        for gone in &ids {
            if let Some(dir) = self.by_id.remove(gone) {
                let key = name_key(seed, dir.parent, &dir.name);
                if self.by_name.get(&key) == Some(gone) {
                    self.by_name.remove(&key); // another directory may have the name by now
                }
                if *gone < 0 {
                    self.unwatched -= 1;
                }
            }
        }
        self.moves += 1;
        ids
    }

    /// Gives a directory another place.
    pub(crate) fn reparent(&mut self, seed: u64, id: i32, parent: i32, name: &[u8]) {
        self.unlink(seed, id);
        let next = self.by_id.get(&parent).map_or(NONE, |p| p.first_child);
        if let Some(sibling) = self.by_id.get_mut(&next) {
            sibling.prev = id;
        }
        if let Some(p) = self.by_id.get_mut(&parent) {
            p.first_child = id;
        }
        if let Some(dir) = self.by_id.get_mut(&id) {
            dir.parent = parent;
            dir.next = next;
            dir.prev = NONE;
            dir.name = name.into();
        }
        self.by_name.insert(name_key(seed, parent, name), id);
        self.moves += 1;
    }

    /// Gives an unwatched directory the id of its new watch.
    pub(crate) fn rekey(&mut self, seed: u64, old: i32, new: i32) {
        let Some(dir) = self.by_id.get(&old) else {
            return;
        };
        let (parent, name, tree) = (dir.parent, dir.name.clone(), dir.tree);
        let children: Vec<(i32, Box<[u8]>)> = self
            .children(old)
            .into_iter()
            .filter_map(|c| Some((c, self.by_id.get(&c)?.name.clone())))
            .collect();
        self.unlink(seed, old);
        self.insert(seed, new, parent, &name, tree);
        for (child, name) in children {
            self.reparent(seed, child, new, &name);
        }
        self.by_id.remove(&old);
        if old < 0 {
            self.unwatched -= 1;
        }
        self.moves += 1;
    }

    /// Path relative to the root, with a slash at the end unless it is the root itself; false where `id` is unknown.
    pub(crate) fn prefix(&self, id: i32, out: &mut Vec<u8>) -> bool {
        out.clear();
        let mut at = id;
        let mut chain: Vec<i32> = Vec::with_capacity(16);
        loop {
            let Some(dir) = self.by_id.get(&at) else {
                return false;
            };
            if dir.parent == NONE {
                break;
            }
            chain.push(at);
            at = dir.parent;
        }
        for id in chain.iter().rev() {
            out.extend_from_slice(&self.by_id[id].name);
            out.push(b'/');
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(dirs: &Dirs, id: i32) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        dirs.prefix(id, &mut out).then_some(out)
    }

    #[test]
    fn renames_move_all_below() {
        let mut dirs = Dirs::default();
        dirs.insert(1, 1, NONE, b"", 0);
        dirs.insert(1, 2, 1, b"a", 0);
        dirs.insert(1, 3, 2, b"b", 0);
        dirs.insert(1, 4, 1, b"c", 0);
        assert_eq!(path(&dirs, 3).unwrap(), b"a/b/");
        dirs.reparent(1, 2, 4, b"z");
        assert_eq!(path(&dirs, 3).unwrap(), b"c/z/b/");
        assert_eq!(dirs.child(1, 1, b"a"), None);
        assert_eq!(dirs.child(1, 4, b"z"), Some(2));
        let mut gone = dirs.remove(1, 4);
        gone.sort_unstable();
        assert_eq!(gone, [2, 3, 4]);
        assert_eq!(dirs.len(), 1);
        assert!(dirs.children(1).is_empty());
    }

    #[test]
    fn an_unwatched_directory_takes_its_watch_later() {
        let mut dirs = Dirs::default();
        dirs.insert(1, 1, NONE, b"", 0);
        let id = dirs.unwatched_id();
        dirs.insert(1, id, 1, b"a", 0);
        dirs.insert(1, 7, id, b"b", 0);
        assert_eq!(dirs.unwatched(), 1);
        dirs.rekey(1, id, 9);
        assert_eq!(dirs.unwatched(), 0);
        assert_eq!(path(&dirs, 7).unwrap(), b"a/b/");
        assert_eq!(dirs.child(1, 1, b"a"), Some(9));
        assert_eq!(dirs.child(1, 9, b"b"), Some(7));
        assert_eq!(dirs.len(), 3);
    }
}
