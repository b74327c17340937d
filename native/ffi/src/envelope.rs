//! Keys and sealed files.
//!
//! What has a fixed size is a struct; what varies comes as a [`ShdBlob`] of fields, each a `u32` length
//! (little-endian) and its bytes, and is given back with [`shd_blob_free`].

use std::os::fd::{BorrowedFd, RawFd};

use shieldd_core::envelope::metadata::Metadata;
use shieldd_sys::files::attributes::Names;
use shieldd_sys::files::{Source, Trouble};
use shieldd_sys::seal::batch::seal_many;
use shieldd_sys::seal::journal::{Act, Journal};
use shieldd_sys::seal::keyring::Keyring;
use shieldd_sys::seal::opening::{self, Opened};
use shieldd_sys::seal::reading::{self, Unsealed};
use shieldd_sys::seal::recovery::{recover, Outcome, Root};
use shieldd_sys::seal::rewrapping::rewrap_many;
use shieldd_sys::seal::sealing::{self, Sealed, Sealer, Target};
use zeroize::Zeroize;

use crate::abi::{guarded, put_error, Failure, ShdError};

/// Keys, held by the core.
pub struct ShdKeyring(Keyring);

/// A crash journal.
pub struct ShdJournal(Journal);

/// Bytes of the core's; give them back with [`shd_blob_free`].
#[repr(C)]
pub struct ShdBlob {
    /// First byte.
    pub data: *mut u8,
    /// Bytes.
    pub len: usize,
}

/// Bytes of the caller's.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ShdSlice {
    /// First byte; may be null where `len` is 0.
    pub data: *const u8,
    /// Bytes.
    pub len: usize,
}

/// How to seal.
#[repr(C)]
pub struct ShdSealOptions {
    /// Why, UTF-8.
    pub why: ShdSlice,
    /// Which host does it.
    pub host_id: ShdSlice,
    /// Most bytes of data in one file.
    pub budget: u64,
    /// Threads; 0: one for each core.
    pub threads: u32,
    /// Purpose of the key.
    pub purpose: u8,
    /// On disk before the original goes.
    pub durable: bool,
    /// The original stays.
    pub keep_original: bool,
}

/// What came of sealing one file.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ShdSealed {
    /// Bytes of the original.
    pub size: u64,
    /// Bytes of the sealed file.
    pub sealed_size: u64,
    /// When, ns since the epoch.
    pub sealed_at_ns: i64,
    /// Version of the key.
    pub key_version: u32,
    /// 0: done; else the error of the same index says why not.
    pub status: i32,
    /// Key that it was sealed for.
    pub key_id: [u8; 16],
    /// The sealed file's id.
    pub file_id: [u8; 16],
    /// BLAKE3 of the data.
    pub digest: [u8; 32],
}

/// What came of re-wrapping one file.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ShdRewrapped {
    /// Generation in force now.
    pub generation: u64,
    /// The sealed file's id.
    pub file_id: [u8; 16],
    /// 0: done; else the error of the same index says why not.
    pub status: i32,
    /// A slot was written.
    pub changed: bool,
}

/// How to open.
#[repr(C)]
pub struct ShdOpenOptions {
    /// Threads; 0: one for each core.
    pub threads: u32,
    /// The sealed file stays.
    pub keep_sealed: bool,
    /// Set-id bits and file capabilities come back too.
    pub privileged_bits: bool,
    /// On disk before the sealed file goes.
    pub durable: bool,
}

impl From<Trouble> for Failure {
    fn from(t: Trouble) -> Failure {
        Failure {
            code: t.code,
            errno: t.errno,
            message: t.message,
        }
    }
}

