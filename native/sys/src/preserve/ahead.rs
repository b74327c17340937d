//! Objects made ahead of time: a copy that has its file already takes half as long, and somebody waits for it.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use super::object::Object;
use super::vault::Vault;
use super::version::VersionId;
use crate::files::trouble::Result;

/// Files that stand ready, and who fills them up.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    state: Mutex<State>,
    wanted: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<(VersionId, OwnedFd)>,
    /// How many shall stand ready.
    count: usize,
    over: bool,
}

impl Ahead {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that stands ready; never waits for one.
    fn take(&self) -> Option<(VersionId, OwnedFd)> {
        let mut state = self.state();
        let taken = state.ready.pop_front();
        if state.count > 0 && state.ready.len() <= state.count / 2 {
            self.wanted.notify_one();
        }
        taken
    }

    /// No more; what stands ready is handed back.
    pub(super) fn end(&self) -> VecDeque<(VersionId, OwnedFd)> {
        let mut state = self.state();
        state.over = true;
        self.wanted.notify_all();
        std::mem::take(&mut state.ready)
    }

    /// Waits until some are wanted: how many; `None` when it is over.
    fn wait(&self) -> Option<usize> {
        let mut state = self.state();
        loop {
            if state.over {
                return None;
            }
            if state.ready.len() <= state.count / 2 {
                return Some(state.count - state.ready.len());
            }
            state = self
                .wanted
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Vault {
    /// Keeps `count` objects ready from now on, by a thread of its own that ends with the vault. To be called before
    /// marks are put: the thread opens files in `images/`.
    ///
    /// # Errors
    /// `file.io` where no thread can be had.
    pub fn prepare_ahead(self: &Arc<Self>, count: usize) -> Result<()> {
        self.ahead.state().count = count;
        let (ahead, vault) = (self.ahead.clone(), Arc::downgrade(self));
        std::thread::Builder::new()
            .name("shieldd-ahead".into())
            .spawn(move || while fill(&ahead, &vault) {})
            .map(|_| ())
            .map_err(|e| crate::files::Trouble {
                code: "file.io",
                errno: e.raw_os_error().unwrap_or(0),
                message: "no thread is left".into(),
            })
    }

    /// A file for a copy, and its id.
    pub(super) fn ready_object(&self) -> Result<(VersionId, Object<'_>)> {
        if let Some((id, fd)) = self.ahead.take() {
            return Ok((id, self.object(id, fd)));
        }
        let id = self.writer.id()?;
        Ok((id, self.new_object(id)?))
    }
}

/// Makes what is wanted; false when it is over, or when no more can be made (a full disk: copies try for themselves).
fn fill(ahead: &Ahead, vault: &Weak<Vault>) -> bool {
    let Some(wanted) = ahead.wait() else {
        return false;
    };
    let Some(vault) = vault.upgrade() else {
        return false;
    };
    for _ in 0..wanted {
        let Ok(id) = vault.writer.id() else {
            return false;
        };
        let Ok(fd) = vault.new_object(id).and_then(Object::into_fd) else {
            return false;
        };
        let mut state = ahead.state();
        if state.over {
            drop(state);
            drop(vault.object(id, fd));
            return false;
        }
        state.ready.push_back((id, fd));
    }
    true
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    use super::super::{place, About, Index, Options};
    use super::*;

    #[test]
    fn copies_use_what_stands_ready_and_the_rest_goes_with_the_vault() {
        let base = std::env::temp_dir().join(format!("shieldd-ahead-{}", std::process::id()));
        std::fs::create_dir_all(&base).unwrap();
        std::fs::write(base.join("f"), b"content").unwrap();
        let parent: OwnedFd = std::fs::File::open(&base).unwrap().into();
        let file: OwnedFd = std::fs::File::open(base.join("f")).unwrap().into();
        let open = || {
            let dir = place::make(parent.as_fd(), place::NAME).unwrap();
            Vault::open(dir, Options::default()).unwrap()
        };
        let images = base.join(".shieldd-vault/images");
        let count = || std::fs::read_dir(&images).unwrap().count();
        let vault = open();
        vault.prepare_ahead(8).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while vault.ahead.state().ready.len() < 8 {
            assert!(Instant::now() < deadline, "nothing was made ahead");
            std::thread::yield_now();
        }
        let first = vault.ahead.state().ready[0].0;
        for actor in 1..20 {
            let about = About {
                tree: 0,
                path: b"f",
                actor,
                at_ns: 1,
            };
            let id = vault.image(file.as_fd(), &about).unwrap();
            assert!(actor > 1 || id == first);
        }
        let ahead = vault.ahead.clone();
        drop(vault);
        while Arc::strong_count(&ahead) > 1 {
            assert!(Instant::now() < deadline, "the thread outlives its vault");
            std::thread::yield_now();
        }
        assert_eq!(count(), 19);
        let index = Index::open(open()).unwrap();
        assert_eq!(index.standing().versions, 19);
        drop(index);
        std::fs::remove_dir_all(&base).unwrap();
    }
}
