//! Edits and bundles of strangers: nothing panics, a refused edit changes nothing, an accepted one can be taken back.

use bale_bundle::set::{Options, set, undo};
use proptest::prelude::*;

fn bundle() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("config.json"), bale_spec::generate::spec(false).to_canonical())
        .expect("config");
    dir
}

fn edit() -> impl Strategy<Value = String> {
    let path = prop_oneof![
        Just("process"),
        Just("process.env"),
        Just("process.env.A"),
        Just("mounts"),
        Just("mounts[1]"),
        Just("mounts[/dev]"),
        Just("linux.namespaces"),
        Just("process.args"),
        Just("annotations.a"),
        Just("linux.resources.memory.limit"),
        Just("process.capabilities"),
        Just("root"),
        Just("hostname"),
        Just("[\"x\"]"),
        Just("linux.sysctl"),
        Just(""),
    ];
    let more = prop_oneof![Just(String::new()), "[a-z.\\[\\]\"0-9]{0,6}"];
    let value = prop_oneof![
        ".{0,12}".prop_map(String::from),
        Just("{}".to_owned()),
        Just("[]".to_owned()),
        Just("null".to_owned()),
        Just("64m".to_owned()),
        Just("A=1".to_owned()),
        Just("network".to_owned()),
        Just("/x,type=tmpfs".to_owned()),
        Just("CHOWN".to_owned()),
    ];
    (path, more, prop_oneof![Just("="), Just("+="), Just("-=")], value)
        .prop_map(|(path, more, operator, value)| format!("{path}{more}{operator}{value}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn edits(texts in prop::collection::vec(edit(), 1..3), force in any::<bool>()) {
        let dir = bundle();
        let path = dir.path().join("config.json");
        let before = std::fs::read(&path).expect("config");
        let changed = set(dir.path(), &texts, Options { force, ..Options::default() });
        let after = std::fs::read(&path).expect("config");
        match changed {
            Ok(changes) if !changes.is_empty() => {
                prop_assert!(serde_json::from_slice::<serde_json::Value>(&after).is_ok());
                if !force {
                    prop_assert!(bale_spec::runtime::RuntimeConfig::parse(&after).is_ok(), "{texts:?}");
                }
                prop_assert!(undo(dir.path()).is_ok());
                prop_assert_eq!(std::fs::read(&path).expect("config"), before);
            }
            _ => prop_assert_eq!(after, before),
        }
    }

    #[test]
    fn any_program_is_checked(head in prop::collection::vec(any::<u8>(), 0..300), elf in any::<bool>()) {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = bundle();
        std::fs::create_dir_all(dir.path().join("rootfs/bin")).expect("rootfs");
        let program = dir.path().join("rootfs/bin/sh");
        let content = if elf { [b"\x7fELF\x02\x01".as_slice(), &head].concat() } else { head };
        std::fs::write(&program, content).expect("a program");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        prop_assert!(bale_bundle::check(dir.path()).is_ok());
    }
}
