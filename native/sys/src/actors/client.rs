//! Who is behind a file server's child: the peer of its client, where that can be told.
//!
//! Samba says it in the process' title (`smbd: client [10.0.0.5]`); else the child's established TCP connection on a
//! file service's port does. Nothing is asked of the server itself. Unknown is an empty answer, never a guess.

use std::fmt::Write;

use rustix::fs::{openat, readlinkat, Dir, Mode, OFlags, CWD};

use super::parse;

/// Ports of SMB, FTP (control), and FTP over TLS, on this side.
const PORTS: [u16; 4] = [445, 139, 21, 990];
/// Most bytes of a connection table that are read.
const TABLE: usize = 1 << 20;
/// Descriptors that are looked at.
const DESCRIPTORS: usize = 256;

/// The client's address, or nothing.
pub fn of(pid: i32, cmdline: &[u8]) -> Vec<u8> {
    let titled = from_title(cmdline);
    if !titled.is_empty() {
        return titled.to_vec();
    }
    from_sockets(pid).unwrap_or_default()
}

/// The address in a title `… client [ADDRESS]`, where it is one.
pub fn from_title(cmdline: &[u8]) -> &[u8] {
    let end = cmdline
        .iter()
        .position(|b| *b == 0)
        .unwrap_or(cmdline.len());
    let title = &cmdline[..end];
    let Some(at) = title.windows(8).rposition(|w| w == b"client [") else {
        return b"";
    };
    let rest = &title[at + 8..];
    let address = rest.split(|b| *b == b']').next().unwrap_or(b"");
    let plain = std::str::from_utf8(address).ok();
    match plain.and_then(|text| text.parse::<std::net::IpAddr>().ok()) {
        Some(_) => address,
        None => b"",
    }
}

fn from_sockets(pid: i32) -> Option<Vec<u8>> {
    let inodes = sockets(pid);
    if inodes.is_empty() {
        return None;
    }
    for (name, v6) in [("tcp", false), ("tcp6", true)] {
        let table = read_some(&format!("/proc/{pid}/net/{name}"))?;
        if let Some(found) = peer(&table, v6, &inodes) {
            return Some(found.into_bytes());
        }
    }
    None
}

/// The peer of the established connection to a file service's port that one of the sockets is.
pub fn peer(table: &[u8], v6: bool, inodes: &[u64]) -> Option<String> {
    for line in table.split(|b| *b == b'\n').skip(1) {
        let fields: Vec<&[u8]> = line
            .split(|b| *b == b' ')
            .filter(|x| !x.is_empty())
            .collect();
        let (Some(local), Some(remote), Some(state), Some(inode)) =
            (fields.get(1), fields.get(2), fields.get(3), fields.get(9))
        else {
            continue;
        };
        let ours = parse::integer::<u64>(inode).is_some_and(|inode| inodes.contains(&inode));
        if *state != b"01" || !ours {
            continue;
        }
        if address(local, v6).is_some_and(|(_, port)| PORTS.contains(&port)) {
            return address(remote, v6).map(|(text, _)| text);
        }
    }
    None
}

/// `0100007F:01BD`: 32-bit words in the machine's order, and the port.
fn address(field: &[u8], v6: bool) -> Option<(String, u16)> {
    let text = std::str::from_utf8(field).ok()?;
    let (words, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let count = if v6 { 4 } else { 1 };
    if words.len() != 8 * count || !words.is_ascii() {
        return None;
    }
    let mut bytes = Vec::with_capacity(16);
    for at in 0..count {
        let word = u32::from_str_radix(&words[8 * at..8 * at + 8], 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let mut out = String::new();
    match <[u8; 16]>::try_from(bytes.as_slice()) {
        Ok(bytes) => {
            let address = std::net::Ipv6Addr::from(bytes);
            match address.to_ipv4_mapped() {
                Some(v4) => write!(out, "{v4}").ok()?,
                None => write!(out, "{address}").ok()?,
            }
        }
        Err(_) => {
            let bytes = <[u8; 4]>::try_from(bytes.as_slice()).ok()?;
            write!(out, "{}", std::net::Ipv4Addr::from(bytes)).ok()?;
        }
    }
    Some((out, port))
}

fn sockets(pid: i32) -> Vec<u64> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(list) = openat(CWD, format!("/proc/{pid}/fd"), flags, Mode::empty()) else {
        return Vec::new();
    };
    let Ok(entries) = Dir::read_from(&list) else {
        return Vec::new();
    };
    let inode = |name: &std::ffi::CStr| {
        let target = readlinkat(&list, name, Vec::new()).ok()?;
        let digits = target
            .to_bytes()
            .strip_prefix(b"socket:[")?
            .strip_suffix(b"]")?;
        parse::integer(digits)
    };
    let named = entries.flatten().take(DESCRIPTORS);
    named.filter_map(|entry| inode(entry.file_name())).collect()
}

fn read_some(path: &str) -> Option<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(TABLE as u64).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles() {
        assert_eq!(from_title(b"smbd: client [10.0.0.5]\0\0"), b"10.0.0.5");
        assert_eq!(from_title(b"smbd: client [fe80::1]"), b"fe80::1");
        for none in [
            &b"/usr/sbin/smbd\0--foreground\0"[..],
            b"smbd: client [",
            b"client [x;rm -rf]",
            b"x\0client [1.2.3.4]",
        ] {
            assert_eq!(from_title(none), b"");
        }
    }

    #[test]
    fn peers() {
        let table = b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:01BD 0500000A:C001 01 00000000:00000000 00:00000000 00000000     0        0 777 1 0 100 0\n   \
            1: 0100007F:0016 0600000A:C001 01 00000000:00000000 00:00000000 00000000     0        0 778 1 0 100 0\n";
        assert_eq!(peer(table, false, &[777]).as_deref(), Some("10.0.0.5"));
        assert_eq!(peer(table, false, &[778]), None, "not a file service");
        assert_eq!(peer(table, false, &[1]), None);
        let six = b"head\n 0: 0000000000000000FFFF00000100007F:01BD 0000000000000000FFFF00000500000A:C001 01 0:0 0:0 0 0 0 9 1\n";
        assert_eq!(peer(six, true, &[9]).as_deref(), Some("10.0.0.5"));
        assert_eq!(
            peer(b"x\n 0: zz:1 yy:2 01 0 0 0 0 0 9\n", false, &[9]),
            None
        );
    }
}
