//! The one error type of every crate's face: a kind for programs, words for people, a hint, and the cause.
//!
//! The words are lower case, carry their arguments and never repeat the cause: the edge prints the chain once.
//! `docs/decisions/0003-one-error-type.md` says why the crates share one type.

use std::error::Error;
use std::fmt;

/// What went wrong, for programs: exit codes and API codes are chosen by it, never by words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// What was named does not exist.
    NotFound,
    /// What was to be made exists already.
    AlreadyExists,
    /// The user's words, a config or a document are wrong.
    InvalidInput,
    /// The kernel or a registry does not allow it.
    PermissionDenied,
    /// The kernel or a peer lacks the feature.
    Unsupported,
    /// It is in a state (running, in use, locked) that forbids the operation.
    Conflict,
    /// A peer could not be reached or did not answer in time.
    Unavailable,
    /// Content does not match its digest, or a stored document is damaged.
    Corrupt,
    /// No space, quota or memory is left.
    Exhausted,
    /// The program to run does not exist (Docker's 127).
    ProgramNotFound,
    /// The program to run cannot be executed (Docker's 126).
    ProgramNotExecutable,
    /// The operation was interrupted.
    Interrupted,
    /// Any other failure of a system call.
    Os,
    /// A broken promise of bale itself.
    Internal,
}

/// A failure: one link of the chain that the user will read.
pub struct Fault(Box<Inner>);

struct Inner {
    kind: Kind,
    words: String,
    hint: Option<String>,
    source: Option<Box<dyn Error + Send + Sync + 'static>>,
}

/// The result of every fallible function at a crate's face.
pub type Result<T, E = Fault> = std::result::Result<T, E>;

impl Fault {
    /// Makes a failure without a cause. `words` are lower case and carry the arguments.
    #[must_use]
    pub fn new(kind: Kind, words: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, words: words.into(), hint: None, source: None }))
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync + 'static>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds what the user can do next; the innermost hint of a chain is the one that is shown.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Puts `words` in front: the new link has this failure as its cause, and its kind.
    #[must_use]
    pub fn within(self, words: impl Into<String>) -> Self {
        let kind = self.kind();
        Self::new(kind, words).caused_by(self)
    }

    /// Replaces the kind.
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Returns the kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Returns the words of this link alone.
    #[must_use]
    pub fn words(&self) -> &str {
        &self.0.words
    }

    /// Returns the innermost hint of the chain.
    #[must_use]
    pub fn innermost_hint(&self) -> Option<&str> {
        let deeper =
            self.0.source.as_ref().and_then(|s| s.downcast_ref::<Self>()).and_then(Self::innermost_hint);
        deeper.or(self.0.hint.as_deref())
    }

    /// Returns the whole chain as one line, links joined by `: `.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut line = self.0.words.clone();
        let mut next = self.source();
        while let Some(link) = next {
            line.push_str(": ");
            line.push_str(&link.to_string());
            next = link.source();
        }
        line
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.words)
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.chain())
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|s| s as &(dyn Error + 'static))
    }
}

/// Guesses the kind of a failed system call.
#[must_use]
pub fn kind_of_io(error: &std::io::Error) -> Kind {
    use std::io::ErrorKind as E;
    match error.kind() {
        E::NotFound => Kind::NotFound,
        E::AlreadyExists => Kind::AlreadyExists,
        E::PermissionDenied => Kind::PermissionDenied,
        E::StorageFull | E::QuotaExceeded | E::OutOfMemory => Kind::Exhausted,
        E::TimedOut
        | E::ConnectionRefused
        | E::ConnectionReset
        | E::HostUnreachable
        | E::NetworkUnreachable => Kind::Unavailable,
        E::Unsupported => Kind::Unsupported,
        E::ResourceBusy | E::DirectoryNotEmpty => Kind::Conflict,
        E::Interrupted => Kind::Interrupted,
        _ => Kind::Os,
    }
}

/// Puts words in front of a failure of any type.
pub trait Context<T> {
    /// Adds a link with the kind of the failure below; `words` is only called when there is a failure.
    ///
    /// # Errors
    /// The failure, one link longer.
    fn within<W: Into<String>>(self, words: impl FnOnce() -> W) -> Result<T>;
}

impl<T> Context<T> for Result<T, Fault> {
    fn within<W: Into<String>>(self, words: impl FnOnce() -> W) -> Result<T> {
        self.map_err(|fault| fault.within(words()))
    }
}

impl<T> Context<T> for Result<T, std::io::Error> {
    fn within<W: Into<String>>(self, words: impl FnOnce() -> W) -> Result<T> {
        self.map_err(|error| Fault::new(kind_of_io(&error), words()).caused_by(PlainIo(error)))
    }
}

/// An I/O error whose text is the kernel's words alone, without Rust's "(os error 2)".
struct PlainIo(std::io::Error);

impl fmt::Display for PlainIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let plain = text.find(" (os error").map_or(text.as_str(), |at| &text[..at]);
        let mut letters = plain.chars();
        let first = letters.next().map(|c| c.to_lowercase().to_string()).unwrap_or_default();
        write!(f, "{first}{}", letters.as_str())
    }
}

impl fmt::Debug for PlainIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Error for PlainIo {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_read_once_and_the_innermost_hint_wins() {
        let io: Result<(), _> = Err(std::io::Error::from_raw_os_error(2));
        let fault = io
            .within(|| "open /x")
            .map_err(|f| f.hint("make /x"))
            .within(|| "run web")
            .unwrap_err()
            .hint("outer");
        assert_eq!(fault.chain(), "run web: open /x: no such file or directory");
        assert_eq!((fault.kind(), fault.innermost_hint()), (Kind::NotFound, Some("make /x")));
    }
}
