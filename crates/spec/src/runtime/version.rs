//! Since which version of the specification a property or value may stand in a config (runtime-spec's ChangeLog, and its
//! `specs-go/config.go` and `config-linux.md` at the tags).
//!
//! Runtimes compare: crun 1.8 refuses any version that is not 1.0 or 1.1, whatever the config uses. So what bale makes
//! says the lowest version that has all it uses, and runs wherever its features do.

use serde_json::Value;

use super::RuntimeConfig;
use crate::validate::Path;

/// What every 1.x runtime reads: the oldest version that bale writes.
const BASE: &str = "1.0.2";

/// What a value must be for its row to count.
enum Is {
    /// There at all.
    There,
    /// One of these words.
    Word(&'static [&'static str]),
    /// The number 0.
    Zero,
    /// A path that does not begin with a slash.
    Relative,
}

/// New in a version: where (`[]` is each element), and which value.
type Row = (&'static str, Is);

/// Lowest version first.
const ROWS: [(&str, &[Row]); 4] = [
    (
        "1.1.0",
        &[
            ("domainname", Is::There),
            ("process.scheduler", Is::There),
            ("process.ioPriority", Is::There),
            ("mounts.[].uidMappings", Is::There),
            ("mounts.[].gidMappings", Is::There),
            ("mounts.[].options.[]", Is::Word(RECURSIVE)),
            ("linux.namespaces.[].type", Is::Word(&["time"])),
            ("linux.timeOffsets", Is::There),
            ("linux.resources.unified", Is::There),
            ("linux.resources.cpu.burst", Is::There),
            ("linux.resources.cpu.idle", Is::There),
            ("linux.resources.memory.checkBeforeUpdate", Is::There),
            ("linux.seccomp.defaultErrnoRet", Is::There),
            ("linux.seccomp.listenerPath", Is::There),
            ("linux.seccomp.listenerMetadata", Is::There),
            ("linux.seccomp.defaultAction", Is::Word(ACTIONS)),
            ("linux.seccomp.architectures.[]", Is::Word(&["SCMP_ARCH_RISCV64"])),
            ("linux.seccomp.flags.[]", Is::Word(&["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])),
            ("linux.seccomp.syscalls.[].action", Is::Word(ACTIONS)),
            ("linux.seccomp.syscalls.[].errnoRet", Is::There),
        ],
    ),
    (
        "1.2.0",
        &[("mounts.[].destination", Is::Relative), ("mounts.[].options.[]", Is::Word(&["idmap", "ridmap"]))],
    ),
    (
        "1.2.1",
        &[
            ("process.execCPUAffinity", Is::There),
            (
                "linux.seccomp.architectures.[]",
                Is::Word(&["SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_M68K", "SCMP_ARCH_SH", "SCMP_ARCH_SHEB"]),
            ),
        ],
    ),
    (
        "1.3.0",
        &[
            ("linux.netDevices", Is::There),
            ("linux.memoryPolicy", Is::There),
            ("linux.intelRdt.schemata", Is::There),
            ("linux.intelRdt.enableMonitoring", Is::There),
            // Before, the specification did not say what 0 is; runtimes took it for "no limit".
            ("linux.resources.pids.limit", Is::Zero),
        ],
    ),
];

const ACTIONS: &[&str] = &["SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_NOTIFY"];

/// Mount attributes for the whole tree, mount_setattr(2); and what runc had before the list of options was written down.
const RECURSIVE: &[&str] = &[
    "ratime",
    "rdev",
    "rdiratime",
    "rexec",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "rrelatime",
    "rro",
    "rrw",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "tmpcopyup",
];

/// Something in a config that a version of the specification was the first to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Where it stands.
    pub path: Path,
    /// That version.
    pub since: &'static str,
}

impl RuntimeConfig {
    /// Returns the lowest version of the specification that has everything in this config.
    #[must_use]
    pub fn lowest_version(&self) -> &'static str {
        self.needs().last().map_or(BASE, |need| need.since)
    }

    /// Returns what is newer than 1.0.2 in this config, by version.
    #[must_use]
    pub fn needs(&self) -> Vec<Need> {
        // Plain data with string keys always becomes a value.
        let document = serde_json::to_value(self).unwrap_or_default();
        let mut needs = Vec::new();
        for (since, rows) in ROWS {
            for (place, is) in rows {
                let steps: Vec<&str> = place.split('.').collect();
                collect(&document, &steps, is, &Path::default(), &mut |path| {
                    needs.push(Need { path, since });
                });
            }
        }
        needs
    }
}

fn collect(value: &Value, steps: &[&str], is: &Is, path: &Path, found: &mut impl FnMut(Path)) {
    match steps {
        [] if is.holds(value) => found(path.clone()),
        [] => {}
        ["[]", rest @ ..] => {
            for (index, element) in value.as_array().into_iter().flatten().enumerate() {
                collect(element, rest, is, &path.index(index), found);
            }
        }
        [key, rest @ ..] => {
            if let Some(inner) = value.get(key) {
                collect(inner, rest, is, &path.key(key), found);
            }
        }
    }
}

impl Is {
    fn holds(&self, value: &Value) -> bool {
        match self {
            Self::There => true,
            Self::Word(words) => value.as_str().is_some_and(|word| words.contains(&word)),
            Self::Zero => value.as_i64() == Some(0),
            Self::Relative => value.as_str().is_some_and(|path| !path.starts_with('/')),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validate::schema::{self, Shape};

    fn of(document: &Value) -> RuntimeConfig {
        RuntimeConfig::parse(document.to_string().as_bytes()).expect("a config")
    }

    #[test]
    fn the_lowest_version_is_that_of_the_newest_property() {
        let cases = [
            (json!({}), "1.0.2", ""),
            (
                json!({"linux": {"personality": {"domain": "LINUX"}, "seccomp": {"defaultAction": "SCMP_ACT_LOG",
                "flags": ["SECCOMP_FILTER_FLAG_LOG"], "architectures": ["SCMP_ARCH_X86_64"]}}}),
                "1.0.2",
                "",
            ),
            (json!({"domainname": "d"}), "1.1.0", "domainname"),
            (
                json!({"mounts": [{"destination": "/a"}, {"destination": "/b", "options": ["rbind", "rro"]}]}),
                "1.1.0",
                "mounts[1].options[1]",
            ),
            (json!({"linux": {"namespaces": [{"type": "time"}]}}), "1.1.0", "linux.namespaces[0].type"),
            (
                json!({"linux": {"resources": {"unified": {"memory.high": "1"}}}}),
                "1.1.0",
                "linux.resources.unified",
            ),
            (
                json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["a"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}}}),
                "1.1.0",
                "linux.seccomp.syscalls[0].errnoRet",
            ),
            (
                json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_KILL_PROCESS"}}}),
                "1.1.0",
                "linux.seccomp.defaultAction",
            ),
            (json!({"mounts": [{"destination": "data"}]}), "1.2.0", "mounts[0].destination"),
            (
                json!({"domainname": "d", "process": {"cwd": "/", "execCPUAffinity": {"initial": "0"}}}),
                "1.2.1",
                "domainname process.execCPUAffinity",
            ),
            (json!({"linux": {"netDevices": {"eth0": {}}}}), "1.3.0", "linux.netDevices"),
            (json!({"linux": {"resources": {"pids": {"limit": 0}}}}), "1.3.0", "linux.resources.pids.limit"),
            (json!({"linux": {"resources": {"pids": {"limit": -1}}}}), "1.0.2", ""),
        ];
        for (mut document, version, places) in cases {
            document["ociVersion"] = json!("1.0.0");
            let config = of(&document);
            let found: Vec<String> = config.needs().iter().map(|need| need.path.to_string()).collect();
            assert_eq!((config.lowest_version(), found.join(" ").as_str()), (version, places), "{document}");
        }
    }

    /// A row whose path is misspelt would never count.
    #[test]
    fn every_row_names_a_property_of_the_schema() {
        for (place, _) in ROWS.iter().flat_map(|(_, rows)| rows.iter()) {
            let at = place.split('.').try_fold(&schema::CONFIG, |shape, step| match shape {
                Shape::List(inner) if step == "[]" => Some(*inner),
                _ => Some(&shape.field(step)?.shape),
            });
            assert!(at.is_some(), "{place}");
        }
    }
}
