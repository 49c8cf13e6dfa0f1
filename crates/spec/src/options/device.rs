//! `--device`, `--device-cgroup-rule`, `--ulimit` and `--sysctl`.

use bale_fault::{Kind, Result};

use super::mount::clean;
use super::{DeviceRequest, number, wrong};
use crate::runtime::{DeviceRule, Rlimit};
use crate::suggest::did_you_mean;

/// Limits by docker's names, with the kernel's.
pub const RLIMITS: [(&str, &str); 16] = [
    ("as", "RLIMIT_AS"),
    ("core", "RLIMIT_CORE"),
    ("cpu", "RLIMIT_CPU"),
    ("data", "RLIMIT_DATA"),
    ("fsize", "RLIMIT_FSIZE"),
    ("locks", "RLIMIT_LOCKS"),
    ("memlock", "RLIMIT_MEMLOCK"),
    ("msgqueue", "RLIMIT_MSGQUEUE"),
    ("nice", "RLIMIT_NICE"),
    ("nofile", "RLIMIT_NOFILE"),
    ("nproc", "RLIMIT_NPROC"),
    ("rss", "RLIMIT_RSS"),
    ("rtprio", "RLIMIT_RTPRIO"),
    ("rttime", "RLIMIT_RTTIME"),
    ("sigpending", "RLIMIT_SIGPENDING"),
    ("stack", "RLIMIT_STACK"),
];

/// Kernel parameters that belong to a namespace: the others would change the host (as docker's list).
const SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Reads `--device HOST[:CONTAINER][:rwm]`.
///
/// # Errors
/// `InvalidInput`; `Unsupported` for a CDI name.
pub fn device(spec: &str) -> Result<DeviceRequest> {
    let flag = "--device";
    if !spec.starts_with('/') && spec.split_once('=').is_some_and(|(vendor, _)| vendor.contains('/')) {
        let fault = wrong(flag, spec, "names of the container device interface are not supported");
        return Err(fault.with_kind(Kind::Unsupported).hint("give the device's path"));
    }
    let parts: Vec<&str> = spec.split(':').collect();
    let (source, target, access) = match *parts.as_slice() {
        [source] => (source, source, "rwm"),
        [source, access] if is_access(access) => (source, source, access),
        [source, target] => (source, target, "rwm"),
        [source, target, access] => (source, target, access),
        _ => return Err(wrong(flag, spec, "too many colons").hint("the form is HOST[:CONTAINER][:rwm]")),
    };
    if !is_access(access) {
        return Err(wrong(flag, spec, format!("bad mode {access:?}")).hint("a mode is some of r, w and m"));
    }
    if !source.starts_with('/') || !target.starts_with('/') || spec.contains('\0') {
        return Err(wrong(flag, spec, "both paths must be absolute"));
    }
    Ok(DeviceRequest { source: clean(source), target: clean(target), access: access.to_owned() })
}

fn is_access(text: &str) -> bool {
    let once = |letter| text.matches(letter).count() == 1;
    (1..=3).contains(&text.len()) && text.chars().all(|c| "rwm".contains(c) && once(c))
}

/// Reads `--device-cgroup-rule`, such as `c 42:* rmw`.
///
/// # Errors
/// `InvalidInput`.
pub fn rule(spec: &str) -> Result<DeviceRule> {
    let fail = || {
        wrong("--device-cgroup-rule", spec, "is not TYPE MAJOR:MINOR ACCESS")
            .hint("a rule such as \"c 42:* rmw\"")
    };
    let mut words = spec.split(' ');
    let (Some(kind), Some(numbers), Some(access), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(fail());
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(fail)?;
    let number = |text: &str| match text {
        "*" => Some(None),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse::<u32>().ok().map(|n| Some(i64::from(n)))
        }
        _ => None,
    };
    if !["a", "b", "c"].contains(&kind) || !is_access(access) {
        return Err(fail());
    }
    let (major, minor) = (number(major).ok_or_else(fail)?, number(minor).ok_or_else(fail)?);
    Ok(DeviceRule { allow: true, kind: Some(kind.to_owned()), major, minor, access: Some(access.to_owned()) })
}

/// Reads `--ulimit NAME=SOFT[:HARD]`; -1 is unlimited.
///
/// # Errors
/// `InvalidInput`.
pub fn ulimit(spec: &str) -> Result<Rlimit> {
    let flag = "--ulimit";
    let hint = "a limit such as nofile=1024:2048";
    let (name, values) =
        spec.split_once('=').ok_or_else(|| wrong(flag, spec, "is not NAME=SOFT[:HARD]").hint(hint))?;
    let found = RLIMITS.iter().find(|(short, _)| *short == name.to_ascii_lowercase());
    let (_, kind) = found.ok_or_else(|| {
        let near = did_you_mean(name, RLIMITS.iter().map(|(short, _)| *short));
        wrong(flag, spec, format!("unknown limit {name:?}{near}"))
    })?;
    let limit = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        text if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
            text.parse::<u64>().map_err(|_| wrong(flag, spec, format!("{text} is too large")))
        }
        _ => Err(wrong(flag, spec, format!("{text:?} is not a number")).hint(hint)),
    };
    let mut parts = values.split(':');
    let soft = limit(parts.next().unwrap_or_default())?;
    let hard = parts.next().map(limit).transpose()?.unwrap_or(soft);
    if parts.next().is_some() {
        return Err(wrong(flag, spec, "has more than two values").hint(hint));
    }
    if soft > hard {
        return Err(wrong(flag, spec, "the soft limit is above the hard limit"));
    }
    Ok(Rlimit { kind: (*kind).to_owned(), hard, soft })
}

