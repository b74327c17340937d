//! Verdicts on actors: a table that the daemon writes and the answerer reads, one atomic word an entry.
//!
//! An entry holds 56 bits of the actor's key and the verdict, so that it changes as a whole. Entries are never taken
//! out (a search ends at the first empty one); one without a verdict is used again.

use std::sync::atomic::Ordering;

use super::control::{Control, Word};

/// Entries: far more than actors that are judged at one time.
pub const SLOTS: usize = 8192;
/// How far an entry may lie from where its key belongs.
const REACH: usize = 64;

/// What the policy says of an actor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    /// Nothing yet: goes on, its version preserved.
    #[default]
    None = 0,
    /// Goes on, its version preserved.
    Allow = 1,
    /// Refused, reads too.
    Deny = 2,
    /// Waits for the daemon's word as long as the bound allows, then goes on.
    Ask = 3,
}

impl Verdict {
    /// From a number of the ABI.
    pub fn from_number(number: u8) -> Option<Verdict> {
        match number {
            0 => Some(Verdict::None),
            1 => Some(Verdict::Allow),
            2 => Some(Verdict::Deny),
            3 => Some(Verdict::Ask),
            _ => None,
        }
    }
}

fn entry(actor: u64, verdict: Verdict) -> u64 {
    actor << 8 | verdict as u64
}

fn home(actor: u64) -> usize {
    (actor.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize % SLOTS
}

impl Control {
    /// The verdict on an actor; none for actor 0, who is nobody.
    pub fn verdict(&self, actor: u64) -> Verdict {
        if actor == 0 {
            return Verdict::None;
        }
        for step in 0..REACH {
            let found = self.table()[(home(actor) + step) % SLOTS].load(Ordering::Acquire);
            if found == 0 {
                break;
            }
            if found >> 8 == actor << 8 >> 8 {
                return Verdict::from_number(found as u8).unwrap_or_default();
            }
        }
        Verdict::None
    }

    /// Sets it; the daemon alone does, from one thread at a time. False where there is no room: nothing changed.
    pub fn set_verdict(&self, actor: u64, verdict: Verdict) -> bool {
        let mut free = None;
        for step in 0..REACH {
            let slot = &self.table()[(home(actor) + step) % SLOTS];
            let found = slot.load(Ordering::Relaxed);
            if found != 0 && found >> 8 == actor << 8 >> 8 {
                slot.store(entry(actor, verdict), Ordering::Release);
                self.recount(found as u8, verdict);
                return true;
            }
            if found as u8 == Verdict::None as u8 && free.is_none() {
                free = Some(slot);
            }
            if found == 0 {
                break;
            }
        }
        if verdict == Verdict::None {
            return true;
        }
        let Some(slot) = free else { return false };
        slot.store(entry(actor, verdict), Ordering::Release);
        self.recount(Verdict::None as u8, verdict);
        true
    }

    fn recount(&self, before: u8, now: Verdict) {
        let deny = Verdict::Deny as u8;
        if before == deny && now as u8 != deny {
            self.word(Word::Denied).fetch_sub(1, Ordering::Release);
        } else if before != deny && now as u8 == deny {
            self.word(Word::Denied).fetch_add(1, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_found_changed_and_taken_back() {
        let control = Control::create().unwrap();
        let actor = |i: u64| 1 << 63 | i.wrapping_mul(0x1234_5678_9abc_def1) >> 8 | 1;
        for i in 0..2000 {
            assert!(control.set_verdict(actor(i), Verdict::Deny));
        }
        assert_eq!(control.get(Word::Denied), 2000);
        for i in 0..2000 {
            assert_eq!(control.verdict(actor(i)), Verdict::Deny);
            assert!(control.set_verdict(actor(i), Verdict::None));
        }
        assert_eq!(control.get(Word::Denied), 0);
        assert_eq!(control.verdict(actor(7)), Verdict::None);
        assert_eq!(control.verdict(0), Verdict::None);
    }

    #[test]
    fn entries_are_used_again() {
        let control = Control::create().unwrap();
        for i in 0..1_000_000u64 {
            let actor = 1 << 63 | i;
            assert!(control.set_verdict(actor, Verdict::Ask));
            assert_eq!(control.verdict(actor), Verdict::Ask);
            assert!(control.set_verdict(actor, Verdict::None));
        }
    }

    #[test]
    fn a_full_neighbourhood_is_said() {
        let control = Control::create().unwrap();
        let full = (1..)
            .find(|&i| !control.set_verdict(i, Verdict::Allow))
            .unwrap();
        assert!(full > SLOTS as u64 / 2);
        assert_eq!(control.verdict(full), Verdict::None);
    }
}
