//! The part that runs in the virtual machine, or why it does not.

use std::time::Duration;

use bale_testkit::WANTS_VM;

use super::{Count, add_tests};
use crate::run::{Failure, Result, Runner, TOO_LONG};
use crate::{say, vm};

/// A few minutes where the processor is emulated, less than one where it is not.
const LIMIT: Duration = Duration::from_secs(25 * 60);

/// Runs it, unless it is left out for a reason.
pub fn tests(runner: &mut Runner, count: &mut Count, left_out: Option<&str>) -> Result<()> {
    if let Some(reason) = left_out {
        count.skip(&format!("the virtual machine: {reason}"));
        return Ok(());
    }
    say("\n$ cargo xtask vm test");
    let image = match vm::prepare(runner) {
        Ok(image) => image,
        Err(Failure::Interrupted(signal)) => return Err(Failure::Interrupted(signal)),
        // Without network, on another distribution, in a container that may not mount: it is not bale that failed.
        Err(failure) => {
            let words = failure.to_string();
            say(&format!("the virtual machine cannot be made: {words}"));
            count.skip(&format!("the virtual machine: {}", words.lines().next().unwrap_or_default()));
            return Ok(());
        }
    };
    let before = count.failed;
    let outcome = vm::tests::run(runner, &image, LIMIT);
    let failure = match outcome {
        Ok(ran) => {
            // On the host they only said that they belong here.
            count.skipped.remove(WANTS_VM);
            add_tests(count, &ran.lines, &ran.skips);
            match ran.code {
                TOO_LONG => Some("the virtual machine took too long and was ended".to_owned()),
                0 => None,
                // Its failures are counted.
                _ if count.failed > before => None,
                code => Some(format!("the tests in the virtual machine ended with {code}")),
            }
        }
        Err(Failure::Interrupted(signal)) => return Err(Failure::Interrupted(signal)),
        Err(failure) => Some(failure.to_string()),
    };
    if let Some(failure) = failure {
        say(&format!("virtual machine ... FAILED: {failure}"));
        count.failed += 1;
        count.failures.push("the tests in the virtual machine".to_owned());
    }
    Ok(())
}
