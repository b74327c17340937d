//! One coalesced file event, as it crosses the C ABI.

/// What happened. `kind` of an [`Event`] is the strongest of the operations merged into it; `ops` has a bit for each.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file appeared under a name (made, linked, or moved in from outside the tree).
    Create = 1,
    /// Content was written and the writer closed it (`IN_CLOSE_WRITE`), or is still open (flag [`OPEN`]).
    Write = 2,
    /// A name went away (unlinked, or moved out of the tree).
    Delete = 3,
    /// A name moved inside the tree; `from` holds the old one.
    Rename = 4,
    /// Mode, owner, times, links or extended attributes changed.
    Attrib = 5,
    /// A directory appeared.
    MakeDir = 6,
    /// A directory went away.
    RemoveDir = 7,
    /// A directory moved inside the tree; `from` holds the old name.
    RenameDir = 8,
    /// The kernel's queue overflowed: events were lost; a rescan follows, its finds carry [`SYNTHETIC`].
    Overflow = 9,
    /// A directory could not be watched (`ENOSPC`, `ENOMEM`, `EACCES`): blind there until it can be.
    WatchLimit = 10,
    /// A rescan ended; `merged` counts the differences it found.
    RescanDone = 11,
    /// The root of the tree went away or its file system was unmounted.
    RootGone = 12,
    /// A file was opened for reading (sources that can tell).
    Read = 13,
}

/// Bits of [`Event::flags`].
pub mod flags {
    /// Found by a scan, not reported by the kernel: the order in time is unknown.
    pub const SYNTHETIC: u8 = 1;
    /// The writer has not closed the file yet.
    pub const OPEN: u8 = 2;
    /// A rename replaced a file that existed.
    pub const OVER: u8 = 4;
    /// The object is not a regular file (FIFO, socket, device, symbolic link): never opened.
    pub const SPECIAL: u8 = 8;
    /// `actor` is a process group that the kernel named, not the tree itself.
    pub const ATTRIBUTED: u8 = 16;
    /// `actor` is a guess.
    pub const GUESSED: u8 = 32;
}

/// One coalesced event. 88 bytes, no padding holes; numpy reads an array of these in place.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Number of this event, gapless per source from 1.
    pub seq: u64,
    /// `CLOCK_REALTIME` when it was read, ns.
    pub at_ns: u64,
    /// `CLOCK_MONOTONIC` when it was read, ns; all windows run on this.
    pub mono_ns: u64,
    /// Device of the object, 0 where it was gone before a look.
    pub dev: u64,
    /// Inode of the object, 0 where unknown.
    pub ino: u64,
    /// Stable id of the actor; without attribution the id of the tree itself (`tree` + 1).
    pub actor: u64,
    /// Path relative to the tree's root: offset into the batch's name arena, bytes.
    pub path_off: u32,
    /// Length of the path, bytes.
    pub path_len: u32,
    /// Old path of a rename: offset into the arena.
    pub from_off: u32,
    /// Length of the old path, 0 where there is none.
    pub from_len: u32,
    /// Process that did it, 0 where the kernel does not tell.
    pub pid: i32,
    /// Kernel events merged into this one (lost events for [`Kind::Overflow`] where known).
    pub merged: u32,
    /// Index of the guarded tree.
    pub tree: u16,
    /// Bit `1 << kind` for each operation merged.
    pub ops: u16,
    /// A [`Kind`].
    pub kind: u8,
    /// Bits of [`flags`].
    pub flags: u8,
    /// Zero.
    pub reserved: u16,
    /// Owner of the object, `u32::MAX` where unknown.
    pub uid: u32,
    /// Mode bits of the object (`st_mode`), 0 where unknown.
    pub mode: u32,
}