impl ShdSlice {
    /// # Safety
    /// `data` points to `len` readable bytes that outlive `'a`, or `len` is 0.
    pub(crate) unsafe fn get<'a>(self) -> &'a [u8] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

/// # Safety
/// `pointer` is null or valid for reads during `'a`.
pub(crate) unsafe fn shared<'a, T>(pointer: *const T) -> Result<&'a T, Failure> {
    // SAFETY: as above.
    unsafe { pointer.as_ref() }.ok_or_else(|| Failure::new("native.argument", "null pointer"))
}

/// # Safety
/// `pointer` is null or valid for writes during `'a`, with no other reference.
pub(crate) unsafe fn out<'a, T>(pointer: *mut T) -> Result<&'a mut T, Failure> {
    // SAFETY: as above.
    unsafe { pointer.as_mut() }.ok_or_else(|| Failure::new("native.argument", "null pointer"))
}

/// # Safety
/// `fd` stays open during `'a`.
pub(crate) unsafe fn borrowed<'a>(fd: RawFd) -> Result<BorrowedFd<'a>, Failure> {
    if fd < 0 {
        return Err(Failure::new("native.argument", "not a descriptor"));
    }
    // SAFETY: not -1, and open by the caller's promise.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

fn threads(asked: u32) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
        n => n as usize,
    }
}

#[derive(Default)]
pub(crate) struct Fields(pub(crate) Vec<u8>);

impl Fields {
    pub(crate) fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.0
            .extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    fn give(self, blob: &mut ShdBlob) {
        give(self.0, blob);
    }
}

pub(crate) fn give(bytes: Vec<u8>, blob: &mut ShdBlob) {
    let boxed = bytes.into_boxed_slice();
    blob.len = boxed.len();
    blob.data = Box::into_raw(boxed).cast();
}

/// Wipes and frees what the core gave out.
///
/// # Safety
/// `blob` is null, empty, or as the core filled it; it is empty afterwards.
#[no_mangle]
pub unsafe extern "C" fn shd_blob_free(blob: *mut ShdBlob) {
    // SAFETY: the caller's promise.
    let Some(blob) = (unsafe { blob.as_mut() }) else {
        return;
    };
    if !blob.data.is_null() {
        // SAFETY: made by `give` from a boxed slice of this length.
        let mut bytes =
            unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(blob.data, blob.len)) };
        bytes.zeroize();
    }
    blob.data = std::ptr::null_mut();
    blob.len = 0;
}

/// Random bytes of the kernel.
///
/// # Safety
/// `data` points to `len` writable bytes.
#[no_mangle]
pub unsafe extern "C" fn shd_random(data: *mut u8, len: usize, error: *mut ShdError) -> i32 {
    let body = || {
        if len == 0 {
            return Ok(());
        }
        if data.is_null() {
            return Err(Failure::new("native.argument", "null pointer"));
        }
        // SAFETY: the caller's promise.
        let into = unsafe { std::slice::from_raw_parts_mut(data, len) };
        for piece in into.chunks_mut(32) {
            let mut random = shieldd_sys::files::staged::random::<32>()?;
            piece.copy_from_slice(&random[..piece.len()]);
            random.zeroize();
        }
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { guarded(error, body) }
}

/// A new, empty key ring, after the self-test of the primitives.
///
/// # Safety
/// `result` is writable.
#[no_mangle]
pub unsafe extern "C" fn shd_keyring_new(
    result: *mut *mut ShdKeyring,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            *out(result)? = Box::into_raw(Box::new(ShdKeyring(Keyring::new()?)));
            Ok(())
        })
    }
}

/// Wipes and frees a key ring.
///
/// # Safety
/// `keyring` is null or from [`shd_keyring_new`], and in use nowhere.
#[no_mangle]
pub unsafe extern "C" fn shd_keyring_free(keyring: *mut ShdKeyring) {
    if !keyring.is_null() {
        // SAFETY: the caller's promise.
        drop(unsafe { Box::from_raw(keyring) });
    }
}

/// Wipes every key; the ring stays usable.
///
/// # Safety
/// `keyring` is from [`shd_keyring_new`].
#[no_mangle]
pub unsafe extern "C" fn shd_keyring_clear(
    keyring: *const ShdKeyring,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { guarded(error, || Ok(shared(keyring)?.0.clear()?)) }
}

/// Copies a key in.
///
/// # Safety
/// `key_id` points to 16 and `key` to 32 readable bytes.
#[no_mangle]
pub unsafe extern "C" fn shd_keyring_add(
    keyring: *const ShdKeyring,
    key_id: *const [u8; 16],
    version: u32,
    purpose: u8,
    key: *const [u8; 32],
    seals: bool,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            Ok(shared(keyring)?
                .0
                .add(*shared(key_id)?, version, purpose, shared(key)?, seals)?)
        })
    }
}

