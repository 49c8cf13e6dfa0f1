//! Golden cases of every old dialect: `legacy/<dialect>/<case>/{config.json,runtime.json,expected.json,report.txt}`.
//!
//! `BALE_BLESS=1 cargo test -p bale-spec --test legacy` writes the results anew; read the difference before you keep it.

// A test helper that panics is a failed test.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use bale_spec::legacy::{HostDevice, Options, convert, detect};
use bale_spec::runtime::RuntimeConfig;

fn cases() -> Vec<PathBuf> {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/legacy");
    let list = |dir: &Path| {
        let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
        entries.sort();
        entries
    };
    list(&base).iter().flat_map(|dialect| list(dialect)).collect()
}

fn fuse_only(path: &str) -> Option<HostDevice> {
    (path == "/dev/fuse").then_some(HostDevice { kind: 'c', major: 10, minor: 229 })
}

fn options(case: &Path) -> Options {
    let name = case.file_name().unwrap().to_str().unwrap();
    Options { faithful: name.contains("faithful"), harden: name.contains("harden") }
}

#[test]
fn every_dialect_becomes_its_golden_config() {
    let bless = std::env::var_os("BALE_BLESS").is_some();
    let cases = cases();
    assert!(cases.len() >= 16, "the golden cases are missing");
    for case in cases {
        let config = fs::read(case.join("config.json")).unwrap();
        let runtime = fs::read(case.join("runtime.json")).ok();
        let converted = convert(&config, runtime.as_deref(), options(&case), &fuse_only);
        let converted = converted.unwrap_or_else(|e| panic!("{}: {e:?}", case.display()));
        let text = converted.to_canonical();
        let mut report = format!("{}\n", converted.dialect);
        for decision in &converted.decisions {
            report.push_str(&format!("{decision}\n"));
        }
        if bless {
            fs::write(case.join("expected.json"), &text).unwrap();
            fs::write(case.join("report.txt"), &report).unwrap();
        }
        let expected = fs::read_to_string(case.join("expected.json")).unwrap();
        assert_eq!(text, expected, "{}", case.display());
        assert_eq!(report, fs::read_to_string(case.join("report.txt")).unwrap(), "{}", case.display());

        let again: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(detect(&again, None), None, "{}: a second conversion has something to do", case.display());
        let parsed = RuntimeConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(parsed, converted.config, "{}", case.display());
    }
}

#[test]
fn the_dialect_is_told_by_shape() {
    for case in cases() {
        let config = serde_json::from_slice(&fs::read(case.join("config.json")).unwrap()).unwrap();
        let runtime = fs::read(case.join("runtime.json")).ok().map(|t| serde_json::from_slice(&t).unwrap());
        let dialect = detect(&config, runtime.as_ref()).unwrap().to_string();
        let folder = case.parent().unwrap().file_name().unwrap().to_str().unwrap();
        let plain: String =
            dialect.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
        assert_eq!(plain.replace("--", "-").trim_end_matches('-'), folder, "{}", case.display());
    }
}

#[test]
fn what_never_worked_is_refused_with_its_place() {
    let none = |_: &str| None;
    let pair = |config: &str, runtime: &str| {
        convert(config.as_bytes(), Some(runtime.as_bytes()), Options::default(), &none).unwrap_err().chain()
    };
    let base =
        r#"{"version":"0.2.0","process":{"args":["sh"],"user":{"uid":0,"gid":0}},"root":{"path":"rootfs"}"#;
    for (config, runtime, words) in [
        (
            format!(r#"{base},"mounts":[{{"name":"proc","path":"/proc"}}]}}"#),
            "{}",
            "mounts[0]: mount with name \"proc\"",
        ),
        (base.replace("\"uid\":0", "\"uid\":-1") + "}", "{}", "process.user.uid: -1 is out of range"),
        (base.replace("[\"sh\"]", "[]") + "}", "{}", "process.args: is empty"),
        (format!("{base},\"platform\":{{\"os\":\"windows\"}}}}"), "{}", "platform.os: is \"windows\""),
        (
            format!("{base}}}"),
            r#"{"linux":{"gidMappings":[{"containerID":0,"hostID":1,"size":1}]}}"#,
            "gidMappings: stands",
        ),
        (
            format!("{base}}}"),
            r#"{"linux":{"namespaces":[{"type":"moon"}]}}"#,
            "\"moon\" is no kind of namespace",
        ),
        (format!("{base}}}"), r#"{"linux":{"rlimits":[{"type":99}]}}"#, "no limit has the number 99"),
        (format!("{base}}}"), r#"{"linux":{"resources":{"network":{"classId":"zz"}}}}"#, "\"zz\" is neither"),
        (format!("{base}}}"), "{", "runtime.json: cannot be read"),
        (
            format!("{base}}}"),
            r#"{"linux":{"devices":[{"path":"/dev/x","type":7}]}}"#,
            "devices[0].type: want",
        ),
    ] {
        let chain = pair(&config, runtime);
        assert!(chain.contains(words), "{chain:?} does not say {words:?}");
    }
    let alone = convert(
        format!("{base},\"mounts\":[{{\"name\":\"a\",\"path\":\"/a\"}}]}}").as_bytes(),
        None,
        Options::default(),
        &none,
    );
    assert!(alone.unwrap_err().chain().contains("runtime.json is absent"));
    let current = convert(br#"{"ociVersion":"1.0.2"}"#, None, Options::default(), &none);
    assert!(current.unwrap_err().chain().contains("nothing to convert"));
}
