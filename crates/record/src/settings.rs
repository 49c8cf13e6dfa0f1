//! What the engine tells the supervisor on its command line.

use std::ffi::OsString;
use std::path::PathBuf;

use bale_fault::{Fault, Kind, Result};

/// Standard input of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// `/dev/null`.
    Null,
    /// A pipe that ends when the client that started the container leaves (`run -i`).
    Once,
    /// A pipe that stays open (`run -d -i`).
    Open,
}

/// What the engine asks of a supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Directory of the container.
    pub dir: PathBuf,
    /// Gives the container a terminal.
    pub tty: bool,
    /// Standard input.
    pub input: Input,
    /// Removes the container after its end.
    pub remove: bool,
}

impl Settings {
    /// Writes the arguments of `bale @supervise`.
    #[must_use]
    pub fn to_arguments(&self) -> Vec<OsString> {
        let mut arguments = vec!["--dir".into(), self.dir.clone().into_os_string()];
        let input = match self.input {
            Input::Null => None,
            Input::Once => Some("--input-once"),
            Input::Open => Some("--input-open"),
        };
        let flags = [self.tty.then_some("--tty"), input, self.remove.then_some("--remove")];
        arguments.extend(flags.into_iter().flatten().map(Into::into));
        arguments
    }

    /// Reads the arguments of `bale @supervise`.
    ///
    /// # Errors
    /// `InvalidInput` for an argument that is not known.
    pub fn parse(arguments: &[OsString]) -> Result<Self> {
        let mut settings = Self { dir: PathBuf::new(), tty: false, input: Input::Null, remove: false };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.to_str() {
                Some("--dir") => settings.dir = rest.next().cloned().unwrap_or_default().into(),
                Some("--tty") => settings.tty = true,
                Some("--input-once") => settings.input = Input::Once,
                Some("--input-open") => settings.input = Input::Open,
                Some("--remove") => settings.remove = true,
                _ => {
                    return Err(Fault::new(
                        Kind::InvalidInput,
                        format!("@supervise: unknown argument {argument:?}"),
                    ));
                }
            }
        }
        if !settings.dir.is_absolute() {
            return Err(Fault::new(Kind::InvalidInput, "@supervise: --dir must be an absolute path"));
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_back() {
        for (tty, input, remove) in
            [(false, Input::Null, false), (true, Input::Once, true), (false, Input::Open, true)]
        {
            let settings = Settings { dir: "/c/x".into(), tty, input, remove };
            assert_eq!(Settings::parse(&settings.to_arguments()).unwrap(), settings);
        }
        assert!(
            Settings::parse(&["--dir".into(), "x".into()]).is_err()
                && Settings::parse(&["--what".into()]).is_err()
        );
    }
}
