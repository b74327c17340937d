//! Groups of processes: stop, resume, end, look.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use shieldd_sys::freeze::{ice, send, Limits, Member, Never, Sign};

use crate::abi::{guarded, Failure, ShdError};
use crate::actors::ShdMember;

/// Who is never signalled, with what is remembered of executables.
pub struct ShdFreezer(Mutex<Never>);

/// What became of one process.
#[repr(C)]
pub struct ShdTold {
    /// Start, clock ticks since boot.
    pub start_ticks: u64,
    /// Its number.
    pub pid: i32,
    /// Its parent when it was taken.
    pub ppid: i32,
    /// 1 more than one thread, 2 traced, 4 uninterruptible, 8 found by a pass, 16 a tracer, 32 first thread ended.
    pub flags: u32,
    /// The kernel's reason, 0 where none.
    pub errno: i32,
    /// 1 done, 2 pending, 3 gone, 4 spared, 5 denied, 6 stopped by somebody before.
    pub fate: u8,
    /// Why it was spared: 1 first, 2 kernel, 3 ourselves, 4 ancestor, 5 manager, 6 server, 7 listed; 0 where it was not.
    pub why: u8,
    /// Last seen state, a letter of proc(5).
    pub state: u8,
    /// Zero.
    pub reserved: u8,
}

/// What one call did.
#[repr(C)]
pub struct ShdSent {
    /// Processes concerned; those beyond the room given are not told.
    pub total: u32,
    /// Passes over `/proc`.
    pub passes: u32,
    /// Until the signal had gone to all who were named, ns.
    pub first_ns: u64,
    /// Until everybody was at rest, ns.
    pub elapsed_ns: u64,
    /// Whether a last pass found nobody new with everybody at rest.
    pub complete: bool,
}

/// What a process runs.
#[repr(C)]
pub struct ShdStanding {
    /// Device of the executable.
    pub dev: u64,
    /// Its inode.
    pub ino: u64,
    /// SHA-256 of its content.
    pub digest: [u8; 32],
    /// Whether it runs code that others than root could have put there, or is under another's control.
    pub foreign: bool,
    /// Why it would be spared, as in [`ShdTold`].
    pub why: u8,
    /// UTF-8, zero-terminated: what is foreign in it.
    pub text: [u8; 118],
}

/// Makes a freezer.
///
/// # Safety
/// Each pointer leads to so many readable elements as its length says (units: bytes, each name ended by a zero byte), or
/// the length is 0; `out` is writable, `error` null or writable.
#[no_mangle]
pub unsafe extern "C" fn shd_freezer_new(
    own: *const i32,
    own_len: usize,
    digests: *const [u8; 32],
    digests_len: usize,
    units: *const u8,
    units_len: usize,
    out: *mut *mut ShdFreezer,
    error: *mut ShdError,
) -> i32 {
    let body = || {
        if out.is_null() {
            return Err(Failure::new("native.argument", "null pointer"));
        }
        // SAFETY: the caller promises so many readable elements.
        let (own, digests, units) = unsafe {
            (
                slice(own, own_len)?,
                slice(digests, digests_len)?,
                slice(units, units_len)?,
            )
        };
        let units: Vec<Vec<u8>> = units
            .split(|&b| b == 0)
            .filter(|x| !x.is_empty())
            .map(<[u8]>::to_vec)
            .collect();
        let never = Never::new(own, digests, &units);
        // SAFETY: the caller promises a writable pointer.
        unsafe { *out = Box::into_raw(Box::new(ShdFreezer(Mutex::new(never)))) };
        Ok(())
    };
    // SAFETY: the caller promises null or a writable record.
    unsafe { guarded(error, body) }
}

/// Ends a freezer.
///
/// # Safety
/// `freezer` is null or came from `shd_freezer_new` and is used no more.
#[no_mangle]
pub unsafe extern "C" fn shd_freezer_free(freezer: *mut ShdFreezer) {
    if !freezer.is_null() {
        // SAFETY: the caller gives it back.
        drop(unsafe { Box::from_raw(freezer) });
    }
}

/// Sends a signal to a group: 1 SIGSTOP, 2 SIGCONT, 3 SIGKILL. SIGSTOP and SIGKILL reach those that belong to the named
/// too.
///
/// # Safety
/// `freezer` is alive, `members` leads to `count` readable elements, `out` to `room` writable ones, `sent` is writable,
/// `error` null or writable.
#[no_mangle]
pub unsafe extern "C" fn shd_freezer_send(
    freezer: *const ShdFreezer,
    sign: u32,
    members: *const ShdMember,
    count: usize,
    passes: u32,
    time_ms: u32,
    out: *mut ShdTold,
    room: usize,
    sent: *mut ShdSent,
    error: *mut ShdError,
) -> i32 {
    let body = || {
        let sign = match sign {
            1 => Sign::Stop,
            2 => Sign::Continue,
            3 => Sign::Kill,
            _ => return Err(Failure::new("native.argument", "no such signal")),
        };
        if sent.is_null() || (out.is_null() && room > 0) {
            return Err(Failure::new("native.argument", "null pointer"));
        }
        // SAFETY: the caller promises so many readable elements.
        let named: Vec<Member> = unsafe { slice(members, count)? }
            .iter()
            .map(|x| Member {
                pid: x.pid,
                start_ticks: x.start_ticks,
            })
            .collect();
        // SAFETY: the caller promises a freezer that is alive.
        let mut never = lock(unsafe { freezer.as_ref() })?;
        let limits = Limits {
            passes,
            time: Duration::from_millis(u64::from(time_ms)),
        };
        let report = send(&named, sign, &mut never, &limits);
        for (at, told) in report.told.iter().take(room).enumerate() {
            let row = ShdTold {
                start_ticks: told.member.start_ticks,
                pid: told.member.pid,
                ppid: told.ppid,
                flags: told.flags,
                errno: told.errno,
                fate: told.fate as u8,
                why: told.why.map_or(0, |x| x as u8),
                state: told.state,
                reserved: 0,
            };
            // SAFETY: at is below room, and the caller promises so many writable elements.
            unsafe { out.add(at).write(row) };
        }
        let ns = |x: Duration| u64::try_from(x.as_nanos()).unwrap_or(u64::MAX);
        let summary = ShdSent {
            total: report.told.len() as u32,
            passes: report.passes,
            first_ns: ns(report.first),
            elapsed_ns: ns(report.elapsed),
            complete: report.complete,
        };
        // SAFETY: the caller promises a writable record.
        unsafe { sent.write(summary) };
        Ok(())
    };
    // SAFETY: the caller promises null or a writable record.
    unsafe { guarded(error, body) }
}

