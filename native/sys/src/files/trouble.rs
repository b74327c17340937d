//! What went wrong with a file: a stable code, the `errno`, one sentence.

use rustix::io::Errno;
use shieldd_core::envelope::Refusal;

/// A failure.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// Stable dotted code of `shieldd/errors.py`.
    pub code: &'static str,
    /// `errno` behind it, 0 where none.
    pub errno: i32,
    /// One sentence; no path, no content.
    pub message: String,
}

/// Result of file work.
pub type Result<T> = std::result::Result<T, Trouble>;

impl Trouble {
    /// A failure without an `errno`.
    pub fn new(code: &'static str, message: impl Into<String>) -> Trouble {
        Trouble {
            code,
            errno: 0,
            message: message.into(),
        }
    }

    /// A failed call; `doing` says what it was for.
    pub fn of(errno: Errno, doing: &str) -> Trouble {
        let code = match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::STALE => "file.missing",
            Errno::ACCESS | Errno::PERM => "file.denied",
            Errno::ISDIR => "file.directory",
            Errno::LOOP => "file.symlink",
            Errno::XDEV => "file.mount",
            Errno::NOSPC | Errno::DQUOT | Errno::FBIG => "file.full",
            Errno::ROFS => "file.readonly",
            Errno::EXIST => "file.exists",
            Errno::NAMETOOLONG | Errno::INVAL => "file.name",
            Errno::TXTBSY | Errno::AGAIN | Errno::BUSY => "file.busy",
            Errno::NXIO | Errno::NODEV => "file.not-regular",
            _ => "file.io",
        };
        Trouble {
            code,
            errno: errno.raw_os_error(),
            message: format!("{doing}: {}", describe(errno)),
        }
    }

    /// A failed read, write or sync of data: the name is not at fault, whatever the `errno`.
    pub fn data(errno: Errno, doing: &str) -> Trouble {
        let mut trouble = Trouble::of(errno, doing);
        if !matches!(trouble.code, "file.full" | "file.readonly") {
            trouble.code = "file.io";
        }
        trouble
    }
}

fn describe(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_lowercase()
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Trouble {
        Trouble::new(refusal.code(), refusal.to_string())
    }
}

/// Runs a call again for as long as a signal interrupts it.
pub fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}
