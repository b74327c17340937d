//! The keys at hand: key-encryption keys by id and version, one of each purpose to seal with.

use std::sync::RwLock;

use shieldd_core::envelope::keys::{self, DataKey};
use shieldd_core::envelope::slot::{Recipient, Slot, KIND_LOCAL};
use shieldd_core::envelope::suite::{self_test, AwsLc};
use shieldd_core::envelope::Refusal;
use zeroize::Zeroizing;

use super::secret::Page;
use crate::files::staged::random;
use crate::files::trouble::{Result, Trouble};

struct Entry {
    key_id: [u8; 16],
    version: u32,
    purpose: u8,
    seals: bool,
    page: usize,
    place: usize,
}

#[derive(Default)]
struct Ring {
    pages: Vec<Page>,
    entries: Vec<Entry>,
}

/// A handle on keys; shared by threads.
pub struct Keyring(RwLock<Ring>);

/// A key on its way into a seal: the id is public, the key wiped after use.
pub struct SealingKey {
    /// Which key.
    pub key_id: [u8; 16],
    /// Which version of it.
    pub version: u32,
    key: Zeroizing<[u8; 32]>,
}

impl SealingKey {
    /// Wraps `key` for a file.
    pub fn wrap(&self, binding: &[u8; 32], key: &DataKey) -> Result<Recipient> {
        Ok(keys::wrap(
            &self.key,
            self.key_id,
            self.version,
            binding,
            key,
            random()?,
        ))
    }
}

fn poisoned<T>(_: T) -> Trouble {
    Trouble::new("native.panic", "key ring was left in disorder by a fault")
}

impl Keyring {
    /// An empty ring, after the primitives' known answers came out right.
    pub fn new() -> Result<Keyring> {
        self_test::<AwsLc>().map_err(|which| {
            Trouble::new("native.panic", format!("self-test of {which} failed"))
        })?;
        Ok(Keyring(RwLock::new(Ring::default())))
    }

    /// Copies a key in. The newest that seals is the one of its purpose that seals.
    pub fn add(
        &self,
        key_id: [u8; 16],
        version: u32,
        purpose: u8,
        key: &[u8; 32],
        seals: bool,
    ) -> Result<()> {
        let mut ring = self.0.write().map_err(poisoned)?;
        ring.remove(|e| e.key_id == key_id && e.version == version);
        if seals {
            ring.entries
                .iter_mut()
                .filter(|e| e.purpose == purpose)
                .for_each(|e| e.seals = false);
        }
        let found = ring
            .pages
            .iter_mut()
            .enumerate()
            .find_map(|(i, page)| Some((i, page.put(key)?)));
        let (page, place) = match found {
            Some(found) => found,
            None => {
                let mut page = Page::new()?;
                let place = page.put(key).unwrap_or_default();
                ring.pages.push(page);
                (ring.pages.len() - 1, place)
            }
        };
        ring.entries.push(Entry {
            key_id,
            version,
            purpose,
            seals,
            page,
            place,
        });
        Ok(())
    }

    /// Wipes every version of a key; `false` where there was none.
    pub fn forget(&self, key_id: [u8; 16]) -> Result<bool> {
        Ok(self
            .0
            .write()
            .map_err(poisoned)?
            .remove(|e| e.key_id == key_id))
    }

    /// Wipes every key.
    pub fn clear(&self) -> Result<()> {
        self.0.write().map_err(poisoned)?.remove(|_| true);
        Ok(())
    }

    /// Whether every key is kept out of swap.
    pub fn locked(&self) -> Result<bool> {
        Ok(self
            .0
            .read()
            .map_err(poisoned)?
            .pages
            .iter()
            .all(Page::locked))
    }

    /// The key that seals for `purpose`.
    pub fn sealing(&self, purpose: u8) -> Result<SealingKey> {
        let ring = self.0.read().map_err(poisoned)?;
        let entry = ring
            .entries
            .iter()
            .find(|e| e.purpose == purpose && e.seals)
            .ok_or_else(|| {
                Trouble::new("keys.locked", format!("no key seals for purpose {purpose}"))
            })?;
        let key = Zeroizing::new(*ring.pages[entry.page].get(entry.place)?);
        Ok(SealingKey {
            key_id: entry.key_id,
            version: entry.version,
            key,
        })
    }

    fn with_key<T>(
        &self,
        key_id: &[u8; 16],
        version: u32,
        then: impl FnOnce(&[u8; 32]) -> std::result::Result<T, Refusal>,
    ) -> Result<T> {
        let ring = self.0.read().map_err(poisoned)?;
        let Some(entry) = ring
            .entries
            .iter()
            .find(|e| e.key_id == *key_id && e.version == version)
        else {
            let known = ring.entries.iter().any(|e| e.key_id == *key_id);
            return Err(if known {
                Refusal::Version(version)
            } else {
                Refusal::Recipient
            }
            .into());
        };
        Ok(then(ring.pages[entry.page].get(entry.place)?)?)
    }

    /// The data key of a sealed file, by the first recipient that one of our keys opens.
    ///
    /// # Errors
    /// `keys.version` where only the version is unknown, else `envelope.recipient`.
    pub fn data_key(&self, slot: &Slot) -> Result<DataKey> {
        let binding = slot.fixed.binding();
        let mut refused: Trouble = Refusal::Recipient.into();
        for recipient in slot.recipients.iter().filter(|r| r.kind == KIND_LOCAL) {
            match self.with_key(&recipient.key_id, recipient.version, |kek| {
                keys::unwrap(kek, recipient, &binding)
            }) {
                Ok(key) => return Ok(key),
                Err(trouble) if trouble.code == "envelope.recipient" => {}
                Err(trouble) => refused = trouble,
            }
        }
        Err(refused)
    }

    /// A small secret under the key that seals for `purpose`.
    pub fn wrap(&self, purpose: u8, context: &[u8], secret: &[u8]) -> Result<Vec<u8>> {
        let key = self.sealing(purpose)?;
        Ok(keys::wrap_secret(
            &key.key,
            key.key_id,
            key.version,
            context,
            secret,
            random()?,
        ))
    }

    /// The secret back.
    pub fn unwrap(&self, context: &[u8], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let (key_id, version) = keys::secret_key(wrapped)?;
        self.with_key(&key_id, version, |kek| {
            keys::unwrap_secret(kek, context, wrapped)
        })
    }
}

impl Ring {
    fn remove(&mut self, which: impl Fn(&Entry) -> bool) -> bool {
        let before = self.entries.len();
        let pages = &mut self.pages;
        self.entries.retain(|e| {
            let gone = which(e);
            if gone {
                pages[e.page].wipe(e.place);
            }
            !gone
        });
        before != self.entries.len()
    }
}
