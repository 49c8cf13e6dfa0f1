//! The tree of the other tools, for the tests that run beside them.

use std::process::Command;

use bale_testkit::peers::{LEFT_OUT, Peers};

use crate::run::{Result, Runner};
use crate::say;

/// What the tests are told about the tree, as a variable of the environment.
pub type Told = (&'static str, String);

/// Finds or makes the tree.
///
/// Without one the tests beside the other tools are left out and counted, with the reason: a machine without Debian's
/// packages within reach can still run all others.
pub fn prepare(runner: &mut Runner, left_out: bool) -> Result<Told> {
    if left_out {
        return Ok((LEFT_OUT, "--no-peers was given".to_owned()));
    }
    say("\nthe tree of the other tools (made once, below target/) …");
    let ran = runner.run(Command::new(std::env::current_exe()?).arg("@peers"))?;
    // It was ended with its group.
    runner.check()?;
    let seconds = ran.took.as_secs();
    if ran.code == 0 {
        let tree = ran.stdout.trim().to_owned();
        say(&format!("{tree}{}", if seconds > 1 { format!(", made in {seconds} s") } else { String::new() }));
        return Ok(("BALE_PEERS", tree));
    }
    let why = ran.stderr.trim().trim_start_matches("xtask: ").replace(['\n', '\t'], " ");
    say(&format!("there is none: {why}"));
    Ok((LEFT_OUT, format!("it cannot be made: {why}")))
}

/// The part that works in a process of its own, so that it can be ended with all that it runs.
pub fn main(words: &[&str]) -> Result<()> {
    crate::only(words, &[])?;
    let peers = Peers::find_or_make()?;
    say(&peers.tree().to_string_lossy());
    Ok(())
}
