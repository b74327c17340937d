//! New files of an actor that wait for a partner: the file whose removal they explain, or not.

use crate::baseline::HashedMap;

/// New files remembered per actor.
pub const OUTPUTS: usize = 512;
/// So many of the newest are searched for a partner of like size.
const RECENT: usize = 8;
/// So many of the newest archives are searched for one with room.
const ARCHIVES: usize = 4;

/// What can be said of new content as a replacement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quality {
    /// It could not be looked at, or is empty.
    #[default]
    Unknown,
    /// It parses, declares no encryption, and is not of unknown kind.
    Verified,
    /// It declares encryption, looks encrypted, or is of no known kind.
    Bad,
}

/// A new file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Output {
    /// Key of its path.
    pub path: u64,
    /// Directory and name without extensions.
    pub stem: u64,
    /// Hash of size and samples.
    pub content: u64,
    /// Size, bytes.
    pub size: u64,
    /// What it is worth.
    pub quality: Quality,
    /// Whether it may hold several files.
    pub archive: bool,
    /// Share of its size that removed files have claimed already, bytes.
    pub claimed: f64,
    /// First seen, ns.
    pub born_ns: u64,
    /// Last written or claimed, ns.
    pub at_ns: u64,
    /// Nobody has closed it since it was made: it is not there yet.
    pub unclosed: bool,
    /// Its content was proved to be that of the file of the same stem.
    pub proved: bool,
}

/// The last [`OUTPUTS`] new files of an actor, found by path, stem or content.
#[derive(Default)]
pub struct Outputs {
    slots: Vec<Output>,
    next: usize,
    by_path: HashedMap<u32>,
    by_stem: HashedMap<u32>,
    by_content: HashedMap<u32>,
    archives: [u32; ARCHIVES],
    archived: usize,
}

impl Outputs {
    /// Keeps a new file or the new state of one; returns when it was first seen, ns.
    pub fn put(&mut self, mut output: Output) -> u64 {
        let at = match self.by_path.get(&output.path).copied() {
            Some(at) => {
                let old = self.slots[at as usize];
                output.born_ns = old.born_ns;
                output.claimed = old.claimed;
                self.forget_keys(at);
                self.slots[at as usize] = output;
                at
            }
            None if self.slots.len() < OUTPUTS => {
                self.slots.push(output);
                (self.slots.len() - 1) as u32
            }
            None => {
                let at = self.next as u32;
                self.next = (self.next + 1) % OUTPUTS;
                self.forget_keys(at);
                self.slots[at as usize] = output;
                at
            }
        };
        self.by_path.insert(output.path, at);
        self.by_stem.insert(output.stem, at);
        if output.content != 0 {
            self.by_content.insert(output.content, at);
        }
        if output.archive && !self.archives[..self.archived.min(ARCHIVES)].contains(&at) {
            self.archives[self.archived % ARCHIVES] = at;
            self.archived += 1;
        }
        output.born_ns
    }

    /// A new file went away or changed its name.
    pub fn take(&mut self, path: u64) -> Option<Output> {
        let at = *self.by_path.get(&path)?;
        let output = self.slots[at as usize];
        self.forget_keys(at);
        self.slots[at as usize] = Output::default();
        Some(output)
    }

    fn forget_keys(&mut self, at: u32) {
        let old = self.slots[at as usize];
        for (map, key) in [
            (&mut self.by_path, old.path),
            (&mut self.by_stem, old.stem),
            (&mut self.by_content, old.content),
        ] {
            if map.get(&key) == Some(&at) {
                map.remove(&key);
            }
        }
    }

    /// The new file at a path.
    pub fn at(&self, path: u64) -> Option<&Output> {
        self.by_path.get(&path).map(|at| &self.slots[*at as usize])
    }

    /// A new file of the same stem at another path.
    pub fn of_stem(&mut self, stem: u64, path: u64) -> Option<&mut Output> {
        let at = *self.by_stem.get(&stem)?;
        let output = &mut self.slots[at as usize];
        (output.path != path).then_some(output)
    }

    /// A new file of the same content at another path.
    pub fn of_content(&mut self, content: u64, path: u64) -> Option<&mut Output> {
        if content == 0 {
            return None;
        }
        let at = *self.by_content.get(&content)?;
        let output = &mut self.slots[at as usize];
        (output.path != path).then_some(output)
    }

    /// A directory got another name: where the new files lie now is not known, so none of them is a copy of anything.
    pub fn forget_contents(&mut self) {
        self.by_content.clear();
    }

    /// The newest archives.
    pub fn archives(&mut self, mut fits: impl FnMut(&Output) -> bool) -> Option<&mut Output> {
        let known = self.archived.min(ARCHIVES);
        let at = self.archives[..known]
            .iter()
            .copied()
            .find(|at| fits(&self.slots[*at as usize]))?;
        self.slots.get_mut(at as usize)
    }

    /// Among the newest files one that fits.
    pub fn recent(&mut self, mut fits: impl FnMut(&Output) -> bool) -> Option<&mut Output> {
        let len = self.slots.len();
        let newest = if len < OUTPUTS { len } else { self.next + len };
        let at = (1..=RECENT.min(len))
            .map(|back| (newest - back) % len)
            .find(|at| self.slots[*at].path != 0 && fits(&self.slots[*at]))?;
        self.slots.get_mut(at)
    }
}