/// Reads `--sysctl NAME=VALUE` of a parameter that belongs to a namespace.
///
/// # Errors
/// `InvalidInput`, also for a parameter of the host.
pub fn sysctl(spec: &str) -> Result<(String, String)> {
    let flag = "--sysctl";
    let (name, value) = spec.split_once('=').ok_or_else(|| wrong(flag, spec, "is not NAME=VALUE"))?;
    // procfs also takes slashes; a value that holds a second assignment was CVE-2022-0811.
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let namespaced = SYSCTLS.contains(&name) || name.starts_with("net.") || name.starts_with("fs.mqueue.");
    if !name.chars().all(plain) || name.contains("..") || !namespaced {
        let near = did_you_mean(name, SYSCTLS);
        let reason = format!("sysctl {name:?} is not one of a container's namespaces{near}");
        return Err(wrong(flag, spec, reason)
            .hint("net.*, fs.mqueue.*, and kernel.{msg*,sem,shm*} are; set others on the host"));
    }
    if value.contains(['\n', '\0']) {
        return Err(wrong(flag, spec, "a value is one line"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// Reads `--blkio-weight`: 10 to 1000, or 0 for none.
pub(super) fn blkio_weight(text: &str) -> Result<Option<u16>> {
    let weight = number::whole("--blkio-weight", text, 0..=1000)?;
    match weight {
        0 => Ok(None),
        1..10 => Err(wrong("--blkio-weight", text, "is not 10 to 1000")),
        _ => Ok(u16::try_from(weight).ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices() {
        let cases = [
            ("/dev/null", ("/dev/null", "/dev/null", "rwm")),
            ("/dev/null:r", ("/dev/null", "/dev/null", "r")),
            ("/dev/null:/dev/zz", ("/dev/null", "/dev/zz", "rwm")),
            ("/dev/./null:/dev/mynull:rw", ("/dev/null", "/dev/mynull", "rw")),
        ];
        for (spec, (source, target, access)) in cases {
            let wanted =
                DeviceRequest { source: source.into(), target: target.into(), access: access.into() };
            assert_eq!(device(spec).unwrap(), wanted);
        }
        let wrong = [
            ("/dev/null:/dev/x:q", "bad mode \"q\""),
            ("/dev/null:/dev/x:rr", "bad mode \"rr\""),
            ("null", "both paths must be absolute"),
            ("/a:/b:r:w", "too many colons"),
            ("nvidia.com/gpu=all", "names of the container device interface are not supported"),
        ];
        for (spec, reason) in wrong {
            assert_eq!(device(spec).unwrap_err().chain(), format!("--device {spec:?}: {reason}"));
        }
    }

    #[test]
    fn rules() {
        let rule_of = |kind: &str, major, minor, access: &str| DeviceRule {
            allow: true,
            kind: Some(kind.into()),
            major,
            minor,
            access: Some(access.into()),
        };
        assert_eq!(rule("c 42:* rmw").unwrap(), rule_of("c", Some(42), None, "rmw"));
        assert_eq!(rule("a *:* r").unwrap(), rule_of("a", None, None, "r"));
        for spec in [
            "",
            "c 42 r",
            "d 1:1 r",
            "c -1:1 r",
            "c 1:1 x",
            "c 1:1 r r",
            "c  1:1 r",
            "c 1:4294967296 r",
            "c :1 r",
        ] {
            assert!(rule(spec).is_err(), "{spec}");
        }
    }

    #[test]
    fn limits() {
        let of = |kind: &str, soft, hard| Rlimit { kind: kind.into(), soft, hard };
        assert_eq!(ulimit("nofile=1024:2048").unwrap(), of("RLIMIT_NOFILE", 1024, 2048));
        assert_eq!(ulimit("core=-1").unwrap(), of("RLIMIT_CORE", u64::MAX, u64::MAX));
        assert_eq!(ulimit("nproc=5:-1").unwrap(), of("RLIMIT_NPROC", 5, u64::MAX));
        let wrong = [
            ("nofil=1", "unknown limit \"nofil\"; did you mean \"nofile\"?"),
            ("nofile=5:2", "the soft limit is above the hard limit"),
            ("nofile=-1:2", "the soft limit is above the hard limit"),
            ("nofile=5:6:7", "has more than two values"),
            ("nofile", "is not NAME=SOFT[:HARD]"),
            ("nofile=x", "\"x\" is not a number"),
            ("nofile=", "\"\" is not a number"),
            ("nofile=18446744073709551616", "18446744073709551616 is too large"),
        ];
        for (spec, reason) in wrong {
            assert_eq!(ulimit(spec).unwrap_err().chain(), format!("--ulimit {spec:?}: {reason}"));
        }
    }

    #[test]
    fn only_namespaced_parameters() {
        assert_eq!(sysctl("net.core.somaxconn=100").unwrap(), ("net.core.somaxconn".into(), "100".into()));
        assert!(sysctl("kernel.shm_rmid_forced=1").is_ok() && sysctl("fs.mqueue.msg_max=9").is_ok());
        for spec in [
            "kernel.core_pattern=x",
            "net.ipv4/../../kernel/x=1",
            "net..x=1",
            "net.x",
            "kernel.shmmax=1\nkernel.x=2",
            "netx=1",
        ] {
            assert!(sysctl(spec).is_err(), "{spec}");
        }
    }
}
