//! Watchers over fanotify; once made, they are used through `watch.rs` as every other.

use std::time::Duration;

use shieldd_sys::actors::{ActorOf, SharedTable};
use shieldd_sys::events::Options;
use shieldd_sys::fanotify::{Nobody, Settings, Watcher};

use crate::abi::{guarded, ShdError};
use crate::actors::ShdActors;
use crate::observe::{ShdBaseline, ShdWindows};
use crate::watch::{failed, null, specs, ShdTree, ShdWatcher};

/// What a watcher over fanotify is told beside what every watcher is.
#[repr(C)]
pub struct ShdFanotify {
    /// Processes whose own operations are not reported.
    pub own_pids: *const i32,
    /// How many there are.
    pub own_count: usize,
    /// How long our full queue may leave events in the kernel's before they count as lost, microseconds.
    pub patience_us: u64,
    /// Not 0: the kernel's queue has its limit.
    pub limited: u8,
    /// Who is behind a process; null: each tree is its own actor.
    pub actors: *const ShdActors,
}

/// A watcher over `count` trees that marks their file systems. `inspect` 0 leaves the content of files alone.
///
/// # Safety
/// `trees` points to `count` trees whose pointers hold, `settings` to one record whose pointers hold; the handles are
/// live; `out` points to one writable pointer.
#[no_mangle]
pub unsafe extern "C" fn shd_fanotify_new(
    trees: *const ShdTree,
    count: usize,
    inspect: u8,
    hold_us: u64,
    capacity: usize,
    settings: *const ShdFanotify,
    baseline: *const ShdBaseline,
    windows: *const ShdWindows,
    out: *mut *mut ShdWatcher,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the pointers.
    unsafe {
        guarded(error, || {
            let baseline = baseline.as_ref().ok_or_else(|| null("baseline"))?;
            let windows = windows.as_ref().ok_or_else(|| null("windows"))?;
            let asked = settings.as_ref().ok_or_else(|| null("settings"))?;
            let out = out.as_mut().ok_or_else(|| null("out"))?;
            let own_pids = match asked.own_pids.is_null() {
                true => Vec::new(),
                false => std::slice::from_raw_parts(asked.own_pids, asked.own_count).to_vec(),
            };
            let settings = Settings {
                own_pids,
                patience: Duration::from_micros(asked.patience_us),
                limited: asked.limited != 0,
            };
            let actors: Box<dyn ActorOf + Send> = match asked.actors.as_ref() {
                Some(actors) => Box::new(SharedTable(actors.inner.clone())),
                None => Box::new(Nobody),
            };
            let options = Options {
                hold: Duration::from_micros(hold_us),
                capacity,
            };
            let specs = specs(trees, count, capacity)?;
            let watcher = Watcher::new(specs, options, settings, actors).map_err(|e| failed(&e))?;
            *out = ShdWatcher::wrap(
                Box::new(watcher),
                inspect != 0,
                baseline.inner.clone(),
                windows.inner.clone(),
            );
            Ok(())
        })
    }
}