/// Wipes every version of a key.
///
/// # Safety
/// `key_id` points to 16 readable bytes; `found` is writable.
#[no_mangle]
pub unsafe extern "C" fn shd_keyring_forget(
    keyring: *const ShdKeyring,
    key_id: *const [u8; 16],
    found: *mut bool,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            *out(found)? = shared(keyring)?.0.forget(*shared(key_id)?)?;
            Ok(())
        })
    }
}

/// Whether every key is kept out of swap.
///
/// # Safety
/// `locked` is writable.
#[no_mangle]
pub unsafe extern "C" fn shd_keyring_locked(
    keyring: *const ShdKeyring,
    locked: *mut bool,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            *out(locked)? = shared(keyring)?.0.locked()?;
            Ok(())
        })
    }
}

/// Wraps a small secret under the key that seals for `purpose`.
///
/// # Safety
/// The slices are readable, `result` is writable.
#[no_mangle]
pub unsafe extern "C" fn shd_keyring_wrap(
    keyring: *const ShdKeyring,
    purpose: u8,
    context: ShdSlice,
    secret: ShdSlice,
    result: *mut ShdBlob,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            give(
                shared(keyring)?
                    .0
                    .wrap(purpose, context.get(), secret.get())?,
                out(result)?,
            );
            Ok(())
        })
    }
}

/// Unwraps a small secret.
///
/// # Safety
/// The slices are readable, `result` is writable.
#[no_mangle]
pub unsafe extern "C" fn shd_keyring_unwrap(
    keyring: *const ShdKeyring,
    context: ShdSlice,
    wrapped: ShdSlice,
    result: *mut ShdBlob,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            let secret = shared(keyring)?.0.unwrap(context.get(), wrapped.get())?;
            give(secret.to_vec(), out(result)?);
            Ok(())
        })
    }
}

/// A journal in a directory.
///
/// # Safety
/// `result` is writable, `dir_fd` an open directory.
#[no_mangle]
pub unsafe extern "C" fn shd_journal_new(
    dir_fd: i32,
    result: *mut *mut ShdJournal,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            *out(result)? = Box::into_raw(Box::new(ShdJournal(Journal::new(borrowed(dir_fd)?)?)));
            Ok(())
        })
    }
}

/// Closes a journal; open transactions stay for recovery.
///
/// # Safety
/// `journal` is null or from [`shd_journal_new`], and in use nowhere.
#[no_mangle]
pub unsafe extern "C" fn shd_journal_free(journal: *mut ShdJournal) {
    if !journal.is_null() {
        // SAFETY: the caller's promise.
        drop(unsafe { Box::from_raw(journal) });
    }
}

/// Ends what a crash cut off. The blob has five fields for each record: act (1 seal, 2 open) and outcome (1 finished,
/// 2 rolled back, 3 kept, 4 waiting) in two bytes, file id, path, sealed path.
///
/// # Safety
/// `paths` and `fds` have `count` elements; all pointers are valid.
#[no_mangle]
pub unsafe extern "C" fn shd_journal_recover(
    journal: *const ShdJournal,
    paths: *const ShdSlice,
    fds: *const i32,
    count: usize,
    keyring: *const ShdKeyring,
    result: *mut ShdBlob,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            let mut roots = Vec::with_capacity(count);
            for i in 0..count {
                roots.push(Root {
                    path: (*paths.add(i)).get(),
                    fd: borrowed(*fds.add(i))?,
                });
            }
            let mut fields = Fields::default();
            for r in recover(&shared(journal)?.0, &roots, &shared(keyring)?.0)? {
                let act = match r.act {
                    Act::Seal => 1,
                    Act::Open => 2,
                };
                let outcome = match r.outcome {
                    Outcome::Finished => 1,
                    Outcome::RolledBack => 2,
                    Outcome::Kept => 3,
                    Outcome::Waiting => 4,
                };
                fields
                    .put(&[act, outcome])
                    .put(&r.file_id)
                    .put(&r.path)
                    .put(&r.sealed_path);
            }
            fields.give(out(result)?);
            Ok(())
        })
    }
}

