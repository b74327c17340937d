//! From a plain file to a sealed one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{fstatvfs, fsync, OFlags};
use shieldd_core::envelope::chunk::{seal_metadata, PayloadKey};
use shieldd_core::envelope::keys::{DataKey, FileKeys};
use shieldd_core::envelope::layout::{Fixed, CHUNK_LOG2, MAGIC, METADATA_AT, SLOT_LEN};
use shieldd_core::envelope::metadata::Metadata;
use shieldd_core::envelope::slot::Slot;
use zeroize::Zeroizing;

use super::journal::{Act, End, Journal, Record};
use super::keyring::Keyring;
use super::reading::Unsealed;
use super::retire::{retire, withdraw};
use super::stream::{write_all, Payload, Workspace};
use super::SUFFIX;
use crate::files::attributes::{atime_ns, give_to, xattrs, Names};
use crate::files::holes::extents;
use crate::files::lease::Lease;
use crate::files::open::{check_name, check_path, NAME_MAX};
use crate::files::staged::{hidden_name, random, Staged};
use crate::files::trouble::{retry, Result, Trouble};
use crate::files::{Dir, Source};

/// Payload above which free space is asked for first, bytes.
const LARGE: u64 = 64 << 20;
/// How many names are tried beside one another.
const NAMES: u32 = 99;

/// How to seal.
#[derive(Clone, Debug)]
pub struct Options {
    /// Purpose of the key, and of the seal.
    pub purpose: u8,
    /// Why, for people.
    pub why: String,
    /// Which host does it.
    pub host_id: Vec<u8>,
    /// Threads for one large file.
    pub threads: usize,
    /// On disk before the original goes.
    pub durable: bool,
    /// The original stays.
    pub keep_original: bool,
    /// Most bytes of data in one file.
    pub budget: u64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// Random name of the sealed file.
    pub file_id: [u8; 16],
    /// Path of the sealed file beneath its root.
    pub path: Vec<u8>,
    /// Bytes of the original, holes included.
    pub size: u64,
    /// Bytes of the sealed file.
    pub sealed_size: u64,
    /// BLAKE3 of its data.
    pub digest: [u8; 32],
    /// Key that it was sealed for.
    pub key_id: [u8; 16],
    /// Version of that key.
    pub key_version: u32,
    /// When, ns.
    pub sealed_at_ns: i64,
}

/// All that sealing needs beside the file.
pub struct Sealer<'a> {
    /// Keys.
    pub keyring: &'a Keyring,
    /// Crash journal.
    pub journal: &'a Journal,
    /// How.
    pub options: &'a Options,
    /// Names of owners.
    pub names: &'a Names,
}

/// Where the sealed file is to stand.
#[derive(Clone, Copy)]
pub enum Target<'a> {
    /// Beside the original, under its name and `.shield`.
    Beside,
    /// In a directory of its own, under this name.
    Into(BorrowedFd<'a>, &'a [u8]),
}

/// A sealed file that is whole but has no name yet.
pub struct Ready {
    /// Directory of the original.
    pub dir: Dir,
    /// Name of the original.
    pub name: Vec<u8>,
    /// The original.
    pub source: Source,
    /// The sealed file.
    pub staged: Staged,
    /// Directory that will hold it; `None`: the original's.
    pub into: Option<Dir>,
    /// Result so far; `path` is filled in when the name is given.
    pub sealed: Sealed,
}

impl Ready {
    /// Directory that will hold the sealed file.
    pub fn to_dir(&self) -> &Dir {
        self.into.as_ref().unwrap_or(&self.dir)
    }
}

/// The name of the sealed file beside `name`; `turn` counts from 0 where names are taken.
///
/// `NAME.shield`, then `NAME.2.shield` and so on. Where that is longer than 255 bytes: the name's beginning, `~`, and
/// 32 hexadecimal digits of the BLAKE3 of the whole name stand for it.
pub fn sealed_name(name: &[u8], turn: u32) -> Vec<u8> {
    let mut tail = if turn == 0 {
        Vec::new()
    } else {
        format!(".{}", turn + 1).into_bytes()
    };
    tail.extend_from_slice(SUFFIX);
    let mut out = name.to_vec();
    if name.len() + tail.len() > NAME_MAX {
        let hash = blake3::hash(name).to_hex();
        out.truncate(NAME_MAX - tail.len() - 33);
        out.push(b'~');
        out.extend_from_slice(&hash.as_bytes()[..32]);
    }
    out.extend_from_slice(&tail);
    out
}

/// Nanoseconds since the epoch.
pub fn now_ns() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
}

