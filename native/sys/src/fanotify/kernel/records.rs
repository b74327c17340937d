//! The records of one read, and file handles as they lie in them.

use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};

use super::{Answer, Group};

/// Length of a record without what follows it, bytes (`struct fanotify_event_metadata`).
pub(super) const HEADER: usize = 24;
/// Bytes of an information header, and of one with a file system id and the head of a handle.
const INFO: usize = 4;
const INFO_FID: usize = INFO + 8 + 8;
/// `FAN_EVENT_INFO_TYPE_RANGE` of Linux 6.14.
const INFO_RANGE: u8 = 6;
/// A file handle as the kernel writes it, with the id of its file system before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle<'a> {
    /// The whole of it: names one object, on this machine, as long as that exists.
    pub key: &'a [u8],
}

impl<'a> Handle<'a> {
    /// Id of the file system (`f_fsid`).
    pub fn fsid(self) -> u64 {
        long(self.key, 0)
    }

    /// `handle_bytes`, `handle_type` and the opaque bytes: what `open_by_handle_at` takes.
    pub fn raw(self) -> &'a [u8] {
        &self.key[8..]
    }
}

/// One event of a notification group.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// What happened, all merged events together.
    pub mask: u64,
    /// Who did it; 0 for a process in a namespace that we do not see.
    pub pid: i32,
    /// Directory and name in it; the name is `.` for an event on the directory itself.
    pub place: Option<(Handle<'a>, &'a [u8])>,
    /// Where it went, for a rename; `place` is where it came from.
    pub to: Option<(Handle<'a>, &'a [u8])>,
    /// The object itself.
    pub object: Option<Handle<'a>>,
}

/// Walks the records of one read of a notification group.
#[derive(Debug)]
pub struct NamedRecords<'a> {
    pub(super) rest: &'a [u8],
}

pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_ne_bytes(four)
}

fn long(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_ne_bytes(eight)
}

fn half(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_ne_bytes([bytes[at], bytes[at + 1]]))
}

/// One record taken off: its header, and what follows the header inside it.
fn record<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    if rest.len() < HEADER {
        return None;
    }
    let end = (word(rest, 0) as usize).clamp(HEADER, rest.len());
    let infos = half(rest, 6).clamp(HEADER, end);
    let (whole, after) = rest.split_at(end);
    *rest = after;
    Some((&whole[..HEADER], &whole[infos..]))
}

/// One information record taken off: its type, and the whole of it.
fn info<'a>(infos: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    if infos.len() < INFO {
        return None;
    }
    let end = half(infos, 2).clamp(INFO, infos.len());
    let (whole, after) = infos.split_at(end);
    *infos = after;
    Some((whole[0], whole))
}

/// Handle and name of an information record.
fn place(info: &[u8]) -> Option<(Handle<'_>, &[u8])> {
    if info.len() < INFO_FID {
        return None;
    }
    let end = INFO_FID.checked_add(word(info, INFO + 8) as usize)?;
    let name = info.get(end..)?;
    let length = name.iter().position(|&b| b == 0).unwrap_or(name.len());
    let handle = Handle {
        key: &info[INFO..end],
    };
    Some((handle, &name[..length]))
}

impl NamedRecords<'_> {
    /// Bytes not yet walked.
    pub fn length(&self) -> usize {
        self.rest.len()
    }
}

impl<'a> Iterator for NamedRecords<'a> {
    type Item = Named<'a>;

    #[inline]
    fn next(&mut self) -> Option<Named<'a>> {
        let (head, mut infos) = record(&mut self.rest)?;
        let mut named = Named {
            mask: long(head, 8),
            pid: word(head, 20) as i32,
            place: None,
            to: None,
            object: None,
        };
        while let Some((kind, whole)) = info(&mut infos) {
            match kind {
                libc::FAN_EVENT_INFO_TYPE_DFID_NAME
                | libc::FAN_EVENT_INFO_TYPE_DFID
                | libc::FAN_EVENT_INFO_TYPE_OLD_DFID_NAME => named.place = place(whole),
                libc::FAN_EVENT_INFO_TYPE_NEW_DFID_NAME => named.to = place(whole),
                libc::FAN_EVENT_INFO_TYPE_FID => named.object = place(whole).map(|(of, _)| of),
                _ => {}
            }
        }
        Some(named)
    }
}

/// One event of a permission group. It must be answered unless `fd` is none.
#[derive(Debug)]
pub struct Permission {
    /// What is asked for.
    pub mask: u64,
    /// Thread that waits; 0 for one in a namespace that we do not see.
    pub tid: i32,
    /// The object; none for an overflow and where the kernel could not open it (nobody waits then).
    pub fd: Option<OwnedFd>,
    /// Offset and length in bytes of a [`PRE_ACCESS`]; a length of 0 goes to the end.
    pub range: Option<(u64, u64)>,
}

/// Walks the records of one read of a permission group; each may be taken once.
#[derive(Debug)]
pub struct Permissions<'a> {
    pub(super) group: &'a Group,
    pub(super) rest: &'a [u8],
}

impl Iterator for Permissions<'_> {
    type Item = Permission;

    fn next(&mut self) -> Option<Permission> {
        let (head, mut infos) = record(&mut self.rest)?;
        let mut range = None;
        while let Some((kind, whole)) = info(&mut infos) {
            if kind == INFO_RANGE && whole.len() >= 24 {
                range = Some((long(whole, 8), long(whole, 16)));
            }
        }
        let fd = word(head, 16) as RawFd;
        // SAFETY: the kernel opened this descriptor for us in the read that filled the buffer, and `rest` has moved
        // beyond the record: nobody else owns it.
        let fd = (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) });
        Some(Permission {
            mask: long(head, 8),
            tid: word(head, 20) as i32,
            fd,
            range,
        })
    }
}

impl Drop for Permissions<'_> {
    fn drop(&mut self) {
        let group = self.group;
        for left in self {
            if let Some(fd) = left.fd {
                // the opener may be gone; there is nobody else to tell
                drop(group.answer(fd.as_fd(), Answer::Allow));
            }
        }
    }
}