/// # Safety
/// The slices of `o` are readable.
unsafe fn seal_options(o: &ShdSealOptions) -> Result<sealing::Options, Failure> {
    // SAFETY: the caller's promise.
    let (why, host_id) = unsafe { (o.why.get(), o.host_id.get()) };
    Ok(sealing::Options {
        purpose: o.purpose,
        why: std::str::from_utf8(why)
            .map_err(|_| Failure::new("native.argument", "reason is not UTF-8"))?
            .to_owned(),
        host_id: host_id.to_vec(),
        threads: threads(o.threads),
        durable: o.durable,
        keep_original: o.keep_original,
        budget: o.budget,
    })
}

fn sealed_out(sealed: &Sealed) -> ShdSealed {
    ShdSealed {
        size: sealed.size,
        sealed_size: sealed.sealed_size,
        sealed_at_ns: sealed.sealed_at_ns,
        key_version: sealed.key_version,
        status: 0,
        key_id: sealed.key_id,
        file_id: sealed.file_id,
        digest: sealed.digest,
    }
}

/// Seals one file beside itself, or with `store_fd` >= 0 into that directory under `store_name`.
/// The blob is the sealed file's path.
///
/// # Safety
/// All pointers are valid, all descriptors open.
#[no_mangle]
pub unsafe extern "C" fn shd_seal(
    root_fd: i32,
    path: ShdSlice,
    store_fd: i32,
    store_name: ShdSlice,
    keyring: *const ShdKeyring,
    journal: *const ShdJournal,
    options: *const ShdSealOptions,
    result: *mut ShdSealed,
    sealed_path: *mut ShdBlob,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            let options = seal_options(shared(options)?)?;
            let target = match store_fd {
                0.. => Target::Into(borrowed(store_fd)?, store_name.get()),
                _ => Target::Beside,
            };
            let sealer = Sealer {
                keyring: &shared(keyring)?.0,
                journal: &shared(journal)?.0,
                options: &options,
                names: &Names::default(),
            };
            let sealed = sealer.seal(borrowed(root_fd)?, path.get(), target)?;
            *out(result)? = sealed_out(&sealed);
            give(sealed.path, out(sealed_path)?);
            Ok(())
        })
    }
}

/// Seals the open file `source_fd` into `store_fd` as `store_name`; the file itself is only read. `path` is where the
/// sealed metadata says that it was.
///
/// # Safety
/// All pointers are valid, all descriptors open.
#[no_mangle]
pub unsafe extern "C" fn shd_seal_descriptor(
    source_fd: i32,
    path: ShdSlice,
    store_fd: i32,
    store_name: ShdSlice,
    keyring: *const ShdKeyring,
    journal: *const ShdJournal,
    options: *const ShdSealOptions,
    result: *mut ShdSealed,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            let options = seal_options(shared(options)?)?;
            let sealer = Sealer {
                keyring: &shared(keyring)?.0,
                journal: &shared(journal)?.0,
                options: &options,
                names: &Names::default(),
            };
            let source = duplicate(borrowed(source_fd)?)?;
            let store = borrowed(store_fd)?;
            let sealed = sealer.seal_descriptor(source, path.get(), store, store_name.get())?;
            *out(result)? = sealed_out(&sealed);
            Ok(())
        })
    }
}

fn duplicate(fd: BorrowedFd<'_>) -> Result<std::os::fd::OwnedFd, Failure> {
    fd.try_clone_to_owned().map_err(|e| Failure {
        code: "file.io",
        errno: e.raw_os_error().unwrap_or(0),
        message: "descriptor cannot be duplicated".into(),
    })
}

