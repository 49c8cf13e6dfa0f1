//! How often and after which pause a failed attempt is made again.

use std::time::Duration;

use crate::settings::Timeouts;
use crate::trouble::{Retry, Trouble};

/// A server that wants a longer pause than this is not waited for.
const PAUSE_LIMIT: Duration = Duration::from_secs(60);

/// The attempts that are left to one operation.
pub(crate) struct Patience {
    timeouts: Timeouts,
    made: u32,
}

impl Patience {
    pub(crate) const fn new(timeouts: Timeouts) -> Self {
        Self { timeouts, made: 0 }
    }

    /// Forgets earlier failures: there was progress.
    pub(crate) const fn renew(&mut self) {
        self.made = 0;
    }

    /// Waits before the next attempt. `was_reached` tells whether the peer ever answered.
    ///
    /// # Errors
    /// The trouble itself when there is no sense in another attempt.
    pub(crate) async fn pause(&mut self, trouble: Trouble, was_reached: bool) -> Result<(), Trouble> {
        self.made += 1;
        let Some(pause) = self.next_pause(trouble.retry, was_reached) else { return Err(trouble) };
        if pause > PAUSE_LIMIT {
            return Err(trouble.hint(format!("the registry asks to come back in {} s", pause.as_secs())));
        }
        if self.made >= self.timeouts.attempts {
            let hint = "the registry or the way to it is in trouble: try again later; BALE_REGISTRY_TIMEOUT=SECONDS waits longer";
            return Err(trouble.within(format!("gave up after {} attempts", self.made)).hint(hint));
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn next_pause(&self, retry: Retry, was_reached: bool) -> Option<Duration> {
        match retry {
            Retry::Never | Retry::OtherProtocol => None,
            Retry::IfReachedBefore if !was_reached => None,
            Retry::After(pause) => Some(pause),
            Retry::Soon | Retry::IfReachedBefore => {
                let doubled = self.timeouts.backoff.saturating_mul(1 << (self.made - 1).min(6));
                // Half is fixed and half is chance, so that many clients do not come back together.
                let half = doubled / 2;
                Some(half + half.mul_f64(f64::from(crate::random::number()) / f64::from(u32::MAX)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_stay_within_bounds() {
        let timeouts = Timeouts { backoff: Duration::from_millis(100), ..Timeouts::default() };
        for (made, low, high) in [(1, 50, 100), (2, 100, 200), (3, 200, 400), (40, 3200, 6400)] {
            let pause = Patience { timeouts, made }.next_pause(Retry::Soon, false).unwrap();
            assert!((low..=high).contains(&pause.as_millis()), "{made}: {pause:?}");
        }
        let first = Patience { timeouts, made: 1 };
        assert_eq!(first.next_pause(Retry::Never, true), None);
        assert_eq!(first.next_pause(Retry::IfReachedBefore, false), None);
        assert!(first.next_pause(Retry::IfReachedBefore, true).is_some());
        assert_eq!(
            first.next_pause(Retry::After(Duration::from_secs(9)), true),
            Some(Duration::from_secs(9))
        );
    }
}
