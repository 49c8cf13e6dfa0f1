//! One error for every system call: the call with its arguments, and the kernel's words.

use std::fmt;

use bale_fault::{Fault, Kind};
use rustix::io::Errno;

/// A failed system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    call: String,
    errno: Errno,
}

/// The result of a system call.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Names the call with its arguments, such as `openat([4], "etc/passwd", O_PATH)`.
    pub fn new(call: impl Into<String>, errno: Errno) -> Self {
        Self { call: call.into(), errno }
    }

    /// Returns the kernel's answer.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        self.errno
    }

    /// Returns the call with its arguments.
    #[must_use]
    pub fn call(&self) -> &str {
        &self.call
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, words(self.errno))
    }
}

impl std::error::Error for Error {}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let kind = kind(error.errno);
        Self::new(kind, error.to_string())
    }
}

/// Returns the kernel's words for `errno`, in lower case.
#[must_use]
pub fn words(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let plain = text.find(" (os error").map_or(text.as_str(), |at| &text[..at]);
    let mut letters = plain.chars();
    let first = letters.next().map(|c| c.to_lowercase().to_string()).unwrap_or_default();
    format!("{first}{}", letters.as_str())
}

/// Chooses the kind of a failure by its errno.
#[must_use]
pub fn kind(errno: Errno) -> Kind {
    match errno {
        Errno::NOSYS | Errno::OPNOTSUPP => Kind::Unsupported,
        Errno::BUSY | Errno::TXTBSY | Errno::NOTEMPTY | Errno::AGAIN => Kind::Conflict,
        other => bale_fault::kind_of_io(&other.into()),
    }
}

/// Puts the call in front of a bare errno.
pub trait Call<T> {
    /// Names the call; `call` is only called when it failed.
    ///
    /// # Errors
    /// The errno with the call.
    fn call<C: Into<String>>(self, call: impl FnOnce() -> C) -> Result<T>;
}

impl<T> Call<T> for rustix::io::Result<T> {
    fn call<C: Into<String>>(self, call: impl FnOnce() -> C) -> Result<T> {
        self.map_err(|errno| Error::new(call(), errno))
    }
}
