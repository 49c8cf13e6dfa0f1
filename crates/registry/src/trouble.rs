//! A failure and whether to try again.

use std::time::Duration;

use bale_fault::{Fault, Kind};

/// What the next step after a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// It will fail again.
    Never,
    /// It will fail again, and the peer speaks something else: TLS instead of http, or the other way round.
    OtherProtocol,
    /// After the usual pause.
    Soon,
    /// After what the server asked for.
    After(Duration),
    /// The connection could not be made: worth a retry only where one was made before.
    IfReachedBefore,
}

/// A failure on the wire.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub fault: Fault,
    pub retry: Retry,
}

impl Trouble {
    pub(crate) fn new(kind: Kind, words: impl Into<String>, retry: Retry) -> Self {
        Self { fault: Fault::new(kind, words), retry }
    }

    /// A failure that will not go away.
    pub(crate) fn fatal(kind: Kind, words: impl Into<String>) -> Self {
        Self::new(kind, words, Retry::Never)
    }

    /// Puts words in front, keeping the decision.
    pub(crate) fn within(self, words: impl Into<String>) -> Self {
        Self { fault: self.fault.within(words), retry: self.retry }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { fault: self.fault.hint(hint), retry: self.retry }
    }
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self { fault, retry: Retry::Never }
    }
}

/// Lets the edge drop the decision.
impl From<Trouble> for Fault {
    fn from(trouble: Trouble) -> Self {
        trouble.fault
    }
}
