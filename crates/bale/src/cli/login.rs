//! `bale login`.

use crate::exit::ExitCode;
use std::io::{BufRead, IsTerminal, Read, Write};

use bale_engine::{DEFAULT_REGISTRY, Engine, Place};
use bale_fault::{Context as _, Fault, Kind, Result};
use bale_sys::error::Call;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::Context;
use super::pull::RegistryArgs;
use crate::output;

/// The longest password that is read, in bytes.
const LIMIT_BYTES: u64 = 64 << 10;

/// Arguments of `bale login`.
#[derive(clap::Args)]
pub struct Args {
    /// Registry
    #[arg(value_name = "REGISTRY", default_value = DEFAULT_REGISTRY)]
    registry: String,
    /// User name
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Password; others on this machine can see it, so prefer --password-stdin
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
    #[command(flatten)]
    tls: RegistryArgs,
}

/// Stores a registry's credentials.
pub fn run(args: Args, _context: &Context) -> Result<ExitCode> {
    let username = args.username.clone().map_or_else(|| ask("Username: ", false), Ok)?;
    let password = match &args.password {
        Some(password) => {
            warn("--password can be seen by others on this machine; use --password-stdin");
            password.clone()
        }
        None if args.password_stdin => read_all()?,
        None => ask("Password: ", true)?,
    };
    if username.is_empty() || password.is_empty() {
        return Err(Fault::new(Kind::InvalidInput, "user name and password must not be empty"));
    }
    match Engine::login(&args.registry, &username, &password, args.tls.settings(&args.registry))? {
        Place::File(path) => warn(&format!("the password is stored unencrypted in {}", path.display())),
        Place::Helper(_) => {}
    }
    output::write("Login Succeeded\n")?;
    Ok(ExitCode::SUCCESS)
}

fn warn(words: &str) {
    // A warning that nobody can read is no reason to stop.
    let _ = writeln!(std::io::stderr(), "bale: {}: {words}", output::Paint::stderr().warn("warning"));
}

fn read_all() -> Result<String> {
    let mut text = String::new();
    std::io::stdin().lock().take(LIMIT_BYTES).read_to_string(&mut text).within(|| "read the password")?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn ask(prompt: &str, secret: bool) -> Result<String> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        let words = "cannot ask for user name and password without a terminal";
        return Err(Fault::new(Kind::InvalidInput, words).hint("use --username NAME --password-stdin"));
    }
    write!(std::io::stderr(), "{prompt}").within(|| "write to standard error")?;
    let echo = secret.then(Silence::new).transpose()?;
    let mut line = String::new();
    stdin.lock().take(LIMIT_BYTES).read_line(&mut line).within(|| "read from the terminal")?;
    if echo.is_some() {
        // The user's Enter was not shown either.
        let _ = writeln!(std::io::stderr());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// A terminal that does not show what is typed, until dropped.
struct Silence(rustix::termios::Termios);

impl Silence {
    fn new() -> Result<Self> {
        let before = tcgetattr(std::io::stdin()).call(|| "tcgetattr(0)")?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &silent).call(|| "tcsetattr(0, -echo)")?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that went away.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
    }
}
