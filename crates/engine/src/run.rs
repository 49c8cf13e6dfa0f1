//! `run`: make a container and start it.

use bale_fault::{Kind, Result};

use crate::create::{CreateOptions, Created, Source};
use crate::start::{Launch, Mode, Ran, launch};
use crate::{Engine, Progress, RemoveOptions};

impl Engine {
    /// Makes a container and starts it. `made` hears of the container before it runs.
    ///
    /// # Errors
    /// As [`Engine::create`] and [`Engine::start`]. A container whose program could not be run stays, unless it is to
    /// be removed at its end.
    pub fn run(
        &self,
        options: &CreateOptions,
        mode: Mode,
        progress: &mut dyn Progress,
        made: &mut dyn FnMut(&Created) -> Result<()>,
    ) -> Result<Ran> {
        if let Mode::Attached { stdin, .. } = mode {
            crate::attach::check_terminal(stdin, options.run.tty)?;
        }
        let created = self.draft(options, progress)?;
        let heard = made(&created);
        let container = created.container;
        let ran = heard.map_err(Launch::NotSpawned).and_then(|()| launch(&container, mode));
        ran.map_err(|failed| {
            if let Launch::NotSpawned(_) = &failed {
                // Nobody else knows of it. The failure is the one to tell; what is left shows up in `ps -a`.
                let _ = self.remove_dir(container.dir, RemoveOptions { force: true, volumes: true });
            }
            let fault = failed.into_fault();
            match &options.source {
                Source::Bundle(path)
                    if fault.kind() == Kind::InvalidInput && fault.innermost_hint().is_none() =>
                {
                    fault.hint(bale_bundle::check_hint(path))
                }
                _ => fault,
            }
        })
    }
}
