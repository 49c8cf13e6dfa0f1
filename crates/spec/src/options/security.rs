//! `--security-opt`, `--cap-add`, `--cap-drop`, and seccomp profiles as docker writes them.

use bale_fault::{Fault, Kind, Result};
use serde::Deserialize;

use super::{SeccompChoice, Security, Surroundings, number, wrong};
use crate::capability;
use crate::json;
use crate::runtime::{Seccomp, SeccompArg, SyscallRule};
use crate::suggest::did_you_mean;

const OPTIONS: [&str; 5] = ["no-new-privileges", "seccomp", "apparmor", "label", "systempaths"];
/// The largest profile that is read, in bytes.
const PROFILE_LIMIT_BYTES: usize = 4 << 20;

/// Reads the values of `--security-opt`. `capabilities` are those the container will have: a profile may ask for them.
///
/// # Errors
/// `InvalidInput`.
pub fn options(specs: &[String], capabilities: &[String], around: &dyn Surroundings) -> Result<Security> {
    let mut found = Security::default();
    for spec in specs {
        let (key, value) = spec.split_once(['=', ':']).map_or((spec.as_str(), None), |(k, v)| (k, Some(v)));
        let need = || {
            value
                .filter(|v| !v.is_empty())
                .ok_or_else(|| wrong("--security-opt", spec, format!("{key} needs a value")))
        };
        match key {
            "no-new-privileges" => {
                let on = value.map_or(Some(true), number::boolean);
                found.no_new_privileges =
                    on.ok_or_else(|| wrong("--security-opt", spec, "is true or false"))?;
            }
            "seccomp" => found.seccomp = seccomp(need()?, capabilities, around)?,
            "apparmor" => found.apparmor = Some(need()?.to_owned()),
            "label" => found.label.push(need()?.to_owned()),
            "systempaths" if value == Some("unconfined") => found.unmasked_paths = true,
            "systempaths" => return Err(wrong("--security-opt", spec, "systempaths can only be unconfined")),
            _ => {
                return Err(wrong(
                    "--security-opt",
                    spec,
                    format!("unknown option {key:?}{}", did_you_mean(key, OPTIONS)),
                ));
            }
        }
    }
    Ok(found)
}

fn seccomp(value: &str, capabilities: &[String], around: &dyn Surroundings) -> Result<SeccompChoice> {
    match value {
        "unconfined" => Ok(SeccompChoice::Unconfined),
        "builtin" => Ok(SeccompChoice::Default),
        path => {
            let within = || format!("--security-opt seccomp={path}");
            let text = around.read(path).map_err(|fault| fault.within(within()))?;
            let profile = profile(text.as_bytes(), capabilities);
            profile.map(|p| SeccompChoice::Profile(Box::new(p))).map_err(|fault| fault.within(within()))
        }
    }
}

/// A profile in docker's form, which is the OCI form and conditions; a profile in OCI form is one without any.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "json::null_default")]
    architectures: Vec<String>,
    #[serde(default, deserialize_with = "json::null_default")]
    arch_map: Vec<Architecture>,
    #[serde(default, deserialize_with = "json::null_default")]
    flags: Vec<String>,
    listener_path: Option<String>,
    listener_metadata: Option<String>,
    #[serde(default, deserialize_with = "json::null_default")]
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Architecture {
    architecture: String,
    #[serde(default, deserialize_with = "json::null_default")]
    sub_architectures: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default, deserialize_with = "json::null_default")]
    name: String,
    #[serde(default, deserialize_with = "json::null_default")]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "json::null_default")]
    args: Vec<SeccompArg>,
    #[serde(default, deserialize_with = "json::null_default")]
    includes: Conditions,
    #[serde(default, deserialize_with = "json::null_default")]
    excludes: Conditions,
}

/// When a rule is in force. `minKernel` is not read: bale's kernel floor (5.12) is above every version in use there.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Conditions {
    #[serde(deserialize_with = "json::null_default")]
    caps: Vec<String>,
    #[serde(deserialize_with = "json::null_default")]
    arches: Vec<String>,
    #[serde(rename = "minKernel", deserialize_with = "json::null_default")]
    min_kernel: String,
}

impl Rule {
    fn applies(&self, capabilities: &[String], arches: &[&str]) -> bool {
        let has = |cap: &String| capabilities.contains(cap);
        let here = |arch: &String| arches.contains(&arch.as_str());
        let (with, without) = (&self.includes, &self.excludes);
        with.caps.iter().all(has)
            && !without.caps.iter().any(has)
            && (with.arches.is_empty() || with.arches.iter().any(here))
            && !without.arches.iter().any(here)
            && without.min_kernel.is_empty()
    }
}

