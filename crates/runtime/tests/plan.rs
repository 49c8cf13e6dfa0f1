//! Plans are pure: each config below `tests/plan` has the plan that is made of it beside it. `BALE_ACCEPT=1` writes
//! the plans anew, to be read in the diff.

use std::path::{Path, PathBuf};

use bale_runtime::RootSource;
use bale_runtime::cgroup::Layout;
use bale_runtime::plan::{Choices, Facts, Plan, V1Hierarchy};
use bale_spec::runtime::RuntimeConfig;

fn facts(layout: Layout) -> Facts {
    let hierarchy = |name: &str, controllers: &[&str]| V1Hierarchy {
        name: name.to_owned(),
        controllers: controllers.iter().map(|&c| c.to_owned()).collect(),
    };
    Facts {
        layout,
        v1: vec![hierarchy("cpu,cpuacct", &["cpu", "cpuacct"]), hierarchy("systemd", &["name=systemd"])],
        capabilities: (1 << 41) - 1,
        selinux: false,
        kcore: true,
        home: "/root".to_owned(),
        own_network: false,
        links: [(0, "target".into())].into(),
        resctrl: Some("/sys/fs/resctrl".into()),
        listen_fds: None,
        own_namespaces: 0,
    }
}

fn plan(config: &RuntimeConfig, layout: Layout, wait_for_start: bool) -> String {
    let choices = Choices {
        id: "web",
        bundle: Path::new("/bundle"),
        root: &RootSource::Config,
        wait_for_start,
        place_stdio: false,
        cgroup: true,
        systemd: false,
        no_pivot: false,
        no_new_keyring: false,
    };
    match Plan::new(config, &choices, &facts(layout)) {
        Ok(plan) => plan.to_string(),
        Err(fault) => format!("refused: {}\n", fault.chain()),
    }
}

fn configs() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plan");
    let entries = std::fs::read_dir(dir).expect("tests/plan").map(|entry| entry.expect("entry").path());
    let mut found: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|e| e == "json")).collect();
    found.sort();
    found
}

#[test]
fn plans_are_as_written_down() {
    let accept = std::env::var_os("BALE_ACCEPT").is_some_and(|v| v == "1");
    let configs = configs();
    assert!(configs.len() >= 4, "the configs are missing");
    for path in configs {
        let config = RuntimeConfig::parse(&std::fs::read(&path).unwrap()).unwrap();
        for (name, layout, waits) in [("unified", Layout::Unified, false), ("v1", Layout::V1, true)] {
            let made = plan(&config, layout, waits);
            let golden = path.with_extension(format!("{name}.txt"));
            if accept {
                std::fs::write(&golden, &made).unwrap();
            }
            let written = std::fs::read_to_string(&golden).unwrap_or_default();
            assert_eq!(made, written, "{}", golden.display());
        }
    }
}
