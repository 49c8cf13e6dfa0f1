//! Programs that keep credentials: `docker-credential-<name> get|store|erase`.

use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bale_fault::{Context, Fault, Kind, Result};
use serde_json::{Value, json};

use super::Credential;

/// The most that is read from a helper, in bytes.
const OUTPUT_LIMIT_BYTES: u64 = 1 << 20;
/// What helpers print when they have nothing (docker-credential-helpers).
const NOT_FOUND: &str = "credentials not found";

/// Asks the helper for the credential of `server`.
pub(super) fn get(name: &str, server: &str, patience: Duration) -> Result<Option<Credential>> {
    let output = run(name, "get", server.as_bytes(), patience)?;
    if !output.is_success {
        if output.text.contains(NOT_FOUND) {
            return Ok(None);
        }
        return Err(failed(name, "get", &output.text));
    }
    // Not parsed into a shape: the error would show the secret.
    let value: Value =
        serde_json::from_str(&output.text).map_err(|_| failed(name, "get", "the answer is not JSON"))?;
    let field = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    match (field("Username"), field("Secret")) {
        (Some(username), Some(secret)) if username == "<token>" => Ok(Some(Credential::Identity(secret))),
        (Some(username), Some(password)) if !username.is_empty() => {
            Ok(Some(Credential::Basic { username, password }))
        }
        _ => Ok(None),
    }
}

/// Gives the helper a credential to keep.
pub(super) fn store(name: &str, server: &str, credential: &Credential, patience: Duration) -> Result<()> {
    let (username, secret) = match credential {
        Credential::Basic { username, password } => (username.as_str(), password.as_str()),
        Credential::Identity(token) => ("<token>", token.as_str()),
        Credential::Token(_) => {
            return Err(Fault::new(
                Kind::Unsupported,
                format!("docker-credential-{name} cannot keep a registry token"),
            ));
        }
    };
    let document = json!({"ServerURL": server, "Username": username, "Secret": secret}).to_string();
    let output = run(name, "store", document.as_bytes(), patience)?;
    if output.is_success { Ok(()) } else { Err(failed(name, "store", &output.text)) }
}

/// Makes the helper forget.
pub(super) fn erase(name: &str, server: &str, patience: Duration) -> Result<()> {
    let output = run(name, "erase", server.as_bytes(), patience)?;
    if output.is_success || output.text.contains(NOT_FOUND) {
        Ok(())
    } else {
        Err(failed(name, "erase", &output.text))
    }
}

struct Output {
    is_success: bool,
    text: String,
}

fn failed(name: &str, action: &str, words: &str) -> Fault {
    Fault::new(
        Kind::Unavailable,
        format!("docker-credential-{name} {action}: {}", crate::text::escape(words)),
    )
}

fn run(name: &str, action: &str, input: &[u8], patience: Duration) -> Result<Output> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || !name.chars().all(is_word) {
        let shown = crate::text::escape(name);
        return Err(Fault::new(
            Kind::InvalidInput,
            format!("{shown:?} cannot be the name of a credential helper"),
        ));
    }
    let program = format!("docker-credential-{name}");
    let mut command = Command::new(&program);
    command.arg(action).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let fault = Fault::new(Kind::ProgramNotFound, format!("{program}: no such program in PATH"));
            return Err(fault.hint(format!("install {program}, or remove it from the file that names it")));
        }
        Err(error) => return Err(error).within(|| format!("start {program}")),
    };
    let output = converse(&mut child, input, patience);
    if output.is_err() {
        let _ = child.kill();
    }
    let _ = child.wait();
    output.within(|| format!("{program} {action}"))
}

/// Writes the question, reads the answer and waits for the end, all within `patience`.
fn converse(child: &mut Child, input: &[u8], patience: Duration) -> Result<Output> {
    let deadline = Instant::now() + patience;
    let late = || Fault::new(Kind::Unavailable, format!("no answer within {} s", patience.as_secs_f32()));
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(Fault::new(Kind::Internal, "a helper without pipes"));
    };
    let (done, answer) = mpsc::channel();
    let input = input.to_vec();
    // Both on a thread: a helper that neither reads nor writes must not hold us. It ends with the pipes.
    std::thread::spawn(move || {
        // A helper that needs no question may be gone already.
        let _ = stdin.write_all(&input);
        drop(stdin);
        let mut bytes = Vec::new();
        let read = stdout.take(OUTPUT_LIMIT_BYTES).read_to_end(&mut bytes);
        let _ = done.send(read.map(|_| bytes));
    });
    let bytes = answer.recv_timeout(patience).map_err(|_| late())?.within(|| "read its answer")?;
    // The pipe is closed, so the end is near; there is no wait with a deadline in the standard library.
    loop {
        match child.try_wait().within(|| "wait for it")? {
            Some(status) => {
                return Ok(Output {
                    is_success: status.success(),
                    text: String::from_utf8_lossy(&bytes).into_owned(),
                });
            }
            None if Instant::now() > deadline => return Err(late()),
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}
