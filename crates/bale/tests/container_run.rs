//! `run`: effects, output and exit codes. What docker 28.5 does with the same words was written down from its runs.
//!
//! Needs root, and busybox from Debian's package (made once by the testkit).

use std::path::Path;

use bale_testkit::Bale;
use bale_testkit::machine::{Scope, Snapshot};

const NO_NETWORK: &str =
    "bale: the container has no network but loopback; for the host's network, give --net host\n";

fn bale() -> Bale {
    let bale = bale_testkit::bale!();
    bale.load_busybox();
    bale
}

/// Splits a line as a shell does, with single quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

#[test]
fn output_and_exit_codes_are_the_programs() {
    bale_testkit::require_root!();
    let bale = bale();
    for (line, code, stdout, stderr) in [
        ("run --rm busybox echo hello", 0, "hello\n", ""),
        ("run --rm busybox printf hello", 0, "hello", ""),
        ("run --rm busybox sh -c 'echo out; echo err >&2; exit 7'", 7, "out\n", "err\n"),
        ("run --rm busybox true --help", 0, "", ""),
        ("run --rm busybox nope", 127, "", "bale: exec: \"nope\": executable file not found in $PATH\n"),
        ("run --rm busybox /etc", 126, "", "bale: exec: \"/etc\": is a directory\n"),
        ("run --rm busybox cat", 0, "", ""),
        ("run --rm --entrypoint echo busybox a b", 0, "a b\n", ""),
        ("run --rm -e A=1 -e B=2 -e A=3 busybox sh -c 'echo $A$B'", 0, "32\n", ""),
        ("run --rm -w /new/dir busybox pwd", 0, "/new/dir\n", ""),
        ("run --rm -u 1000:1000 busybox id -u", 0, "1000\n", ""),
        ("run --rm --hostname box busybox hostname", 0, "box\n", ""),
        ("run --rm -h box busybox cat /etc/hostname", 0, "box\n", ""),
        ("run --rm --read-only busybox touch /x", 1, "", "touch: /x: Read-only file system\n"),
        ("run --rm --tmpfs /t busybox sh -c 'grep -c \" /t tmpfs\" /proc/mounts'", 0, "1\n", ""),
        ("run --rm --ulimit nofile=77 busybox sh -c 'ulimit -n'", 0, "77\n", ""),
        ("run --rm busybox sh -c 'ls /sys/class/net'", 0, "lo\n", ""),
        ("run --rm busybox sh -c 'grep CapEff /proc/self/status'", 0, "CapEff:\t00000000a80425fb\n", ""),
        (
            "run --rm --cap-drop ALL busybox sh -c 'grep CapEff /proc/self/status'",
            0,
            "CapEff:\t0000000000000000\n",
            "",
        ),
        ("run --rm busybox sh -c 'grep Seccomp: /proc/self/status'", 0, "Seccomp:\t2\n", ""),
        (
            "run --rm --security-opt seccomp=unconfined busybox sh -c 'grep Seccomp: /proc/self/status'",
            0,
            "Seccomp:\t0\n",
            "",
        ),
    ] {
        let outcome = bale.run(words(line));
        let said = outcome.stderr.replace(NO_NETWORK, "");
        assert_eq!((outcome.code, outcome.stdout.as_str(), said.as_str()), (code, stdout, stderr), "{line}");
    }
    assert_eq!(bale.ok(["ps", "-aq"]), "", "containers with --rm are gone");
}

#[test]
fn the_line_about_the_network_names_the_flag_and_can_be_answered() {
    bale_testkit::require_root!();
    let bale = bale();
    for (flags, said) in [("", NO_NETWORK), ("--net none", ""), ("--network=none", ""), ("--net host", "")] {
        let outcome = bale.run(words(&format!("run --rm {flags} busybox true")));
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, said), "{flags}");
    }
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    let host = bale.ok(words("run --rm --net host busybox readlink /proc/self/ns/net"));
    assert_eq!(Path::new(host.trim()), own);
}

#[test]
fn standard_input_reaches_the_program_and_ends() {
    bale_testkit::require_root!();
    let bale = bale();
    let input = vec![b'x'; 300_000];
    let outcome = bale.run_with_input(words("run -i --rm busybox wc -c"), &input);
    assert_eq!((outcome.code, outcome.stdout.trim()), (0, "300000"), "{outcome:?}");
    let lines: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    let outcome = bale.run_with_input(words("run -i --rm busybox cat"), lines.as_bytes());
    assert_eq!(outcome.stdout, lines);
    let refused = bale.run_with_input(words("run -it --rm busybox cat"), b"x");
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("is not a terminal"), "{refused:?}");
}

#[test]
fn a_terminal_is_one() {
    bale_testkit::require_root!();
    let bale = bale();
    let said = bale.ok(words("run -t --rm busybox sh -c 'test -t 0 && test -t 1 && test -t 2 && echo yes'"));
    assert_eq!(said, "yes\r\n");
    assert!(bale.ok(words("run -t --rm busybox tty")).starts_with("/dev/"));
}