/// Seals many files with group commit. The blob has one field for each path: that of the sealed file, or nothing.
///
/// # Safety
/// `paths`, `results` and `errors` have `count` elements; all other pointers are valid, all descriptors open.
#[no_mangle]
pub unsafe extern "C" fn shd_seal_many(
    root_fd: i32,
    paths: *const ShdSlice,
    count: usize,
    keyring: *const ShdKeyring,
    journal: *const ShdJournal,
    options: *const ShdSealOptions,
    results: *mut ShdSealed,
    errors: *mut ShdError,
    sealed_paths: *mut ShdBlob,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            let options = seal_options(shared(options)?)?;
            let sealer = Sealer {
                keyring: &shared(keyring)?.0,
                journal: &shared(journal)?.0,
                options: &options,
                names: &Names::default(),
            };
            let paths: Vec<&[u8]> = (0..count).map(|i| (*paths.add(i)).get()).collect();
            let mut fields = Fields::default();
            for (i, one) in seal_many(&sealer, borrowed(root_fd)?, &paths)?
                .into_iter()
                .enumerate()
            {
                let result = out(results.add(i))?;
                match one {
                    Ok(sealed) => {
                        *result = sealed_out(&sealed);
                        fields.put(&sealed.path);
                    }
                    Err(trouble) => {
                        result.status = 1;
                        put_error(out(errors.add(i))?, &trouble.into());
                        fields.put(b"");
                    }
                }
            }
            fields.give(out(sealed_paths)?);
            Ok(())
        })
    }
}

fn metadata_fields(fields: &mut Fields, m: &Metadata) {
    let mut scalars = Vec::with_capacity(64);
    for value in [m.mode, m.uid, m.gid, u32::from(m.purpose)] {
        scalars.extend_from_slice(&value.to_le_bytes());
    }
    for value in [m.atime_ns, m.mtime_ns, m.sealed_at_ns] {
        scalars.extend_from_slice(&value.to_le_bytes());
    }
    for value in [m.size, m.payload_len(), m.extents.len() as u64] {
        scalars.extend_from_slice(&value.to_le_bytes());
    }
    fields
        .put(&scalars)
        .put(&m.name)
        .put(&m.user)
        .put(&m.group)
        .put(&m.digest)
        .put(m.why.as_bytes())
        .put(&m.host_id);
    let mut names = Fields::default();
    m.xattrs.iter().for_each(|(name, _)| {
        names.put(name);
    });
    fields.put(&names.0);
}

fn opened_fields(opened: &Opened) -> Fields {
    let mut fields = Fields::default();
    fields.put(&opened.file_id).put(&opened.path);
    let mut skipped = Fields::default();
    opened.skipped.iter().for_each(|name| {
        skipped.put(name);
    });
    fields.put(&skipped.0);
    metadata_fields(&mut fields, &opened.metadata);
    fields
}

/// Opens a sealed file: with `to_fd` < 0 beside itself under its own name; else in or beneath that directory:
/// directly in it under `to_name` (its own name where empty), or, with `whole_path`, at the path `to_name`.
/// The blob has file id, path, skipped attributes, then the fields of the metadata.
///
/// # Safety
/// All pointers are valid, all descriptors open.
#[no_mangle]
pub unsafe extern "C" fn shd_open(
    root_fd: i32,
    path: ShdSlice,
    to_fd: i32,
    to_name: ShdSlice,
    whole_path: bool,
    keyring: *const ShdKeyring,
    journal: *const ShdJournal,
    options: *const ShdOpenOptions,
    result: *mut ShdBlob,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            let name = to_name.get();
            let target = match to_fd {
                0.. if whole_path => opening::Target::At(borrowed(to_fd)?, name),
                0.. => opening::Target::In(borrowed(to_fd)?, (!name.is_empty()).then_some(name)),
                _ => opening::Target::Own,
            };
            let o = shared(options)?;
            let options = opening::Options {
                keep_sealed: o.keep_sealed,
                privileged_bits: o.privileged_bits,
                durable: o.durable,
                threads: threads(o.threads),
            };
            let (keyring, journal) = (&shared(keyring)?.0, &shared(journal)?.0);
            let opened = opening::open(
                borrowed(root_fd)?,
                path.get(),
                keyring,
                journal,
                target,
                options,
            )?;
            opened_fields(&opened).give(out(result)?);
            Ok(())
        })
    }
}