impl Sealer<'_> {
    /// Seals one file.
    pub fn seal(&self, root: BorrowedFd<'_>, path: &[u8], target: Target<'_>) -> Result<Sealed> {
        let ready = self.prepare(
            root,
            path,
            target,
            self.options.threads,
            &mut Workspace::default(),
        )?;
        self.commit(root, ready, target)
    }

    /// Everything up to the name: reads, encrypts, writes, compares.
    pub fn prepare(
        &self,
        root: BorrowedFd<'_>,
        path: &[u8],
        target: Target<'_>,
        threads: usize,
        workspace: &mut Workspace,
    ) -> Result<Ready> {
        let (dir, name) = Dir::holding(root, path)?;
        let source = Source::open(&dir, &name, OFlags::RDONLY)?;
        if !self.options.keep_original {
            source.check_replaceable()?;
            Lease::take(source.fd.as_fd())?;
        }
        let into = match target {
            Target::Beside => {
                self.refuse_sealed(&source)?;
                None
            }
            Target::Into(store, _) => Some(Dir::open(store, b"")?),
        };
        self.encrypt((dir, name), source, path, into, threads, workspace)
    }

    /// Seals a file that is open already into `store` as `name`; the file itself is only read.
    ///
    /// `path` is what the sealed metadata says of where it was. The sealed file is on the disk when this returns, if the
    /// options ask for that.
    pub fn seal_descriptor(
        &self,
        from: OwnedFd,
        path: &[u8],
        store: BorrowedFd<'_>,
        name: &[u8],
    ) -> Result<Sealed> {
        check_path(path)?;
        check_name(name)?;
        let (source, dir) = (Source::held(from)?, Dir::open(store, b"")?);
        let into = Some(Dir::open(store, b"")?);
        let (threads, room) = (self.options.threads, &mut Workspace::default());
        let mut ready = self.encrypt((dir, name.to_vec()), source, path, into, threads, room)?;
        ready.staged.publish(&ready.dir, name)?;
        if self.options.durable {
            sync_file(&ready.staged.fd)?;
            sync_file(&ready.dir.fd)?;
        }
        ready.sealed.path = name.to_vec();
        Ok(ready.sealed)
    }

    fn encrypt(
        &self,
        (dir, name): (Dir, Vec<u8>),
        source: Source,
        path: &[u8],
        into: Option<Dir>,
        threads: usize,
        workspace: &mut Workspace,
    ) -> Result<Ready> {
        let key = self.options_key()?;
        let mut metadata = self.metadata(&source, path)?;
        let staged = Staged::new(into.as_ref().unwrap_or(&dir))?;
        if metadata.payload_len() > LARGE {
            refuse_full(&staged, metadata.payload_len())?;
        }
        let ids: Zeroizing<[u8; 80]> = Zeroizing::new(random()?);
        let (data_key, rest) = ids.split_at(32);
        let data_key = DataKey(data_key.try_into().expect("32 bytes"));
        let mut fixed = Fixed {
            chunk_log2: CHUNK_LOG2,
            metadata_len: metadata.encode()?.len() as u32,
            payload_len: metadata.payload_len(),
            file_id: rest[..16].try_into().expect("16 bytes"),
            salt: rest[16..].try_into().expect("32 bytes"),
            commitment: [0; 32],
        };
        let keys = FileKeys::derive(&data_key, &fixed);
        fixed.commitment = keys.commitment;
        let payload_key = PayloadKey::new(&keys.payload, &fixed);
        let payload = Payload {
            fixed: &fixed,
            extents: &metadata.extents,
            key: &payload_key,
        };
        metadata.digest = payload.seal(source.fd.as_fd(), staged.fd.as_fd(), threads, workspace)?;
        let recipient = key.wrap(&fixed.binding(), &data_key)?;
        let slot = |generation| Slot {
            fixed,
            generation,
            recipients: vec![recipient.clone()],
            mac: [0; 32],
        };
        let mut head = Vec::with_capacity(2 * SLOT_LEN + fixed.metadata_len as usize + 16);
        head.extend_from_slice(&keys.encode(&slot(2))?);
        head.extend_from_slice(&keys.encode(&slot(1))?);
        let mut sealed_metadata = metadata.encode()?;
        seal_metadata(&keys.metadata, &mut sealed_metadata);
        head.extend_from_slice(&sealed_metadata);
        debug_assert_eq!(
            head.len() as u64,
            METADATA_AT + u64::from(fixed.metadata_len) + 16
        );
        write_all(staged.fd.as_fd(), &head, 0)?;
        if into.is_none() {
            give_to(staged.fd.as_fd(), metadata.uid, metadata.gid)?;
        }
        if !source.unchanged()? {
            return Err(Trouble::new(
                "file.changed",
                "file changed while it was sealed",
            ));
        }
        let sealed = Sealed {
            file_id: fixed.file_id,
            path: Vec::new(),
            size: metadata.size,
            sealed_size: fixed.total(),
            digest: metadata.digest,
            key_id: key.key_id,
            key_version: key.version,
            sealed_at_ns: metadata.sealed_at_ns,
        };
        Ok(Ready {
            dir,
            name,
            source,
            staged,
            into,
            sealed,
        })
    }

    fn options_key(&self) -> Result<super::keyring::SealingKey> {
        self.keyring.sealing(self.options.purpose)
    }

    fn metadata(&self, source: &Source, path: &[u8]) -> Result<Metadata> {
        let stat = &source.stat;
        Ok(Metadata {
            name: path.to_vec(),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            user: self.names.user(stat.st_uid),
            group: self.names.group(stat.st_gid),
            atime_ns: atime_ns(stat),
            mtime_ns: source.stamp.mtime_ns,
            size: source.stamp.size,
            extents: extents(source.fd.as_fd(), stat, self.options.budget)?,
            xattrs: xattrs(source.fd.as_fd())?,
            digest: [0; 32],
            purpose: self.options.purpose,
            why: self.options.why.clone(),
            sealed_at_ns: now_ns(),
            host_id: self.options.host_id.clone(),
        })
    }

    /// A file that one of our keys opens is sealed already; one that only looks like it is content like any other.
    fn refuse_sealed(&self, source: &Source) -> Result<()> {
        if source.stamp.size < METADATA_AT {
            return Ok(());
        }
        let mut magic = [0; 8];
        super::stream::read_exact(source.fd.as_fd(), &mut magic, 0, "file.changed")?;
        if magic == MAGIC && Unsealed::read(source, self.keyring).is_ok() {
            return Err(Trouble::new("envelope.already", "file is sealed already"));
        }
        Ok(())
    }

    /// The name that the sealed file may have, at turn `turn`.
    pub fn choose(&self, ready: &Ready, target: Target<'_>, turn: &mut u32) -> Result<Vec<u8>> {
        match target {
            Target::Into(_, name) => {
                crate::files::open::check_name(name)?;
                Ok(name.to_vec())
            }
            Target::Beside => loop {
                let name = sealed_name(&ready.name, *turn);
                if ready.dir.look(&name)?.is_none() {
                    return Ok(name);
                }
                *turn += 1;
                if *turn >= NAMES {
                    return Err(Trouble::new(
                        "file.exists",
                        "every name beside the file is taken",
                    ));
                }
            },
        }
    }

    /// The record of what `commit` does.
    pub fn record(&self, root: &[u8], store: &[u8], ready: &Ready, name: &[u8]) -> Result<Record> {
        Ok(Record {
            act: Act::Seal,
            keep: self.options.keep_original,
            from: End {
                root: root.to_vec(),
                dir: ready.dir.path.clone(),
                name: ready.name.clone(),
                stamp: ready.source.stamp,
            },
            aside: hidden_name()?,
            to: End {
                root: store.to_vec(),
                dir: ready.to_dir().path.clone(),
                name: name.to_vec(),
                stamp: ready.staged.stamp()?,
            },
            file_id: ready.sealed.file_id,
        })
    }

    /// Gives the sealed file its name, makes it durable, takes the original away.
    fn commit(&self, root: BorrowedFd<'_>, mut ready: Ready, target: Target<'_>) -> Result<Sealed> {
        let root_label = super::journal::label(root)?;
        let store_label = match target {
            Target::Beside => root_label.clone(),
            Target::Into(store, _) => super::journal::label(store)?,
        };
        let durable = self.options.durable;
        let mut turn = 0;
        loop {
            let name = self.choose(&ready, target, &mut turn)?;
            let record = self.record(&root_label, &store_label, &ready, &name)?;
            let transaction = self.journal.begin(std::slice::from_ref(&record), durable)?;
            let Ready {
                staged, dir, into, ..
            } = &mut ready;
            if let Err(trouble) = staged.publish(into.as_ref().unwrap_or(dir), &name) {
                self.journal.close(transaction);
                if trouble.code == "file.exists" && matches!(target, Target::Beside) && turn < NAMES
                {
                    turn += 1;
                    continue;
                }
                return Err(trouble);
            }
            ready.sealed.path = ready.to_dir().join(&name);
            let outcome = self.settle(&ready, &record);
            return match outcome {
                Ok(()) => {
                    self.journal.close(transaction);
                    Ok(ready.sealed)
                }
                Err(kept) => {
                    if kept.in_place {
                        withdraw(ready.to_dir(), &name, record.to.stamp.ino);
                        self.journal.close(transaction);
                    }
                    Err(kept.trouble)
                }
            };
        }
    }

    fn settle(
        &self,
        ready: &Ready,
        record: &Record,
    ) -> std::result::Result<(), super::retire::Kept> {
        if self.options.durable {
            sync_file(&ready.staged.fd)?;
            sync_file(&ready.to_dir().fd)?;
        }
        if self.options.keep_original {
            return Ok(());
        }
        retire(&ready.dir, &ready.name, &ready.source, &record.aside)?;
        if self.options.durable {
            // The original is gone whether or not this reaches the disk; the sealed file is there in any case.
            let _late = retry(|| fsync(&ready.dir.fd));
        }
        Ok(())
    }
}

/// `fsync`, as a result.
pub fn sync_file(fd: &std::os::fd::OwnedFd) -> Result<()> {
    retry(|| fsync(fd)).map_err(|e| Trouble::data(e, "file cannot be made durable"))
}

fn refuse_full(staged: &Staged, needed: u64) -> Result<()> {
    let Ok(vfs) = fstatvfs(&staged.fd) else {
        return Ok(());
    };
    if vfs.f_bfree.saturating_mul(vfs.f_frsize) < needed {
        return Err(Trouble::new(
            "file.full",
            "no space left for the sealed file",
        ));
    }
    Ok(())
}
