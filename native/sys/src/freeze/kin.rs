//! Who belongs to a group of processes beyond those that were named: children, and what a member leads.

use std::collections::{HashMap, HashSet};

use super::stat::Seen;

/// What a group needs to remember of its members, those that have ended included.
#[derive(Debug, Default)]
pub struct Kin {
    members: HashMap<i32, u64>,
    /// Process groups of members, with the start of the oldest one.
    groups: HashMap<i32, u64>,
}

impl Kin {
    /// Adds a member.
    pub fn add(&mut self, seen: &Seen) {
        self.members.insert(seen.pid, seen.start_ticks);
        let first = self.groups.entry(seen.pgid).or_insert(u64::MAX);
        *first = seen.start_ticks.min(*first);
    }

    /// Those of `all` that belong here and are not members yet.
    ///
    /// * the child of a member;
    /// * whoever is in a session or process group that a member leads or led;
    /// * an orphan (its parent is in another session: init, a user's manager) that is younger than a member in the same
    ///   process group, whose leader has ended. A neighbour with a parent of its own in the session is none of ours.
    pub fn among<'a>(&self, all: &'a [Seen]) -> Vec<&'a Seen> {
        let sessions: HashMap<i32, i32> = all.iter().map(|x| (x.pid, x.sid)).collect();
        let starts: HashMap<i32, u64> = all.iter().map(|x| (x.pid, x.start_ticks)).collect();
        let ours = |pid: i32, at_most: u64| {
            self.members.get(&pid).is_some_and(|&start| {
                // Whoever has the number of a member that ended is another process.
                start <= at_most && starts.get(&pid).is_none_or(|&now| now == start)
            })
        };
        // A leader that is there and no member has others in its group too, or began another one with that number.
        let left_behind = |x: &Seen| {
            let first = self.groups.get(&x.pgid);
            first.is_some_and(|&first| first <= x.start_ticks) && !starts.contains_key(&x.pgid)
        };
        all.iter()
            .filter(|x| self.members.get(&x.pid) != Some(&x.start_ticks))
            .filter(|x| {
                let orphan = sessions.get(&x.ppid) != Some(&x.sid);
                ours(x.ppid, x.start_ticks)
                    || ours(x.sid, x.start_ticks)
                    || ours(x.pgid, x.start_ticks)
                    || (orphan && left_behind(x))
            })
            .collect()
    }

    /// Process groups that hold members and nobody else: a signal to the whole reaches no neighbour.
    pub fn whole_groups(&self, all: &[Seen]) -> Vec<i32> {
        let mut whole: HashSet<i32> = self.groups.keys().copied().collect();
        for x in all {
            if self.members.get(&x.pid) != Some(&x.start_ticks) {
                whole.remove(&x.pgid);
            }
        }
        whole.retain(|&group| group > 1 && all.iter().any(|x| x.pgid == group));
        whole.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, ppid: i32, pgid: i32, sid: i32, start_ticks: u64) -> Seen {
        Seen {
            pid,
            ppid,
            pgid,
            sid,
            state: b'S',
            flags: 0,
            threads: 1,
            start_ticks,
        }
    }

    fn found(kin: &Kin, all: &[Seen]) -> Vec<i32> {
        kin.among(all).iter().map(|x| x.pid).collect()
    }

    #[test]
    fn children_and_what_a_member_leads_belong() {
        let shell = process(10, 1, 10, 10, 1);
        let leader = process(20, 10, 20, 10, 5);
        let mut kin = Kin::default();
        kin.add(&leader);
        let all = [
            shell,
            leader,
            process(21, 20, 20, 10, 6),
            process(22, 21, 22, 22, 7), // not yet: its parent is no member so far
            process(23, 1, 20, 10, 7),  // orphan in the group that a member leads
            process(30, 10, 30, 10, 8), // neighbour
        ];
        assert_eq!(found(&kin, &all), [21, 23]);
        kin.add(&all[2]);
        assert!(found(&kin, &all).contains(&22));
    }

    #[test]
    fn a_neighbour_in_the_same_process_group_is_left_alone_and_an_orphan_is_not() {
        let mut kin = Kin::default();
        kin.add(&process(20, 10, 19, 10, 5)); // the group's leader has ended
        let shell = process(10, 1, 10, 10, 1);
        let neighbour = process(21, 10, 19, 10, 5);
        let orphan = process(22, 1, 19, 10, 6);
        let all = [process(1, 0, 1, 1, 0), shell, neighbour, orphan];
        assert_eq!(found(&kin, &all), [22]);
        assert!(kin.whole_groups(&all).is_empty());
        assert_eq!(kin.whole_groups(&[process(20, 10, 19, 10, 5)]), [19]);
    }

    #[test]
    fn a_number_that_another_process_has_by_now_makes_nobody_kin() {
        let mut kin = Kin::default();
        kin.add(&process(20, 10, 20, 10, 5));
        let all = [process(20, 1, 20, 20, 900), process(21, 20, 20, 20, 901)];
        assert!(found(&kin, &all).is_empty());
    }
}
