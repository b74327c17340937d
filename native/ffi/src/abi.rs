//! Status, error record and panic guard shared by all exports.

use std::panic::{catch_unwind, AssertUnwindSafe};

/// Version of this ABI; Python refuses a library of another one.
pub const ABI_VERSION: u32 = 1;

/// A failure, described. `code` and `message` are UTF-8, zero-terminated, owned by the caller.
#[repr(C)]
pub struct ShdError {
    /// Stable dotted code, e.g. `envelope.chunk`; `shieldd/errors.py` lists them all.
    pub code: [u8; 48],
    /// `errno` behind it, 0 where none.
    pub errno: i32,
    /// One sentence, never file content or key material.
    pub message: [u8; 460],
}

/// A failure inside the native code.
#[derive(Debug)]
pub struct Failure {
    /// Stable dotted code.
    pub code: &'static str,
    /// `errno` behind it, 0 where none.
    pub errno: i32,
    /// One sentence.
    pub message: String,
}

impl Failure {
    /// A failure without an `errno`.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Failure {
            code,
            errno: 0,
            message: message.into(),
        }
    }
}

fn put(into: &mut [u8], text: &str) {
    let mut end = text.len().min(into.len() - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    into[..end].copy_from_slice(&text.as_bytes()[..end]);
    into[end..].fill(0);
}

/// Describes a failure in `out`.
pub fn put_error(out: &mut ShdError, failure: &Failure) {
    put(&mut out.code, failure.code);
    put(&mut out.message, &failure.message);
    out.errno = failure.errno;
}

/// Runs `body`, turns a failure or a panic into a status and a filled `error`.
///
/// # Safety
/// `error` is null or points to a writable [`ShdError`].
pub unsafe fn guarded(error: *mut ShdError, body: impl FnOnce() -> Result<(), Failure>) -> i32 {
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .map(|s| s.to_string())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "unknown".into());
        Err(Failure::new("native.panic", text))
    });
    match outcome {
        Ok(()) => 0,
        Err(failure) => {
            // SAFETY: the caller promises null or a writable record.
            if let Some(out) = unsafe { error.as_mut() } {
                put_error(out, &failure);
            }
            1
        }
    }
}

/// Version of the ABI.
#[no_mangle]
pub extern "C" fn shd_abi_version() -> u32 {
    ABI_VERSION
}
