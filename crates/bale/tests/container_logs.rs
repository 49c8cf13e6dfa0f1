//! `logs`: every byte, in order, from each stream, with times, tails and followers.
//!
//! Needs root, and busybox from Debian's package (made once by the testkit).

use std::process::Stdio;

use bale_testkit::Bale;

fn bale() -> Bale {
    let bale = bale_testkit::bale!();
    bale.load_busybox();
    bale
}

fn logged(bale: &Bale, name: &str, script: &str) {
    bale.run(["run", "--net", "none", "--name", name, "busybox", "sh", "-c", script]);
}

#[test]
fn streams_are_kept_apart_and_lines_whole() {
    bale_testkit::require_root!();
    let bale = bale();
    logged(&bale, "log", "echo one; echo two >&2; printf three; printf 'four\\nfive'");
    let outcome = bale.run(["logs", "log"]);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("one\nthreefour\nfive", "two\n"));
    for (words, wanted) in [
        (&["--tail", "1"][..], "five"),
        (&["-n", "2"], "threefour\nfive"),
        (&["--tail", "0"], ""),
        (&["--tail", "all"], "one\nthreefour\nfive"),
        (&["--since", "1h"], "one\nthreefour\nfive"),
        (&["--until", "2001-01-01"], ""),
    ] {
        let shown = bale.run(["logs"].iter().chain(words).chain(&["log"]));
        assert_eq!((shown.code, shown.stdout.as_str()), (0, wanted), "{words:?}");
    }
    let stamped = bale.ok(["logs", "-t", "log"]);
    for line in stamped.lines() {
        let (time, _) = line.split_once(' ').unwrap();
        assert!(time.len() == 30 && time.ends_with('Z') && time.starts_with("20"), "{line}");
    }
    assert!(bale.fails(1, ["logs", "--tail", "x", "log"]).contains("--tail"));
    assert!(bale.fails(1, ["logs", "nosuch"]).contains("no such container"));
}

#[test]
fn not_a_byte_is_lost_however_much_is_written() {
    bale_testkit::require_root!();
    let bale = bale();
    let script = "seq 1 200000; head -c 100000 /dev/zero | tr '\\0' x; echo; echo end";
    let outcome = bale.run(["run", "--net", "none", "--name", "big", "busybox", "sh", "-c", script]);
    let wanted: String =
        (1..=200_000).map(|n| format!("{n}\n")).chain(["x".repeat(100_000), "\nend\n".to_owned()]).collect();
    assert!(
        outcome.stdout == wanted,
        "the foreground saw {} bytes of {}",
        outcome.stdout.len(),
        wanted.len()
    );
    assert!(bale.ok(["logs", "big"]) == wanted, "the log differs");
    assert_eq!(bale.ok(["logs", "--tail", "2", "big"]).len(), 100_001 + 4);
}

#[test]
fn a_follower_sees_everything_and_ends_with_the_container() {
    bale_testkit::require_root!();
    let bale = bale();
    let script = "echo first; read x; echo $x; exit 0";
    bale.ok(["run", "-d", "-i", "--net", "none", "--name", "fol", "busybox", "sh", "-c", script]);
    let follower = bale.command(["logs", "-f", "fol"]).stdout(Stdio::piped()).spawn().unwrap();
    bale.run_with_input(["attach", "fol"], b"second\n");
    let output = follower.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "first\nsecond\n");
    assert!(output.status.success());
    assert_eq!(bale.ok(["logs", "-f", "fol"]), "first\nsecond\n", "of one that has ended");
}

#[test]
fn a_client_that_does_not_read_holds_nothing_back() {
    bale_testkit::require_root!();
    let bale = bale();
    let script = "read x; seq 1 300000; echo done > /end; exit 0";
    bale.ok(["run", "-d", "-i", "--net", "none", "--name", "slow", "busybox", "sh", "-c", script]);
    // Its pipe is full after 64 KiB, and nobody reads it before the container has ended.
    let slow = bale.command(["logs", "-f", "slow"]).stdout(Stdio::piped()).spawn().unwrap();
    bale.run_with_input(["attach", "--sig-proxy=false", "slow"], b"go\n");
    assert_eq!(bale.ok(["wait", "slow"]), "0\n");
    let output = slow.wait_with_output().unwrap();
    let wanted: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    assert!(output.stdout == wanted.as_bytes(), "{} bytes of {}", output.stdout.len(), wanted.len());
}
