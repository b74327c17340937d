//! What a sealed file says: its header without a key, its metadata and content with one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use shieldd_core::envelope::chunk::{open_metadata, PayloadKey};
use shieldd_core::envelope::keys::{DataKey, FileKeys};
use shieldd_core::envelope::layout::{MAGIC, METADATA_AT, SLOT_LEN};
use shieldd_core::envelope::metadata::Metadata;
use shieldd_core::envelope::slot::Header;
use shieldd_core::envelope::suite::TAG_LEN;
use shieldd_core::envelope::Refusal;

use super::keyring::Keyring;
use super::stream::{read_exact, write_all, Payload, Workspace};
use crate::files::trouble::{Result, Trouble};
use crate::files::{Dir, Source};

/// A sealed file, opened with a key.
pub struct Unsealed {
    /// The slot in force.
    pub header: Header,
    /// Its data key.
    pub data_key: DataKey,
    /// All other keys.
    pub keys: FileKeys,
    /// What was sealed beside the content.
    pub metadata: Metadata,
}

/// Opens `path` beneath `root` for reading.
pub fn source(root: BorrowedFd<'_>, path: &[u8]) -> Result<(Dir, Vec<u8>, Source)> {
    let (dir, name) = Dir::holding(root, path)?;
    let source = Source::open(&dir, &name, OFlags::RDONLY)?;
    Ok((dir, name, source))
}

/// The header of an open file of `len` bytes.
pub fn header(fd: BorrowedFd<'_>, len: u64) -> Result<Header> {
    let mut blocks = [0; 2 * SLOT_LEN];
    let have = len.min(METADATA_AT) as usize;
    read_exact(fd, &mut blocks[..have], 0, "file.changed")?;
    if have < blocks.len() {
        let refusal = if blocks[..8] == MAGIC {
            Refusal::Truncated
        } else {
            Refusal::Magic
        };
        return Err(refusal.into());
    }
    Ok(Header::read(&blocks)?)
}

impl Unsealed {
    /// Reads header and metadata and checks them in the order of the page: slot, recipient, commitment, MAC,
    /// length, metadata.
    pub fn read(source: &Source, keyring: &Keyring) -> Result<Unsealed> {
        let header = header(source.fd.as_fd(), source.stamp.size)?;
        let data_key = keyring.data_key(&header.slot)?;
        let keys = FileKeys::check(&data_key, &header.slot)?;
        let fixed = &header.slot.fixed;
        fixed.check_length(source.stamp.size)?;
        let mut sealed = vec![0; fixed.metadata_len as usize + TAG_LEN];
        read_exact(
            source.fd.as_fd(),
            &mut sealed,
            METADATA_AT,
            "envelope.truncated",
        )?;
        open_metadata(&keys.metadata, &mut sealed)?;
        let metadata = Metadata::decode(&sealed)?;
        if metadata.payload_len() != fixed.payload_len {
            return Err(Refusal::Metadata.into());
        }
        Ok(Unsealed {
            header,
            data_key,
            keys,
            metadata,
        })
    }

    /// The key of its payload.
    pub fn payload_key(&self) -> PayloadKey {
        PayloadKey::new(&self.keys.payload, &self.header.slot.fixed)
    }

    /// Its payload, under `key`.
    pub fn payload<'a>(&'a self, key: &'a PayloadKey) -> Payload<'a> {
        Payload {
            fixed: &self.header.slot.fixed,
            extents: &self.metadata.extents,
            key,
        }
    }

    /// Checks all: every tag, the digest, and that both slots are whole and ours.
    pub fn verify(&self, source: &Source, threads: usize) -> Result<()> {
        let other = self.header.other.as_ref().ok_or(Refusal::Crc)?;
        FileKeys::check(&self.data_key, other)?;
        let key = self.payload_key();
        let digest =
            self.payload(&key)
                .digest(source.fd.as_fd(), threads, &mut Workspace::default())?;
        if digest != self.metadata.digest {
            return Err(Refusal::Digest.into());
        }
        Ok(())
    }
}

/// Writes the verified content to `out`, in order; a seekable file gets its holes back.
pub fn stream(source: &Source, unsealed: &Unsealed, out: BorrowedFd<'_>) -> Result<()> {
    let key = unsealed.payload_key();
    let zeros = [0u8; 16_384];
    let mut position = 0;
    let fill_to = |position: &mut u64, to: u64| -> Result<()> {
        while *position < to {
            let n = (to - *position).min(zeros.len() as u64) as usize;
            write_on(out, &zeros[..n])?;
            *position += n as u64;
        }
        Ok(())
    };
    unsealed.payload(&key).pieces(
        source.fd.as_fd(),
        &mut Workspace::default(),
        |offset, data| {
            fill_to(&mut position, offset)?;
            write_on(out, data)?;
            position += data.len() as u64;
            Ok(())
        },
    )?;
    fill_to(&mut position, unsealed.metadata.size)
}

fn write_on(out: BorrowedFd<'_>, mut data: &[u8]) -> Result<()> {
    while !data.is_empty() {
        let n = crate::files::trouble::retry(|| rustix::io::write(out, data))
            .map_err(|e| Trouble::data(e, "output cannot be written"))?;
        data = &data[n..];
    }
    Ok(())
}

/// Writes one slot block at its place.
pub fn write_slot(fd: &OwnedFd, block: &[u8; SLOT_LEN], at: u64) -> Result<()> {
    write_all(fd.as_fd(), block, at)
}