#[test]
fn mistakes_are_told_with_the_next_step_and_leave_nothing() {
    bale_testkit::require_root!();
    let bale = bale();
    bale.ok(words("create --name taken busybox"));
    let scope = Scope::below(&bale.root());
    let before = Snapshot::take(&scope);
    for (line, said) in [
        ("run --nmae x busybox", "--name"),
        ("run --name taken busybox", "the name \"taken\" is in use"),
        ("run --name b/d busybox", "invalid container name"),
        ("run --pull never nosuchimage", "nosuchimage"),
        ("run Busybox", "lower case"),
        ("run ./nosuchbundle", "no such file or directory"),
        ("run -p 80:80 busybox", "--net host"),
        ("run --memory lots busybox", "lots"),
        ("run -u nobody2 busybox true", "nobody2"),
        ("run -v /nosuch busybox:x busybox", ""),
        ("run --device /dev/nosuch busybox true", "/dev/nosuch"),
        ("run --rm --mount type=bind,source=/nosuch,target=/x busybox true", "/nosuch"),
    ] {
        let outcome = bale.run(words(line));
        assert_eq!(outcome.code, 125, "{outcome:#?}");
        assert!(outcome.stderr.contains(said), "{outcome:#?}");
    }
    before.assert_same(&scope);
    assert_eq!(bale.ok(["ps", "-a", "--format", "{{.Names}}"]), "taken\n");
}

#[test]
fn volumes_are_filled_shared_and_removed() {
    bale_testkit::require_root!();
    let bale = bale();
    bale.ok(words("run --rm -v data:/etc busybox sh -c 'echo changed > /etc/new'"));
    assert_eq!(bale.ok(words("run --rm -v data:/x busybox cat /x/new")), "changed\n");
    assert_eq!(bale.ok(["volume", "ls", "-q"]), "data\n");
    let used = bale.ok(words("create -v data:/x busybox"));
    assert!(bale.fails(1, ["volume", "rm", "data"]).contains("in use"));
    bale.ok(["rm", used.trim()]);
    bale.ok(["volume", "rm", "data"]);
    bale.ok(words("run --rm -v /anonymous busybox touch /anonymous/x"));
    assert_eq!(bale.ok(["volume", "ls", "-q"]), "", "--rm takes anonymous volumes along");
    let host = bale.dir().join("host");
    std::fs::create_dir(&host).unwrap();
    let mount = format!("{}:/h", host.display());
    bale.ok(["run", "--rm", "-v", &mount, "busybox", "sh", "-c", "echo hi > /h/f"]);
    assert_eq!(std::fs::read_to_string(host.join("f")).unwrap(), "hi\n");
    let read_only = bale.run(["run", "--rm", "-v", &format!("{mount}:ro"), "busybox", "touch", "/h/f"]);
    assert_eq!(read_only.code, 1, "{read_only:?}");
}

#[test]
fn a_cidfile_is_written_once() {
    bale_testkit::require_root!();
    let bale = bale();
    let file = bale.dir().join("cid");
    let line = format!("run -d --cidfile {} busybox sleep 100", file.display());
    let id = bale.ok(words(&line));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), id.trim());
    assert_eq!(bale.run(words(&line)).code, 125);
    bale.ok(["rm", "-f", id.trim()]);
}

#[test]
fn init_reaps_and_passes_signals_on() {
    bale_testkit::require_root!();
    let bale = bale();
    let said = bale.ok(words("run --rm --init busybox sh -c 'echo $$'"));
    assert_ne!(said, "1\n");
    bale.ok(words("run -d --init --name ini busybox sleep 100"));
    bale.ok(["stop", "ini"]);
    assert_eq!(bale.ok(["wait", "ini"]), "143\n");
    assert_eq!(bale.run(words("run --rm --init busybox nope")).code, 127);
    assert_eq!(bale.run(words("run --rm --init busybox sh -c 'exit 9'")).code, 9);
}

#[test]
fn nothing_is_left_of_a_container() {
    bale_testkit::require_root!();
    let bale = bale();
    bale.ok(words("run --rm busybox true"));
    let scope = Scope::below(&bale.root()).tree(&bale.root().join("containers"));
    let before = Snapshot::take(&scope);
    bale.ok(words("run --rm -m 64m --pids-limit 20 -v /v --tmpfs /t busybox true"));
    let id = bale.ok(words("run -d busybox sleep 100"));
    bale.ok(["rm", "-f", id.trim()]);
    assert_eq!(bale.run(words("run --rm busybox nope")).code, 127);
    before.assert_same(&scope);
}

#[test]
fn a_bundle_runs_where_it_is() {
    bale_testkit::require_root!();
    let bale = bale();
    // A name of hexadecimal digits could be the beginning of the image's id.
    let bundle = bale.dir().join("kept");
    bale.ok(["bundle", "busybox", bundle.to_str().unwrap()]);
    let outcome = bale.run(["run", "--rm", "./kept", "echo", "hello"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "hello\n"), "{outcome:?}");
    bale.ok(["run", "--rm", "./kept", "touch", "/touched"]);
    assert!(bundle.join("rootfs/touched").exists());
    assert!(bale.fails(125, ["run", "--rm", "--privileged", "./kept"]).contains("bale set"));
    assert!(bale.fails(125, ["run", "--rm", "kept"]).contains("./kept"));
}
