//! Actors: the processes behind events, grouped.
//!
//! What is told of an actor is one block of bytes, little-endian, texts with their length before them; its face is
//! `shieldd/native/actors.py`.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shieldd_sys::actors::process::tampering;
use shieldd_sys::actors::{
    client, Actor, ActorOf, ActorStats, Executable, Guess, Kind, Options, Programs, Table,
};

use crate::abi::{guarded, Failure, ShdError};
use crate::observe::lock;

/// How long it is waited for what lies in the processes' memory; longer by whoever is about to trust.
const LOOKED: Duration = Duration::from_millis(20);
const LOOKED_CLOSELY: Duration = Duration::from_millis(200);

/// A shared table of actors.
pub struct ShdActors {
    /// What a source of events shares.
    pub inner: Arc<Mutex<Table>>,
}

/// A living process of an actor.
#[repr(C)]
pub struct ShdMember {
    /// Its start, clock ticks since boot.
    pub start_ticks: u64,
    /// Its number.
    pub pid: i32,
    /// Zero.
    pub reserved: u32,
}

fn null(what: &str) -> Failure {
    Failure::new("native.argument", format!("{what} is null"))
}

/// # Safety
/// `data` points to `len` readable elements, or `len` is 0.
unsafe fn slice<'a, T>(data: *const T, len: usize) -> &'a [T] {
    if data.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: the caller promises it.
    unsafe { std::slice::from_raw_parts(data, len) }
}

/// Copies what fits of `from`, and tells the whole length.
///
/// # Safety
/// `out` has room for `capacity` elements or is null, `length` points to one number.
unsafe fn give<T>(
    from: &[T],
    out: *mut T,
    capacity: usize,
    length: *mut usize,
) -> Result<(), Failure> {
    // SAFETY: the caller promises the pointers.
    unsafe {
        *length.as_mut().ok_or_else(|| null("length"))? = from.len();
        if !out.is_null() {
            std::ptr::copy_nonoverlapping(from.as_ptr(), out, from.len().min(capacity));
        }
    }
    Ok(())
}

/// A table of at most `processes` processes and `actors` actors, `pidfds` of them held at once. `own` are our own
/// processes; `servers` the executables (absolute paths, each ended by a zero byte) whose children are one actor each.
///
/// # Safety
/// `own` holds `own_count` numbers, `servers` `servers_len` bytes, `out` points to one writable pointer.
#[no_mangle]
pub unsafe extern "C" fn shd_actors_new(
    processes: usize,
    actors: usize,
    pidfds: usize,
    own: *const i32,
    own_count: usize,
    servers: *const u8,
    servers_len: usize,
    out: *mut *mut ShdActors,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the pointers.
    unsafe {
        guarded(error, || {
            let servers = slice(servers, servers_len).split(|b| *b == 0);
            let programs = Programs {
                own: slice(own, own_count).to_vec(),
                servers: servers
                    .filter(|x| !x.is_empty())
                    .map(<[u8]>::to_vec)
                    .collect(),
            };
            let options = Options {
                processes: processes.max(16),
                actors: actors.max(16),
                pidfds,
                programs,
                ..Options::default()
            };
            let table = Table::new(options).map_err(|error| Failure {
                code: "actors.proc",
                errno: error.raw_os_error().unwrap_or(0),
                message: format!("processes cannot be looked at: {error}"),
            })?;
            let inner = Arc::new(Mutex::new(table));
            *out.as_mut().ok_or_else(|| null("out"))? =
                Box::into_raw(Box::new(ShdActors { inner }));
            Ok(())
        })
    }
}

/// Frees a table; null is fine.
///
/// # Safety
/// `handle` came from `shd_actors_new` and is not used again.
#[no_mangle]
pub unsafe extern "C" fn shd_actors_free(handle: *mut ShdActors) {
    if !handle.is_null() {
        // SAFETY: the caller promises that it is ours and last used.
        drop(unsafe { Box::from_raw(handle) });
    }
}

/// Actor of each of `count` processes: its key, 0 where nothing is known; `certain` is 1 where it is no guess.
///
/// # Safety
/// `handle` is live; `pids`, `keys` and `certain` hold `count` elements.
#[no_mangle]
pub unsafe extern "C" fn shd_actors_of(
    handle: *const ShdActors,
    pids: *const i32,
    count: usize,
    keys: *mut u64,
    certain: *mut u8,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the pointers and lengths.
    unsafe {
        guarded(error, || {
            let handle = handle.as_ref().ok_or_else(|| null("actors"))?;
            if keys.is_null() || certain.is_null() {
                return Err(null("out"));
            }
            let mut table = lock(&handle.inner);
            table.begin();
            for (at, pid) in slice(pids, count).iter().enumerate() {
                let (key, sure) = table.actor(*pid);
                *keys.add(at) = key;
                *certain.add(at) = u8::from(sure);
            }
            Ok(())
        })
    }
}

/// What is known of an actor, at most `capacity` bytes into `out`; `length` receives all of its length, 0 where it is
/// not known. `closely`: what its living processes run is looked at again first.
///
/// # Safety
/// `handle` is live, `out` has room for `capacity` bytes, `length` points to one number.
#[no_mangle]
pub unsafe extern "C" fn shd_actors_info(
    handle: *const ShdActors,
    key: u64,
    closely: bool,
    out: *mut u8,
    capacity: usize,
    length: *mut usize,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the pointers and lengths.
    unsafe {
        guarded(error, || {
            let handle = handle.as_ref().ok_or_else(|| null("actors"))?;
            if closely {
                lock(&handle.inner).examine(key);
            }
            let actor = looked_at(handle, key, if closely { LOOKED_CLOSELY } else { LOOKED });
            let told = actor.map(|actor| tell(&actor)).unwrap_or_default();
            give(&told, out, capacity, length)
        })
    }
}