/// Looks at what a process runs now. Fails with `contain.gone` where it is gone, another, or cannot be read.
///
/// # Safety
/// `freezer` is alive, `out` is writable, `error` null or writable.
#[no_mangle]
pub unsafe extern "C" fn shd_freezer_look(
    freezer: *const ShdFreezer,
    member: ShdMember,
    out: *mut ShdStanding,
    error: *mut ShdError,
) -> i32 {
    let body = || {
        let gone = || Failure::new("contain.gone", "the process is gone or cannot be read");
        // SAFETY: the caller promises a freezer that is alive.
        let mut never = lock(unsafe { freezer.as_ref() })?;
        let same = |pid| {
            shieldd_sys::freeze::stat::seen(pid).filter(|x| x.start_ticks == member.start_ticks)
        };
        let seen = same(member.pid).ok_or_else(gone)?;
        let why = never.why(&seen);
        let (executable, digest, foreign) = never.standing(member.pid).ok_or_else(gone)?;
        // The number may have passed on while its files were read.
        same(member.pid).ok_or_else(gone)?;
        let mut text = [0u8; 118];
        let words = foreign.as_ref().map(|x| x.text()).unwrap_or_default();
        let end = words.len().min(text.len() - 1);
        text[..end].copy_from_slice(&words.as_bytes()[..end]);
        let standing = ShdStanding {
            dev: executable.dev,
            ino: executable.ino,
            digest,
            foreign: foreign.is_some(),
            why: why.map_or(0, |x| x as u8),
            text,
        };
        // SAFETY: the caller promises null or a writable record.
        match unsafe { out.as_mut() } {
            Some(out) => *out = standing,
            None => return Err(Failure::new("native.argument", "null pointer")),
        }
        Ok(())
    };
    // SAFETY: the caller promises null or a writable record.
    unsafe { guarded(error, body) }
}

/// Freezes the control group that holds these processes and nobody else; its directory, zero-terminated, goes to `out`.
/// Fails with `contain.cgroup` and the reason.
///
/// # Safety
/// `pids` leads to `count` readable integers, `out` to `room` writable bytes, `error` is null or writable.
#[no_mangle]
pub unsafe extern "C" fn shd_cgroup_freeze(
    pids: *const i32,
    count: usize,
    out: *mut u8,
    room: usize,
    error: *mut ShdError,
) -> i32 {
    let body = || {
        // SAFETY: the caller promises so many readable elements.
        let pids = unsafe { slice(pids, count)? };
        let place = ice::freeze(pids).map_err(|x| Failure::new("contain.cgroup", x.text()))?;
        let name = place.as_os_str().as_bytes();
        if out.is_null() || name.len() >= room {
            let _ = ice::thaw(&place);
            return Err(Failure::new("native.argument", "no room for the name"));
        }
        // SAFETY: the name and its end fit into the room that the caller promises.
        unsafe {
            std::ptr::copy_nonoverlapping(name.as_ptr(), out, name.len());
            out.add(name.len()).write(0);
        }
        Ok(())
    };
    // SAFETY: the caller promises null or a writable record.
    unsafe { guarded(error, body) }
}

/// Thaws a control group that `shd_cgroup_freeze` froze.
///
/// # Safety
/// `path` leads to `len` readable bytes, `error` is null or writable.
#[no_mangle]
pub unsafe extern "C" fn shd_cgroup_thaw(path: *const u8, len: usize, error: *mut ShdError) -> i32 {
    let body = || {
        // SAFETY: the caller promises so many readable bytes.
        let path = unsafe { slice(path, len)? };
        ice::thaw(Path::new(std::ffi::OsStr::from_bytes(path)))
            .map_err(|x| Failure::new("contain.cgroup", x.text()))
    };
    // SAFETY: the caller promises null or a writable record.
    unsafe { guarded(error, body) }
}

/// # Safety
/// `at` leads to `count` readable elements that outlive the result, or `count` is 0.
unsafe fn slice<'a, T>(at: *const T, count: usize) -> Result<&'a [T], Failure> {
    if count == 0 {
        return Ok(&[]);
    }
    if at.is_null() {
        return Err(Failure::new("native.argument", "null pointer"));
    }
    // SAFETY: the caller promises so many readable elements.
    Ok(unsafe { std::slice::from_raw_parts(at, count) })
}

fn lock(freezer: Option<&ShdFreezer>) -> Result<MutexGuard<'_, Never>, Failure> {
    let freezer = freezer.ok_or_else(|| Failure::new("native.argument", "null pointer"))?;
    // What is kept of executables is checked against the file each time: a panic in between leaves nothing wrong.
    Ok(freezer
        .0
        .lock()
        .unwrap_or_else(|broken| broken.into_inner()))
}
