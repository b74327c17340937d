//! Counts that decay exponentially, and distinct counts that do.
//!
//! A count of time constant tau holds the sum over its events of `exp(-(now - at) / tau)`.

/// Time constants, s.
pub const TAUS: [f64; 3] = [1.0, 10.0, 60.0];

/// Most that a count may hold; additions beyond it are lost.
pub const CEILING: f64 = 1e6;

/// Seconds from one moment to a later one, 0 where it is not later.
pub fn seconds(from_ns: u64, to_ns: u64) -> f64 {
    to_ns.saturating_sub(from_ns) as f64 * 1e-9
}

/// `N` counts over the three time constants.
#[derive(Clone, Debug)]
pub struct Counts<const N: usize> {
    at_ns: u64,
    values: [[f64; N]; 3],
}

impl<const N: usize> Counts<N> {
    /// All zero.
    pub fn new(now_ns: u64) -> Self {
        Counts {
            at_ns: now_ns,
            values: [[0.0; N]; 3],
        }
    }

    /// Decays all counts to `now_ns`.
    pub fn advance(&mut self, now_ns: u64) {
        if now_ns <= self.at_ns {
            return;
        }
        let dt = seconds(self.at_ns, now_ns);
        self.at_ns = now_ns;
        for (values, tau) in self.values.iter_mut().zip(TAUS) {
            let keep = (-dt / tau).exp();
            for value in values {
                *value *= keep;
            }
        }
    }

    /// Adds to a count, at the time of the last [`Counts::advance`].
    pub fn add(&mut self, which: usize, amount: f64) {
        for values in &mut self.values {
            values[which] = (values[which] + amount).clamp(0.0, CEILING);
        }
    }

    /// Adds to each time constant its own amount.
    pub fn add_distinct(&mut self, which: usize, amounts: [f64; 3]) {
        for (values, amount) in self.values.iter_mut().zip(amounts) {
            values[which] = (values[which] + amount).clamp(0.0, CEILING);
        }
    }

    /// A count over the time constant `TAUS[tau]`.
    pub fn get(&self, which: usize, tau: usize) -> f64 {
        self.values[tau][which]
    }
}

const SETS: usize = 32;
const WAYS: usize = 4;

/// When each of the last 128 or so keys was seen, in sets of four; the oldest of a set leaves.
#[derive(Clone, Debug, Default)]
pub struct Distinct {
    slots: Vec<(u64, u64)>,
}

impl Distinct {
    /// Marks a key seen and returns what a distinct count gains by it, for each time constant:
    /// 1 for a new key, `1 - exp(-age / tau)` for one seen before, so that each key counts at most once.
    pub fn touch(&mut self, key: u64, now_ns: u64) -> [f64; 3] {
        if self.slots.is_empty() {
            self.slots = vec![(0, 0); SETS * WAYS];
        }
        let set = &mut self.slots[(key as usize % SETS) * WAYS..][..WAYS];
        if let Some(slot) = set.iter_mut().find(|slot| slot.0 == key) {
            let age = seconds(slot.1, now_ns);
            slot.1 = now_ns;
            if age == 0.0 {
                return [0.0; 3];
            }
            return TAUS.map(|tau| -(-age / tau).exp_m1());
        }
        let mut oldest = 0;
        for (i, slot) in set.iter().enumerate() {
            if slot.1 < set[oldest].1 {
                oldest = i;
            }
        }
        set[oldest] = (key, now_ns);
        [1.0; 3]
    }
}

/// A name counts as seen elsewhere for so long, ns.
pub const NAME_HORIZON_NS: u64 = 60_000_000_000;

/// Where each of the last 128 or so new names was seen, in sets of four.
#[derive(Clone, Debug, Default)]
pub struct Names {
    slots: Vec<(u64, u64, u64)>,
}

impl Names {
    /// Marks a name seen in a directory; true where it was seen in another one within the horizon.
    pub fn elsewhere(&mut self, name: u64, directory: u64, now_ns: u64) -> bool {
        if self.slots.is_empty() {
            self.slots = vec![(0, 0, 0); SETS * WAYS];
        }
        let set = &mut self.slots[(name as usize % SETS) * WAYS..][..WAYS];
        if let Some(slot) = set.iter_mut().find(|slot| slot.0 == name) {
            let found = slot.1 != directory && now_ns.saturating_sub(slot.2) <= NAME_HORIZON_NS;
            *slot = (name, directory, now_ns);
            return found;
        }
        let mut oldest = 0;
        for (i, slot) in set.iter().enumerate() {
            if slot.2 < set[oldest].2 {
                oldest = i;
            }
        }
        set[oldest] = (name, directory, now_ns);
        false
    }
}
