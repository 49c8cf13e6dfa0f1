//! Hooks that init runs, and what every hook needs.

use std::collections::BTreeMap;

use bale_fault::{Fault, Kind, Result};
use bale_spec::runtime::{Hook, State, Status};
use bale_sys::process::Argv;

use super::op::{InnerHook, Op, Point};
use super::{Builder, c_string, invalid, process};

impl Builder<'_> {
    pub(super) fn hooks_before_pivot(&mut self) -> Result<()> {
        let hooks = self.config.hooks.as_ref();
        let outer = hooks.is_some_and(|h| !h.prestart.is_empty() || !h.create_runtime.is_empty());
        if outer || !self.linux.net_devices.is_empty() {
            self.ops.push(Op::Sync(Point::RuntimeHooks));
        }
        let Some(hooks) = hooks else { return Ok(()) };
        if !hooks.create_container.is_empty() && self.late_pids.is_some() && self.joins_first() {
            // Init's children are in that pid namespace already, and such a hook still has the host's files.
            let words = "config.json: hooks.createContainer: not where a pid namespace is joined and a user namespace made";
            let hint = "use createRuntime or startContainer, or join the user namespace of that pid namespace as well";
            return Err(Fault::new(Kind::Unsupported, words).hint(hint));
        }
        for (index, hook) in hooks.create_container.iter().enumerate() {
            let path = format!("hooks.createContainer[{index}]");
            let hook = self.inner_hook(&path, hook, Status::Creating)?;
            self.ops.push(Op::Hook(Box::new(hook)));
        }
        Ok(())
    }

    pub(super) fn inner_hook(&self, path: &str, hook: &Hook, status: Status) -> Result<InnerHook> {
        check_hook(path, hook)?;
        let bundle = self.choices.bundle.to_string_lossy().into_owned();
        let text = state_text(self.choices.id, &bundle, status, &self.config.annotations);
        let (before, after) = text.split_once("\"pid\":0").unwrap_or((&text, ""));
        let nul = |_| invalid(path, "holds a NUL byte");
        let argv = if hook.args.is_empty() { vec![hook.path.clone()] } else { hook.args.clone() };
        let own = !hook.env.is_empty() || status == Status::Creating;
        let env = if own {
            hook.env.clone()
        } else {
            process::environment(self.process, &self.facts.home, self.facts.listen_fds)?
        };
        Ok(InnerHook {
            path: c_string(path, hook.path.as_str())?,
            argv: Argv::new(argv).map_err(nul)?,
            env: Argv::new(&env).map_err(nul)?,
            place: path.to_owned(),
            state: [format!("{before}\"pid\":").into_bytes(), after.as_bytes().to_vec()],
            timeout_ms: timeout_ms(path, hook)?,
        })
    }
}

/// Checks what every hook needs.
pub(crate) fn check_hook(path: &str, hook: &Hook) -> Result<()> {
    if !hook.path.starts_with('/') {
        return Err(invalid(&format!("{path}.path"), &format!("{:?} is not an absolute path", hook.path)));
    }
    timeout_ms(path, hook).map(|_| ())
}

/// Returns a hook's timeout.
pub(crate) fn timeout_ms(path: &str, hook: &Hook) -> Result<Option<u32>> {
    let Some(seconds) = hook.timeout else { return Ok(None) };
    let bad = || invalid(&format!("{path}.timeout"), &format!("{seconds} is not positive"));
    let seconds = u32::try_from(seconds).ok().filter(|s| *s > 0).ok_or_else(bad)?;
    Ok(Some(seconds.saturating_mul(1000)))
}

/// Writes the state document that hooks read, with pid 0.
fn state_text(id: &str, bundle: &str, status: Status, annotations: &BTreeMap<String, String>) -> String {
    let state = State {
        oci_version: bale_spec::runtime::SPEC_VERSION.to_owned(),
        id: id.to_owned(),
        pid: 0,
        status,
        bundle: bundle.to_owned(),
        rootfs: String::new(),
        created: String::new(),
        annotations: annotations.clone(),
        owner: String::new(),
    };
    // Plain data with string keys: it cannot fail.
    serde_json::to_string(&state).unwrap_or_default()
}
