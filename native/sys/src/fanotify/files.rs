//! What happens to files.
//!
//! The kernel merges what one process does to one file under one name; the bits of such an event are taken in the
//! order in which they make sense, and what became of the file is seen when the row is made.

use shieldd_core::event::Kind;

use super::kernel::Named;
use super::scope::OUTSIDE;
use super::state::{LastMove, State};
use crate::events::pending::{Renamed, Span};
use crate::files::staged::is_own;

/// One operation: kind, whether the writer is still at it, kernel events in it.
type Operation = (Kind, Option<bool>, u32);

/// The operations of a mask, in order.
#[inline]
fn operations_of(mask: u64) -> [Option<Operation>; 4] {
    let has = |bit: u64| mask & bit != 0;
    let written = has(libc::FAN_MODIFY) || has(libc::FAN_CLOSE_WRITE);
    let closed = has(libc::FAN_CLOSE_WRITE);
    let count = u32::from(has(libc::FAN_MODIFY)) + u32::from(closed);
    [
        has(libc::FAN_CREATE).then_some((Kind::Create, Some(true), 1)),
        written.then_some((Kind::Write, Some(!closed), count)),
        has(libc::FAN_ATTRIB).then_some((Kind::Attrib, None, 1)),
        has(libc::FAN_DELETE).then_some((Kind::Delete, Some(false), 1)),
    ]
}

impl State {
    /// What was done to a file in the directory entered.
    #[inline]
    pub(super) fn operations(&mut self, dir: i32, name: &[u8], raw: &Named<'_>) {
        const NAMES: u64 = libc::FAN_CREATE | libc::FAN_DELETE;
        if self.last_move.is_some() && raw.mask & NAMES != 0 {
            self.was_not_replaced(raw);
        }
        let mut live = None;
        for (kind, held, count) in operations_of(raw.mask).into_iter().flatten() {
            let ends = held != Some(true) || kind == Kind::Create;
            if self.announced(name, &[kind], ends) {
                continue;
            }
            live = match live {
                Some(at) => {
                    self.counters.merged += u64::from(count);
                    self.pending.merge(at, kind, held, count);
                    Some(at)
                }
                None => match self.operation(dir, name, (kind, held, count)) {
                    Some(at) => Some(at),
                    None => return,
                },
            };
        }
        if let Some(rec) = live.and_then(|at| self.pending.recs.get_mut(at)) {
            rec.unsure = raw.mask & NAMES == NAMES;
        }
    }

    /// One operation; the record that took it, none where it is left out or lost.
    pub(super) fn operation(&mut self, dir: i32, name: &[u8], what: Operation) -> Option<usize> {
        let (kind, held, count) = what;
        let again = self
            .pending
            .again(dir, name)
            .filter(|&at| self.pending.recs[at].actor == self.who.actor);
        let key = self.key(dir, name);
        if let Some(at) = again.or_else(|| self.live(key)) {
            self.counters.merged += u64::from(count);
            self.pending.merge(at, kind, held, count);
            return Some(at);
        }
        if self.excluded(name, false) {
            return None;
        }
        if self.pending.is_full() {
            self.lose(self.here.tree, u64::from(count));
            return None;
        }
        let path = self.pending.path(&self.here.prefix, name);
        let mut rec = self.record(kind, dir, path);
        rec.merged = count;
        rec.held = held.unwrap_or(false);
        self.pending.push(key, rec);
        Some(self.pending.recs.len() - 1)
    }

    /// A file took another name, in, out of or between trees.
    pub(super) fn moved(&mut self, raw: &Named<'_>) {
        let (Some((from, old_name)), Some((to, name))) = (raw.place, raw.to) else {
            return;
        };
        let (from, to) = (self.place(from), self.place(to));
        if from < OUTSIDE || to < OUTSIDE {
            return self.elsewhere(if from < OUTSIDE { from } else { to }, raw);
        }
        if from <= 0 && to <= 0 {
            return;
        }
        if self.own_pids.contains(&raw.pid) {
            self.counters.own += 1;
            return;
        }
        self.by(raw.pid);
        let seen = from > 0 && self.enter(from) && !is_own(old_name);
        let seen = seen && !self.excluded(old_name, false);
        let from_tree = self.here.tree;
        // a visible file that takes one of our hidden names is gone for everybody else
        let shown = to > 0 && self.enter(to) && !is_own(name) && !self.excluded(name, false);
        if seen && shown && from_tree == self.here.tree {
            if !self.announced(name, &[Kind::Rename, Kind::Create], true) {
                self.renamed(from, old_name, to, raw);
            }
            return;
        }
        if seen
            && self.enter(from)
            && !self.announced(old_name, &[Kind::Delete, Kind::Rename], true)
        {
            self.operation(from, old_name, (Kind::Delete, Some(false), 1));
        }
        if shown && self.enter(to) && !self.announced(name, &[Kind::Create, Kind::Rename], true) {
            let at = self.operation(to, name, (Kind::Create, Some(false), 1));
            self.may_replace(at, raw);
        }
    }

    fn renamed(&mut self, from: i32, old_name: &[u8], to: i32, raw: &Named<'_>) {
        let Some((_, name)) = raw.to else { return };
        let old = self.key(from, old_name);
        let new = self.key(to, name);
        let mut above = std::mem::take(&mut self.scratch);
        let known = self.dirs.prefix(from, &mut above);
        let rec = self.record(Kind::Rename, to, Span::default());
        let place = (known.then_some(above.as_slice()), old);
        let what = self.pending.renamed(rec, place, (&self.here.prefix, new));
        self.scratch = above;
        match what {
            Renamed::Carried(at) => {
                self.counters.merged += 2;
                self.may_replace(Some(at), raw);
            }
            Renamed::Added(at) => self.may_replace(Some(at), raw),
            Renamed::Full => self.lose(self.here.tree, 1),
        }
    }

    /// The next event of the process may tell that this rename replaced a file.
    fn may_replace(&mut self, rec: Option<usize>, raw: &Named<'_>) {
        self.last_move = match (rec, raw.object) {
            (Some(rec), Some(object)) => Some(LastMove {
                pid: raw.pid,
                rec,
                object: object.key.to_vec(),
                over: Vec::new(),
            }),
            _ => None,
        };
    }
}
