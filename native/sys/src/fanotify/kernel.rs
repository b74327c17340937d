//! The kernel's side of fanotify: groups, marks, the records of one read, answers, and file handles.
//!
//! Two kinds of group exist and exclude one another: a *notification* group tells names (directory handle and name),
//! a *permission* group holds the opener until it is answered and tells an open descriptor. See fanotify(7),
//! fanotify_init(2), fanotify_mark(2), open_by_handle_at(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

mod handles;
mod records;

pub use handles::{fsid_of, handle_of, key_of, open_handle, HANDLE};
pub use records::{Handle, Named, NamedRecords, Permission, Permissions};

/// How a notification group tells events: names in directory handles, and the handle of the object itself. The last
/// keeps apart what happens to two files that take the same name one after the other, tells where a new directory is,
/// and of a file whose link count changed (unlinked, or replaced by a rename) an event without a name.
const NAMES: libc::c_uint = libc::FAN_CLASS_NOTIF | libc::FAN_REPORT_DFID_NAME_TARGET;

/// What a notification group is told of a file system.
pub const NOTIFY_MASK: u64 = libc::FAN_CREATE
    | libc::FAN_RENAME
    | libc::FAN_DELETE
    | libc::FAN_MODIFY
    | libc::FAN_CLOSE_WRITE
    | libc::FAN_ATTRIB
    | libc::FAN_ONDIR;
/// Both names of a rename in one event (Linux 5.17).
pub const RENAME: u64 = libc::FAN_RENAME;
/// An access to a range of content, before it happens (Linux 6.14, class [`Class::PreContent`]); not in libc yet.
pub const PRE_ACCESS: u64 = 0x0010_0000;
/// The open of a file waits.
pub const OPEN_PERM: u64 = libc::FAN_OPEN_PERM;
/// The event was on a directory.
pub const ONDIR: u64 = libc::FAN_ONDIR;
/// Events were lost: the record has neither descriptor nor name.
pub const OVERFLOW: u64 = libc::FAN_Q_OVERFLOW;

/// Which permission events a group may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Before the content is there: opens and, from Linux 6.14, ranges; denials may carry an errno.
    PreContent,
    /// Opens and reads of whole files.
    Content,
}

/// An answer to a permission event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The opener goes on.
    Allow,
    /// The opener gets EPERM.
    Deny,
    /// The opener gets this errno (class [`Class::PreContent`]; only EPERM, EIO, EBUSY, ETXTBSY, EAGAIN, ENOSPC, EDQUOT).
    DenyWith(i32),
}

/// A fanotify group.
#[derive(Debug)]
pub struct Group {
    fd: OwnedFd,
}

