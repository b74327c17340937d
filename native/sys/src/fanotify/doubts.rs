//! Rows that said something of a name which did not hold when they were made.
//!
//! The kernel merges events, so the one that made it true may have been told before: a file renamed away and back and
//! removed is *removed*, then renamed. Such a name is looked at again after a while, unless another row speaks of it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use shieldd_core::event::{flags, Kind};

use super::state::State;
use crate::events::dirs::NONE;
use crate::events::look::stat_in;
use crate::events::pending::{Pending, Rec, Touch};
use crate::events::rows::Rows;

/// How long the event that explains it may take.
const PATIENCE: Duration = Duration::from_millis(25);
/// Doubts at most; beyond it the names are not looked at again.
const MOST: usize = 65_536;

struct Doubt {
    rec: Rec,
    said_there: bool,
    at: Instant,
}

/// Names that are in doubt.
#[derive(Default)]
pub(super) struct Doubts {
    names: HashMap<(i32, Box<[u8]>), Doubt>,
}

impl Doubts {
    /// A row says that a name is there or is not; `is_there` is what a look said. Earlier doubts of it are over.
    pub(super) fn told(&mut self, rec: &Rec, path: &[u8], said_there: bool, is_there: bool) {
        let name = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
        if said_there == is_there {
            if !self.names.is_empty() {
                self.names.remove(&(rec.dir, Box::from(name)));
            }
            return;
        }
        if rec.dir == NONE || self.names.len() >= MOST {
            return;
        }
        let doubt = Doubt {
            rec: *rec,
            said_there,
            at: Instant::now() + PATIENCE,
        };
        self.names.insert((rec.dir, name.into()), doubt);
    }

    /// When the first is to be looked at.
    pub(super) fn due(&self) -> Option<Instant> {
        self.names.values().map(|doubt| doubt.at).min()
    }

    /// Looks at those whose time has come; what differs from what was said goes into `out`.
    pub(super) fn judge(&mut self, state: &State, rows: &Rows, out: &mut Pending) {
        let now = Instant::now();
        let due: Vec<(i32, Box<[u8]>)> = self
            .names
            .iter()
            .filter(|(_, doubt)| doubt.at <= now)
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            let Some(doubt) = self.names.remove(&key) else {
                continue;
            };
            let (dir, name) = key;
            if state.pending.touch(state.key(dir, &name)) != Touch::None {
                continue; // a row of it will come
            }
            let mut now = Vec::new();
            if !state.dirs.prefix(dir, &mut now) {
                continue; // gone with its directory
            }
            now.extend_from_slice(&name);
            let stat = stat_in(rows.root(doubt.rec.tree), &now);
            if stat.is_some() == doubt.said_there {
                continue;
            }
            let kind = if doubt.said_there {
                Kind::Delete
            } else {
                Kind::Create
            };
            let path = out.path(&now[..now.len() - name.len()], &name);
            let at = crate::events::clocks();
            let mut rec = Rec::new(kind, doubt.rec.tree, dir, path, at);
            (rec.pid, rec.actor) = (doubt.rec.pid, doubt.rec.actor);
            rec.flags = flags::SYNTHETIC | doubt.rec.flags & (flags::ATTRIBUTED | flags::GUESSED);
            out.recs.push(rec);
        }
    }
}