/// All living processes of an actor, at most `capacity` into `out`; `length` receives their number.
///
/// # Safety
/// `handle` is live, `out` has room for `capacity` records, `length` points to one number.
#[no_mangle]
pub unsafe extern "C" fn shd_actors_members(
    handle: *const ShdActors,
    key: u64,
    out: *mut ShdMember,
    capacity: usize,
    length: *mut usize,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the pointers and lengths.
    unsafe {
        guarded(error, || {
            let handle = handle.as_ref().ok_or_else(|| null("actors"))?;
            let found = lock(&handle.inner).members(key);
            let member = |(pid, start_ticks)| ShdMember {
                start_ticks,
                pid,
                reserved: 0,
            };
            let members: Vec<ShdMember> = found.into_iter().map(member).collect();
            give(&members, out, capacity, length)
        })
    }
}

/// Who has files open beneath roots (absolute paths, each ended by a zero byte), most writers first; at most
/// `capacity` into `out`, `length` receives their number. Takes `budget_ns` at most.
///
/// # Safety
/// `handle` is live, `roots` holds `roots_len` bytes, `out` has room for `capacity` records, `length` points to one
/// number.
#[no_mangle]
pub unsafe extern "C" fn shd_actors_guess(
    handle: *const ShdActors,
    roots: *const u8,
    roots_len: usize,
    budget_ns: u64,
    out: *mut Guess,
    capacity: usize,
    length: *mut usize,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the pointers and lengths.
    unsafe {
        guarded(error, || {
            let handle = handle.as_ref().ok_or_else(|| null("actors"))?;
            let roots = slice(roots, roots_len).split(|b| *b == 0);
            let roots: Vec<Vec<u8>> = roots
                .filter(|x| !x.is_empty())
                .map(<[u8]>::to_vec)
                .collect();
            let found = lock(&handle.inner).guess(&roots, Duration::from_nanos(budget_ns));
            give(&found, out, capacity, length)
        })
    }
}

/// Counters of a table.
///
/// # Safety
/// `handle` is live, `out` points to one record.
#[no_mangle]
pub unsafe extern "C" fn shd_actors_stats(
    handle: *const ShdActors,
    out: *mut ActorStats,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the pointers.
    unsafe {
        guarded(error, || {
            let handle = handle.as_ref().ok_or_else(|| null("actors"))?;
            *out.as_mut().ok_or_else(|| null("out"))? = lock(&handle.inner).stats();
            Ok(())
        })
    }
}

/// An actor, once its processes' memory was looked at; what takes longer counts as not looked at.
fn looked_at(handle: &ShdActors, key: u64, most: Duration) -> Option<Actor> {
    let end = Instant::now() + most;
    loop {
        let mut table = lock(&handle.inner);
        table.begin();
        let mut actor = table.info(key)?.clone();
        drop(table);
        if actor.pending == 0 {
            return Some(actor);
        }
        if Instant::now() >= end {
            for one in &mut actor.executables {
                one.tampering |= tampering::UNREADABLE;
            }
            return Some(actor);
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// The block that tells of an actor.
fn tell(actor: &Actor) -> Vec<u8> {
    let process = &actor.process;
    let mut out = Vec::with_capacity(1024);
    for number in [
        actor.group.key.get(),
        process.start_ticks,
        actor.start_ns(),
        actor.processes,
        actor.details.pidns_ino,
    ] {
        out.extend(number.to_le_bytes());
    }
    for number in [process.pid as u32, process.uid, actor.details.login_uid] {
        out.extend(number.to_le_bytes());
    }
    let kind = actor.group.kind as u8;
    out.extend([kind, u8::from(actor.group.certain), u8::from(actor.more), 0]);
    let shown = Executable {
        exe: process.exe.clone(),
        pid: process.pid,
        start_ticks: process.start_ticks,
        tampering: process.tampering,
    };
    put_executable(&mut out, &shown);
    let peer = match actor.group.kind {
        Kind::Client => client::of(process.pid, &actor.details.cmdline),
        _ => Vec::new(),
    };
    let container = shieldd_sys::actors::parse::container(&process.cgroup);
    let texts: [&[u8]; 6] = [
        &process.comm,
        &actor.details.cmdline,
        &process.cgroup,
        process.unit(),
        container,
        &peer,
    ];
    for text in texts {
        put(&mut out, text);
    }
    out.extend((actor.ancestry.len() as u32).to_le_bytes());
    for ancestor in &actor.ancestry {
        out.extend(ancestor.pid.to_le_bytes());
        put(&mut out, &ancestor.exe);
        put(&mut out, &ancestor.comm);
    }
    out.extend((actor.executables.len() as u32).to_le_bytes());
    for one in &actor.executables {
        put_executable(&mut out, one);
    }
    out
}

fn put_executable(out: &mut Vec<u8>, one: &Executable) {
    let exe = &one.exe;
    let times = [exe.mtime_ns as u64, exe.ctime_ns as u64];
    for number in [one.start_ticks, exe.dev, exe.ino, exe.size]
        .into_iter()
        .chain(times)
    {
        out.extend(number.to_le_bytes());
    }
    out.extend(one.pid.to_le_bytes());
    out.extend([one.tampering, u8::from(exe.deleted)]);
    put(out, &exe.path);
}

fn put(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text);
}