fn init(flags: libc::c_uint, event_flags: i32) -> io::Result<OwnedFd> {
    let flags = flags | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
    // SAFETY: no pointers; the result is checked before it is owned.
    let fd = unsafe { libc::fanotify_init(flags, event_flags as libc::c_uint) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What else a mark on a directory is for; the kernel refuses directories themselves where ranges are asked for.
fn of_directory(mask: u64) -> u64 {
    if mask & PRE_ACCESS == 0 {
        libc::FAN_EVENT_ON_CHILD | libc::FAN_ONDIR
    } else {
        libc::FAN_EVENT_ON_CHILD
    }
}

impl Group {
    /// A notification group: directory handles with names, the handle of the object, the process id, an unlimited
    /// queue. Needs CAP_SYS_ADMIN (EPERM: without it the kernel tells no process, and a limited group would be no
    /// better than inotify) and Linux 5.17 (EINVAL).
    pub fn notify() -> io::Result<Group> {
        let fd = init(
            NAMES | libc::FAN_UNLIMITED_QUEUE | libc::FAN_UNLIMITED_MARKS,
            libc::O_RDONLY | libc::O_LARGEFILE,
        )?;
        Ok(Group { fd })
    }

    /// A notification group with the kernel's limited queue (`fs.fanotify.max_queued_events`), to see it overflow.
    pub fn notify_limited() -> io::Result<Group> {
        let fd = init(NAMES, libc::O_RDONLY | libc::O_LARGEFILE)?;
        Ok(Group { fd })
    }

    /// A permission group; events carry thread ids, so that `/proc/TID/syscall` can be read. Event descriptors are
    /// read-only, do not count as accesses, and make no events themselves.
    pub fn permission(class: Class) -> io::Result<Group> {
        let class = match class {
            Class::PreContent => libc::FAN_CLASS_PRE_CONTENT,
            Class::Content => libc::FAN_CLASS_CONTENT,
        };
        let fd = init(
            class | libc::FAN_REPORT_TID | libc::FAN_UNLIMITED_QUEUE | libc::FAN_UNLIMITED_MARKS,
            libc::O_RDONLY | libc::O_LARGEFILE | libc::O_CLOEXEC | libc::O_NOATIME,
        )?;
        Ok(Group { fd })
    }

    /// A group that another process of ours made.
    pub fn adopt(fd: OwnedFd) -> Group {
        Group { fd }
    }

    /// The descriptor, to poll or to hand over.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Marks through a descriptor: `.` below a directory (which may be `O_PATH`), else the object itself.
    fn mark(
        &self,
        flags: libc::c_uint,
        mask: u64,
        fd: BorrowedFd<'_>,
        dir: bool,
    ) -> io::Result<()> {
        let path: *const libc::c_char = if dir { c".".as_ptr() } else { std::ptr::null() };
        // SAFETY: `path` is null or a constant, zero-terminated string; the kernel keeps nothing of it.
        let done =
            unsafe { libc::fanotify_mark(self.fd.as_raw_fd(), flags, mask, fd.as_raw_fd(), path) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Watches the whole file system that `dir` lies on, whatever mount or namespace it is used through.
    ///
    /// Errors: EOPNOTSUPP, ENODEV, EXDEV where the file system has no handles or no id of its own (some FUSE, NFS,
    /// overlay, sub-volumes); EINVAL for events that this kernel does not know; ENOSPC at the limit of marks.
    pub fn mark_filesystem(&self, dir: BorrowedFd<'_>, mask: u64) -> io::Result<()> {
        let flags = libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM;
        self.mark(flags, mask, dir, true)
    }

    /// Takes events of [`Group::mark_filesystem`] away; no mark is no error.
    pub fn unmark_filesystem(&self, dir: BorrowedFd<'_>, mask: u64) -> io::Result<()> {
        let flags = libc::FAN_MARK_REMOVE | libc::FAN_MARK_FILESYSTEM;
        match self.mark(flags, mask, dir, true) {
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }

    /// Leaves out what happens directly in a directory and to the directory itself. `evictable`: the kernel may drop
    /// the mark with the inode under memory pressure, so it pins nothing; else it stays.
    pub fn ignore_directory(
        &self,
        dir: BorrowedFd<'_>,
        mask: u64,
        evictable: bool,
    ) -> io::Result<()> {
        let keep = if evictable {
            libc::FAN_MARK_EVICTABLE
        } else {
            0
        };
        let flags = libc::FAN_MARK_ADD | libc::FAN_MARK_IGNORE_SURV | libc::FAN_MARK_ONLYDIR | keep;
        self.mark(flags, mask | of_directory(mask), dir, true)
    }

    /// Takes an [`Group::ignore_directory`] back, for a directory that came into a guarded tree; no mark is no error.
    pub fn regard_directory(&self, dir: BorrowedFd<'_>, mask: u64) -> io::Result<()> {
        let flags = libc::FAN_MARK_REMOVE | libc::FAN_MARK_IGNORE_SURV | libc::FAN_MARK_ONLYDIR;
        match self.mark(flags, mask | of_directory(mask), dir, true) {
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }

    /// Leaves out one file until it is modified; always evictable. `file` is open for reading (no `O_PATH`).
    pub fn ignore_file(&self, file: BorrowedFd<'_>, mask: u64) -> io::Result<()> {
        let flags = libc::FAN_MARK_ADD | libc::FAN_MARK_IGNORE | libc::FAN_MARK_EVICTABLE;
        self.mark(flags, mask, file, false)
    }

    /// Takes all marks on inodes away, the ignoring ones among them; those on file systems stay.
    pub fn forget_inodes(&self) -> io::Result<()> {
        // the object is not used by a flush, but it must be one
        let root = rustix::fs::open(
            "/",
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )?;
        self.mark(libc::FAN_MARK_FLUSH, 0, root.as_fd(), true)
    }

    /// Records that wait: the kernel counts the header of each alone.
    pub fn waiting(&self) -> u64 {
        rustix::io::ioctl_fionread(&self.fd).unwrap_or(0) / records::HEADER as u64
    }

    /// Reads records of a notification group. `WouldBlock` where nothing waits.
    pub fn read<'a>(&self, buffer: &'a mut [u8]) -> io::Result<NamedRecords<'a>> {
        let length = self.fill(buffer)?;
        Ok(NamedRecords {
            rest: &buffer[..length],
        })
    }

    /// Reads records of a permission group. `WouldBlock` where nothing waits. What is left of the records when they
    /// are dropped is allowed: nobody waits for ever because of a panic of ours.
    pub fn read_permissions<'a>(&'a self, buffer: &'a mut [u8]) -> io::Result<Permissions<'a>> {
        let length = self.fill(buffer)?;
        Ok(Permissions {
            group: self,
            rest: &buffer[..length],
        })
    }

    fn fill(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // SAFETY: the buffer is writable for its length. For permission groups the kernel also opens descriptors,
            // which `Permissions` then owns.
            let got = unsafe {
                libc::read(
                    self.fd.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                )
            };
            if got >= 0 {
                return Ok(got as usize);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// Answers the opener that waits for `event`. ENOENT: the opener is gone, which is nobody's fault.
    pub fn answer(&self, event: BorrowedFd<'_>, answer: Answer) -> io::Result<()> {
        let response: u32 = match answer {
            Answer::Allow => libc::FAN_ALLOW,
            Answer::Deny => libc::FAN_DENY,
            Answer::DenyWith(errno) => libc::FAN_DENY | (errno as u32 & 0xff) << 24,
        };
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&event.as_raw_fd().to_ne_bytes());
        bytes[4..].copy_from_slice(&response.to_ne_bytes());
        rustix::io::retry_on_intr(|| rustix::io::write(&self.fd, &bytes))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
