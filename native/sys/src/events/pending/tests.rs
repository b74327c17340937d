//! Merging, finding, holding.

use super::*;

fn rec(kind: Kind, path: Span, dir: i32) -> Rec {
    Rec {
        held: kind == Kind::Create,
        ..Rec::new(kind, 0, dir, path, (0, 0))
    }
}

fn key(name: &[u8]) -> Key<'_> {
    Key {
        hash: hash(7, 1, name),
        dir: 1,
        name,
    }
}

#[test]
fn a_path_keeps_one_record() {
    let mut queue = Pending::new(100_000);
    for i in 0..20_000u32 {
        let name = format!("f{i}");
        let span = queue.path(b"d/", name.as_bytes());
        queue.push(key(name.as_bytes()), rec(Kind::Create, span, 1));
    }
    for i in 0..20_000u32 {
        let name = format!("f{i}");
        assert_eq!(queue.touch(key(name.as_bytes())), Touch::Live(i as usize));
    }
    assert_eq!(queue.touch(key(b"other")), Touch::None);
}

#[test]
fn held_records_stay_and_can_still_be_found() {
    let mut queue = Pending::new(10);
    let span = queue.path(b"d/", b"open");
    queue.push(key(b"open"), rec(Kind::Create, span, 1));
    let span = queue.path(b"d/", b"gone");
    queue.push(key(b"gone"), rec(Kind::Delete, span, 1));
    let mut out = Pending::new(10);
    queue.take(&mut out, 5, 10, |dir, name| hash(7, dir, name));
    assert_eq!(out.recs.len(), 1);
    assert_eq!(out.recs[0].path.of(&out.arena), b"d/gone");
    assert_eq!(queue.touch(key(b"open")), Touch::Live(0));
    queue.take(&mut out, 10, 10, |dir, name| hash(7, dir, name));
    assert_eq!(out.recs[0].path.of(&out.arena), b"d/open");
    assert!(queue.is_empty());
}
