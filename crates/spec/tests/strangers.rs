//! Text that strangers wrote: nothing panics, and what must hold for any input holds.

use bale_fault::{Fault, Kind, Result};
use bale_spec::generate::{HostFacts, config};
use bale_spec::image::ImageConfig;
use bale_spec::options::{Flags, RunOptions, Surroundings, device, mount, number, resolve, security};
use bale_spec::validate::{Path, validate};
use bale_spec::{signal, suggest, user};
use proptest::prelude::*;
use serde_json::{Value, json};

struct Nowhere;

impl Surroundings for Nowhere {
    fn variable(&self, _name: &str) -> Option<String> {
        None
    }

    fn working_directory(&self) -> String {
        "/w".to_owned()
    }

    fn read(&self, path: &str) -> Result<String> {
        Err(Fault::new(Kind::NotFound, path))
    }
}

/// JSON values with the words of a config among their keys and strings.
fn value() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        Just("process"),
        Just("linux"),
        Just("mounts"),
        Just("type"),
        Just("destination"),
        Just("options"),
        Just("path"),
        Just("namespaces"),
        Just("args"),
        Just("env"),
        Just("cwd"),
        Just("user"),
        Just("uid"),
        Just("resources"),
        Just("/"),
        Just(""),
        Just("bind"),
        Just("A=1"),
        Just("ociVersion"),
        Just("1.0.0"),
        Just("user"),
        Just("\u{0}"),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, move |inner| {
        let pairs = prop::collection::vec((word.clone(), inner.clone()), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..6).prop_map(Value::from),
            pairs.prop_map(|pairs| pairs
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v))
                .collect::<serde_json::Map<_, _>>()
                .into()),
        ]
    })
}

/// A config that is right but for one value.
fn bent() -> impl Strategy<Value = String> {
    (value(), 0..12_usize).prop_map(|(stranger, at)| {
        let mut config = serde_json::to_value(bale_spec::generate::spec(true)).expect("a value");
        let places = [
            "/process",
            "/process/user",
            "/process/args",
            "/process/env/0",
            "/mounts/1",
            "/mounts/1/options",
            "/linux",
            "/linux/namespaces/0",
            "/linux/resources",
            "/process/capabilities",
            "/root",
            "/process/rlimits/0",
        ];
        *config.pointer_mut(places[at]).expect("a place") = stranger;
        config.to_string()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_validated(text in ".{0,200}") {
        let _ = validate(text.as_bytes()).findings.located(&text);
    }

    #[test]
    fn any_json_is_validated(stranger in value()) {
        let text = stranger.to_string();
        let _ = validate(text.as_bytes()).findings.located(&text);
    }

    /// What the parser refuses, validation explains with an error; and each line it tells exists.
    #[test]
    fn what_cannot_be_parsed_has_an_error(text in bent()) {
        let parsed = bale_spec::runtime::RuntimeConfig::parse(text.as_bytes());
        let found = validate(text.as_bytes()).findings.located(&text);
        prop_assert!(found.iter().all(|f| f.line.is_none_or(|l| l >= 1 && l <= text.lines().count().max(1))));
        prop_assert!(found.iter().all(|f| f.path.is_empty() || Path::parse(&f.path).is_some()));
        if parsed.is_err() {
            prop_assert!(found.iter().any(|f| f.severity == bale_spec::validate::Severity::Error), "{parsed:?} {found:?}");
        }
    }

    #[test]
    fn any_flag_value_is_read_or_refused(text in "[-+a-zA-Z0-9_.:=,/*@ \u{e9}\u{0}]{0,40}") {
        let list = vec![text.clone()];
        let some = Some(text.clone());
        let flags = [
            Flags { memory: some.clone(), ..Flags::default() },
            Flags { cpus: some.clone(), pids_limit: None, ..Flags::default() },
            Flags { volume: list.clone(), ..Flags::default() },
            Flags { mount: list.clone(), ..Flags::default() },
            Flags { tmpfs: list.clone(), ..Flags::default() },
            Flags { device: list.clone(), ..Flags::default() },
            Flags { device_cgroup_rule: list.clone(), ..Flags::default() },
            Flags { env: list.clone(), ..Flags::default() },
            Flags { ulimit: list.clone(), ..Flags::default() },
            Flags { sysctl: list.clone(), ..Flags::default() },
            Flags { security_opt: list.clone(), ..Flags::default() },
            Flags { add_host: list, ..Flags::default() },
            Flags { cpuset_cpus: some.clone(), ..Flags::default() },
            Flags { stop_signal: some.clone(), ..Flags::default() },
            Flags { platform: some.clone(), ..Flags::default() },
            Flags { network: some, ..Flags::default() },
        ];
        for flags in &flags {
            let _ = resolve(flags, &Nowhere);
        }
        let _ = (signal::parse(&text), suggest::closest(&text, ["a", "terminal"]), number::is_set(&text));
        let _ = security::profile(text.as_bytes(), &[]);
        if let Ok(request) = mount::volume(&text, "/w") {
            prop_assert!(request.target.starts_with('/') && !request.target.contains("/.."), "{request:?}");
        }
        if let Ok(limit) = device::ulimit(&text) {
            prop_assert!(limit.soft <= limit.hard);
        }
    }

    /// A user is never more than was asked: digits are that number, and nothing beyond 31 bits gets through.
    #[test]
    fn numbers_are_numbers(uid in any::<u64>(), passwd in "([a-z0-9]{1,4}:x:[0-9]{1,11}:[0-9]{1,11}:[a-z]*:/[a-z]*:[a-z]*\n){0,5}", name in ".{0,8}") {
        match user::resolve(&uid.to_string(), &passwd, &passwd) {
            Ok(identity) => prop_assert_eq!(u64::from(identity.uid), uid),
            Err(_) => prop_assert!(uid > i32::MAX as u64),
        }
        let _ = user::resolve(&name, &passwd, &name);
    }

    /// Whatever an image says, what is generated is a config that validation has no error for.
    #[test]
    fn any_image_gives_a_valid_config_or_none(
        env in prop::collection::vec("[A-Z=]{0,4}.{0,4}", 0..4),
        workdir in prop_oneof![Just(String::new()), "/.{0,8}"],
        volumes in prop::collection::vec("[a-z/.]{0,8}", 0..4),
        cmd in prop::collection::vec(".{1,5}", 1..4),
    ) {
        let volumes: serde_json::Map<String, Value> = volumes.into_iter().map(|v| (v, json!({}))).collect();
        let image = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
            "config": {"Env": env, "WorkingDir": workdir, "Volumes": volumes, "Cmd": cmd}});
        let image = ImageConfig::parse(image.to_string().as_bytes()).expect("an image");
        let facts = HostFacts { container_id: "a".repeat(64), root_path: "rootfs".to_owned(), ..HostFacts::default() };
        if let Ok(generated) = config(&image, &RunOptions::default(), &facts) {
            let text = generated.config.to_canonical();
            let errors: Vec<_> = validate(text.as_bytes()).findings.without_places().into_iter()
                .filter(|f| f.severity == bale_spec::validate::Severity::Error).collect();
            prop_assert!(errors.is_empty(), "{errors:?}");
        }
    }
}