/// Reads a seccomp profile in docker's or OCI's form and resolves its conditions for this processor.
///
/// # Errors
/// `InvalidInput` with line and column.
pub fn profile(text: &[u8], capabilities: &[String]) -> Result<Seccomp> {
    let read: Result<Profile, _> = json::parse(text, PROFILE_LIMIT_BYTES);
    let profile =
        read.map_err(|error| Fault::new(Kind::InvalidInput, "read the seccomp profile").caused_by(error))?;
    // Words of Go and of libseccomp's, for this processor and those it runs beside.
    let (arches, native): (&[&str], &str) = match std::env::consts::ARCH {
        "x86_64" => (&["amd64", "x86", "x32"], "SCMP_ARCH_X86_64"),
        "aarch64" => (&["arm64", "arm"], "SCMP_ARCH_AARCH64"),
        other => (&[other], ""),
    };
    let mapped = profile.arch_map.iter().find(|a| a.architecture == native);
    let mapped = mapped
        .into_iter()
        .flat_map(|a| std::iter::once(&a.architecture).chain(&a.sub_architectures))
        .cloned();
    let rules =
        profile.syscalls.iter().filter(|rule| rule.applies(capabilities, arches)).map(|rule| SyscallRule {
            names: if rule.name.is_empty() { rule.names.clone() } else { vec![rule.name.clone()] },
            action: rule.action.clone(),
            errno_ret: rule.errno_ret,
            args: rule.args.clone(),
        });
    Ok(Seccomp {
        default_action: profile.default_action.clone(),
        default_errno_ret: profile.default_errno_ret,
        architectures: if profile.architectures.is_empty() {
            mapped.collect()
        } else {
            profile.architectures.clone()
        },
        flags: profile.flags.clone(),
        listener_path: profile.listener_path.clone(),
        listener_metadata: profile.listener_metadata.clone(),
        syscalls: rules.collect(),
    })
}

/// Reads the values of `--cap-add` or `--cap-drop`: names in any case, with or without `CAP_`, and `ALL`.
///
/// # Errors
/// `InvalidInput` with what was probably meant.
pub fn capabilities(flag: &str, words: &[String]) -> Result<Vec<String>> {
    let one = |word: &String| {
        if word.eq_ignore_ascii_case("all") || word.eq_ignore_ascii_case("cap_all") {
            return Ok("ALL".to_owned());
        }
        capability::find(word).map(str::to_owned).ok_or_else(|| {
            let near =
                capability::suggest(word).map(|n| format!("; did you mean {n:?}?")).unwrap_or_default();
            wrong(flag, word, format!("unknown capability{near}"))
        })
    };
    let each =
        words.iter().flat_map(|w| w.split(',').map(str::trim).filter(|w| !w.is_empty()).map(str::to_owned));
    each.map(|word| one(&word)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::flags::tests::Here;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn capability_names() {
        assert_eq!(
            capabilities("--cap-add", &strings(&["sys_admin", "CAP_NET_RAW", "all"])).unwrap(),
            ["CAP_SYS_ADMIN", "CAP_NET_RAW", "ALL"]
        );
        let fault = capabilities("--cap-add", &strings(&["NET_ADMN"])).unwrap_err();
        assert_eq!(
            fault.chain(),
            "--cap-add \"NET_ADMN\": unknown capability; did you mean \"CAP_NET_ADMIN\"?"
        );
    }

    #[test]
    fn security_options() {
        let read = |specs: &[&str]| options(&strings(specs), &[], &Here);
        assert!(read(&["no-new-privileges"]).unwrap().no_new_privileges);
        assert!(!read(&["no-new-privileges:false"]).unwrap().no_new_privileges);
        assert_eq!(read(&["seccomp=unconfined"]).unwrap().seccomp, SeccompChoice::Unconfined);
        assert_eq!(read(&["seccomp:builtin", "apparmor=p"]).unwrap().apparmor.as_deref(), Some("p"));
        assert!(read(&["systempaths=unconfined"]).unwrap().unmasked_paths);
        assert_eq!(read(&["nnp"]).unwrap_err().chain(), "--security-opt \"nnp\": unknown option \"nnp\"");
        let fault = read(&["secomp=unconfined"]).unwrap_err();
        assert_eq!(
            fault.chain(),
            "--security-opt \"secomp=unconfined\": unknown option \"secomp\"; did you mean \"seccomp\"?"
        );
        assert_eq!(
            read(&["seccomp=/nonexist"]).unwrap_err().chain(),
            "--security-opt seccomp=/nonexist: open /nonexist: no such file"
        );
    }

    #[test]
    fn a_profile_in_dockers_form_is_resolved() {
        let text = br#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,
            "archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]},{"architecture":"SCMP_ARCH_AARCH64"}],
            "syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":null,"comment":"","includes":{},"excludes":{}},
            {"name":"reboot","action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_BOOT"]}},
            {"names":["clone"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_SYS_ADMIN"],"arches":["s390"]}},
            {"names":["s390_x"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["s390x"]}},
            {"names":["ptrace"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}}]}"#;
        let names = |caps: &[&str]| -> Vec<String> {
            profile(text, &strings(caps)).unwrap().syscalls.into_iter().flat_map(|r| r.names).collect()
        };
        assert_eq!(names(&[]), ["read", "clone", "ptrace"]);
        assert_eq!(names(&["CAP_SYS_BOOT", "CAP_SYS_ADMIN"]), ["read", "reboot", "ptrace"]);
        assert!(profile(text, &[]).unwrap().architectures.len() <= 2);
        assert!(profile(b"{", &[]).unwrap_err().chain().contains("line 1"));
    }
}
