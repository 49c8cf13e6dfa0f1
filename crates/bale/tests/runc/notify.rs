//! What systemd hands to a service and hears from it: sockets that it listens on, and that it is ready.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Stdio;

use bale_testkit::require_root;
use serde_json::{Value, json};

use crate::stage::{Ran, Stage};

const INSIDE: &str = "BALE_TEST_INSIDE";

/// Not a test: what runs in the container, which is this very program. It says that it is ready.
#[test]
fn inside() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let path = std::env::var_os("NOTIFY_SOCKET").expect("NOTIFY_SOCKET");
    let socket = UnixDatagram::unbound().expect("socket");
    // Only that it is ready is passed on, however it is said.
    socket.send_to(b"STATUS=starting\nMAINPID=1", &path).expect("send");
    socket.send_to(b"STATUS=running\nREADY=1\nMAINPID=1", &path).expect("send");
    // runc looks at the first word of a datagram alone.
    socket.send_to(b"READY=1", &path).expect("send");
    std::thread::sleep(std::time::Duration::from_secs(1000));
}

struct Host {
    stage: Stage,
    socket: UnixDatagram,
    path: PathBuf,
}

impl Host {
    fn new() -> Self {
        let stage = Stage::new();
        std::fs::copy(std::env::current_exe().expect("this program"), stage.scratch.join("rootfs/inside"))
            .expect("copy");
        let path = stage.scratch.join("notify.sock");
        let socket = UnixDatagram::bind(&path).expect("bind");
        socket.set_read_timeout(Some(std::time::Duration::from_secs(30))).expect("timeout");
        Self { stage, socket, path }
    }

    /// Receives what systemd would; the barrier's pipe is closed at once, as systemd does.
    fn hears(&self) -> Vec<String> {
        let mut said = Vec::new();
        while said.last().is_none_or(|last: &String| !last.starts_with("BARRIER")) {
            let mut bytes = [0_u8; 4096];
            let (length, _pipe) = bale_sys::socket::receive(&self.socket, &mut bytes).expect("a message");
            said.push(String::from_utf8_lossy(&bytes[..length]).trim().to_owned());
        }
        said
    }
}

fn says_ready(c: &mut Value) {
    c["process"]["args"] = json!(["/inside", "--exact", "notify::inside", "--nocapture"]);
    c["process"]["env"].as_array_mut().expect("env").push(json!(format!("{INSIDE}=1")));
}

#[test]
fn a_container_tells_systemd_that_it_is_ready() {
    require_root!();
    let host = Host::new();
    let stage = &host.stage;
    let id = Stage::id();
    let bundle = stage.bundle(&id, "", says_ready);
    let bundle = bundle.to_str().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = stage.command(arguments);
        command.env("NOTIFY_SOCKET", &host.path).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    // Detached: the container's init is what systemd is to watch.
    let mut child = run(&["run", "-d", "--bundle", bundle, &id]).spawn().unwrap();
    let said = host.hears();
    assert!(child.wait().unwrap().success());
    let pid = stage.state(&id)["pid"].clone();
    assert_eq!(said, ["READY=1".to_owned(), format!("MAINPID={pid}"), "BARRIER=1".to_owned()]);
    stage.ok(["delete", "-f", &id]);
    // Created, then started: whoever starts it passes it on.
    assert!(run(&["create", "--bundle", bundle, &id]).status().unwrap().success());
    let mut child = run(&["start", &id]).spawn().unwrap();
    let said = host.hears();
    assert!(child.wait().unwrap().success());
    assert_eq!(said[1], format!("MAINPID={}", stage.state(&id)["pid"]));
    stage.ok(["delete", "-f", &id]);
    if stage.is_bale() {
        // In the foreground: the one who waits for it (runc tells of a process that systemd cannot see).
        let mut child = run(&["run", "--bundle", bundle, &id]).spawn().unwrap();
        assert_eq!(host.hears()[1], format!("MAINPID={}", child.id()));
        stage.ok(["kill", &id, "KILL"]);
        child.wait().unwrap();
    } else {
        stage.runtime(["delete", "-f", &id]);
    }
    stage.assert_clean();
}

/// Who says nothing and ends, holds nobody up; who is not asked has no socket.
#[test]
fn a_container_that_says_nothing_is_waited_for_until_it_ends() {
    require_root!();
    let host = Host::new();
    let stage = &host.stage;
    if !stage.is_bale() {
        // runc waits for ever: the ended init is its own zombie, and so there.
        return;
    }
    let id = Stage::id();
    let bundle = stage.bundle(&id, "ls -d /run/notify/notify.sock; echo $NOTIFY_SOCKET", |_| {});
    let arguments = ["run", "-d", "--bundle", bundle.to_str().unwrap(), &id];
    let output = stage.command(arguments).env("NOTIFY_SOCKET", &host.path).output().unwrap();
    Ran::of(&output).prints("/run/notify/notify.sock\n/run/notify/notify.sock");
    stage.wait_stopped(&id);
    stage.ok(["delete", &id]);
    stage.run("ls -d /run/notify/notify.sock 2>/dev/null; echo $NOTIFY_SOCKET", |_| {}).prints("");
    stage.assert_clean();
}

#[test]
fn sockets_of_systemd_are_handed_on() {
    require_root!();
    let stage = Stage::new();
    let script = "echo $LISTEN_FDS $LISTEN_PID; cat <&3; ls /proc/self/fd | wc -l";
    std::fs::write(stage.scratch.join("given"), "given\n").unwrap();
    let given = stage.scratch.join("given");
    for (pid, expected) in [("$$", "1 1\ngiven\n5"), ("1", "")] {
        let id = Stage::id();
        let bundle = stage.bundle(&id, script, |_| {});
        let command = stage.command(["run", "-b", bundle.to_str().unwrap(), &id]);
        let words: Vec<String> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|w| bale_testkit::command::quoted(&w.to_string_lossy()))
            .collect();
        let line = format!(
            "exec 3< {}; export LISTEN_FDS=1 LISTEN_PID={pid}; exec {}",
            given.display(),
            words.join(" ")
        );
        let output =
            std::process::Command::new("sh").args(["-c", &line]).stdin(Stdio::null()).output().unwrap();
        let ran = Ran::of(&output);
        if expected.is_empty() {
            // Meant for another process: nothing is handed on.
            assert!(!ran.out.contains("given"), "{ran:#?}");
        } else {
            ran.prints(expected);
        }
    }
    stage.assert_clean();
}
