//! Whatever /proc holds, a parser answers strictly or not at all, and never panics.

use proptest::prelude::*;
use shieldd_sys::actors::{client, parse};

fn stat_line(pid: i32, comm: &[u8], fields: &[i64; 5], start: u64) -> Vec<u8> {
    let head = format!("{pid} (");
    let five: Vec<String> = fields.iter().map(i64::to_string).collect();
    let tail = format!(
        ") S {} 4194304 1 2 3 4 5 6 7 8 20 0 3 0 {start} 99 1\n",
        five.join(" ")
    );
    [head.as_bytes(), comm, tail.as_bytes()].concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_name_changes_nothing_else(
        comm in prop::collection::vec(any::<u8>(), 0..64),
        pid in 1..i32::MAX,
        fields in prop::array::uniform5(0..i64::from(i32::MAX)),
        start in any::<u32>(),
    ) {
        let line = stat_line(pid, &comm, &fields, u64::from(start));
        let found = parse::stat(&line).expect("a line of the kernel's");
        prop_assert_eq!(found.comm, &comm[..]);
        prop_assert_eq!((found.pid, found.start_ticks), (pid, u64::from(start)));
        let read = [found.ppid, found.pgid, found.sid, found.tty, found.tpgid];
        prop_assert_eq!(read.map(i64::from), fields);
        prop_assert_eq!(found.threads, 3);
    }

    #[test]
    fn names_like_lines_change_nothing(pieces in prop::collection::vec("\\) S 1|\\(|\\)|\n| |[0-9]+|R 0 ", 0..12)) {
        let comm: String = pieces.concat();
        let line = stat_line(9, comm.as_bytes(), &[7, 8, 9, 10, 11], 12);
        let found = parse::stat(&line).expect("a line of the kernel's");
        prop_assert_eq!((found.ppid, found.start_ticks), (7, 12));
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..600), number in any::<u64>()) {
        let _ = parse::stat(&bytes);
        let _ = parse::status(&bytes);
        let group = parse::cgroup(&bytes);
        prop_assert!(parse::unit(group).len() <= group.len());
        let _ = parse::container(&bytes);
        let _ = parse::loads_foreign(&bytes);
        let _ = parse::open_for_writing(&bytes);
        let _ = parse::code_mappings(&bytes).count();
        let _ = client::from_title(&bytes);
        let _ = client::peer(&bytes, number % 2 == 0, &[number]);
    }

    #[test]
    fn a_cut_line_is_nothing(cut in 0usize..120) {
        let line = stat_line(9, b"x) R 1 2 3", &[7, 8, 9, 10, 11], 123_456_789);
        let start = line.windows(9).position(|w| w == b"123456789").expect("there");
        prop_assert_eq!(parse::stat(&line[..cut.min(start + 9)]), None);
    }

    #[test]
    fn a_users_name_never_becomes_a_field(name in "[^\n]{0,40}") {
        let text = format!("Name:\t{name}\nTgid:\t5\nTracerPid:\t6\nUid:\t1\t2\t3\t4\n");
        let found = parse::status(text.as_bytes()).expect("whole");
        prop_assert_eq!((found.tgid, found.tracer, found.uid), (5, 6, 2));
    }
}