/// Writes the verified content of a sealed file to `out_fd`. The blob is as [`shd_open`]'s. With an empty path
/// `root_fd` is the sealed file itself.
///
/// # Safety
/// All pointers are valid, all descriptors open.
#[no_mangle]
pub unsafe extern "C" fn shd_open_stream(
    root_fd: i32,
    path: ShdSlice,
    keyring: *const ShdKeyring,
    out_fd: i32,
    result: *mut ShdBlob,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            let source = match path.get() {
                b"" => Source::held(duplicate(borrowed(root_fd)?)?)?,
                path => reading::source(borrowed(root_fd)?, path)?.2,
            };
            let unsealed = Unsealed::read(&source, &shared(keyring)?.0)?;
            reading::stream(&source, &unsealed, borrowed(out_fd)?)?;
            let file_id = unsealed.header.slot.fixed.file_id;
            let opened = Opened {
                file_id,
                path: Vec::new(),
                metadata: unsealed.metadata,
                skipped: Vec::new(),
            };
            opened_fields(&opened).give(out(result)?);
            Ok(())
        })
    }
}

/// The metadata of a sealed file, and with `verify` a check of every byte.
///
/// # Safety
/// All pointers are valid, `root_fd` is open.
#[no_mangle]
pub unsafe extern "C" fn shd_metadata(
    root_fd: i32,
    path: ShdSlice,
    keyring: *const ShdKeyring,
    verify: bool,
    result: *mut ShdBlob,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            let (_, _, source) = reading::source(borrowed(root_fd)?, path.get())?;
            let unsealed = Unsealed::read(&source, &shared(keyring)?.0)?;
            if verify {
                unsealed.verify(&source, threads(0))?;
            }
            let mut fields = Fields::default();
            let fixed = &unsealed.header.slot.fixed;
            fields
                .put(&fixed.file_id)
                .put(&fixed.chunks().to_le_bytes());
            metadata_fields(&mut fields, &unsealed.metadata);
            fields.give(out(result)?);
            Ok(())
        })
    }
}

/// The header of a sealed file, without a key: suite and chunk size in two bytes, generation, payload length, file id,
/// slots whole; then for each recipient kind, key id and version in one field.
///
/// # Safety
/// All pointers are valid, `root_fd` is open.
#[no_mangle]
pub unsafe extern "C" fn shd_header(
    root_fd: i32,
    path: ShdSlice,
    result: *mut ShdBlob,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            let (_, _, source) = reading::source(borrowed(root_fd)?, path.get())?;
            let header = reading::header(std::os::fd::AsFd::as_fd(&source.fd), source.stamp.size)?;
            let (slot, fixed) = (&header.slot, &header.slot.fixed);
            let mut fields = Fields::default();
            fields
                .put(&[shieldd_core::envelope::layout::SUITE, fixed.chunk_log2])
                .put(&slot.generation.to_le_bytes())
                .put(&fixed.payload_len.to_le_bytes())
                .put(&fixed.file_id)
                .put(&[1 + u8::from(header.other.is_some())]);
            for r in &slot.recipients {
                let mut one = vec![r.kind];
                one.extend_from_slice(&r.key_id);
                one.extend_from_slice(&r.version.to_le_bytes());
                fields.put(&one);
            }
            fields.give(out(result)?);
            Ok(())
        })
    }
}

/// Wraps the data keys of many sealed files for the key that seals for `purpose`.
///
/// # Safety
/// `paths`, `results` and `errors` have `count` elements; all other pointers are valid, `root_fd` is open.
#[no_mangle]
pub unsafe extern "C" fn shd_rewrap_many(
    root_fd: i32,
    paths: *const ShdSlice,
    count: usize,
    keyring: *const ShdKeyring,
    purpose: u8,
    revoke: bool,
    results: *mut ShdRewrapped,
    errors: *mut ShdError,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            let paths: Vec<&[u8]> = (0..count).map(|i| (*paths.add(i)).get()).collect();
            let done = rewrap_many(
                borrowed(root_fd)?,
                &paths,
                &shared(keyring)?.0,
                purpose,
                revoke,
                threads(0),
            )?;
            for (i, one) in done.into_iter().enumerate() {
                let result = out(results.add(i))?;
                match one {
                    Ok(r) => {
                        *result = ShdRewrapped {
                            generation: r.generation,
                            file_id: r.file_id,
                            status: 0,
                            changed: r.changed,
                        };
                    }
                    Err(trouble) => {
                        result.status = 1;
                        put_error(out(errors.add(i))?, &trouble.into());
                    }
                }
            }
            Ok(())
        })
    }
}
