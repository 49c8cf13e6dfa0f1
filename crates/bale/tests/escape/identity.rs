//! Who the process is, and what it may do.

use std::fs;

use serde_json::{Value, json};

use crate::stage::{Found, Stage, payload_args};
use crate::{Case, Verdict};

pub const CASES: &[Case] = &[
    ("cve_2016_3697_numeric_user_names", numeric_names),
    ("cve_2024_40635_user_ids_that_wrap", wrapping_ids),
    ("cve_2026_30892_exec_user", exec_user),
    ("cve_2022_29162_inheritable_capabilities", inheritable),
    ("cve_2021_43784_long_id_maps", long_maps),
];

fn uid_of(report: &str) -> Option<&str> {
    report.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1))
}

/// `/etc/passwd` has users whose names are numbers.
fn numeric_names(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    let mut bundle = stage.bundle();
    fs::write(bundle.rootfs.join("etc/passwd"), "root:x:0:0::/:/\n1000:x:0:0::/:/\n7:x:0:0::/:/\n").unwrap();
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    let outcome = bundle.run_in_background(&["pause"]);
    found.note(&outcome, "container");
    for user in ["1000", "7", "7:7"] {
        exec_as(stage, &bundle, user, &mut found, |uid| uid != user.split(':').next().unwrap());
    }
    found.verdict()
}

/// Runs `exec -u USER` and notes when `bad` holds for the uid it got.
fn exec_as(
    stage: &Stage,
    bundle: &crate::stage::Bundle<'_>,
    user: &str,
    found: &mut Found,
    bad: impl Fn(&str) -> bool,
) {
    let _ = fs::remove_file(bundle.out("report"));
    let args = payload_args(&["inspect", &stage.secret()]);
    let mut words: Vec<String> = ["exec", "--user", user, &bundle.id].map(str::to_owned).to_vec();
    words.extend(args.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()));
    let ran = stage.call(words);
    let report = bundle.read("report");
    let what = format!("exec --user {user:?}");
    found.note(&if ran.code == 0 { Ok(()) } else { Err(ran) }, &what);
    if let Some(uid) = uid_of(&report).filter(|uid| bad(uid)) {
        found.add(&what, [format!("ESCAPED it runs as {uid}")]);
    }
}

/// Numbers that are 0 when cut to 32 bits, and what is no number.
fn wrapping_ids(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    for text in
        ["4294967296", "18446744073709551616", "-1", "-4294967296", "4294967295", "1e10", "\"0x10\"", "1.5"]
    {
        let mut bundle = stage.bundle();
        let marker = json!("the uid");
        bundle.config["process"]["user"] = json!({"uid": marker, "gid": 5});
        // Not every one of them is JSON that serde_json would write.
        let raw = bundle.config.to_string().replace("\"the uid\"", text);
        let file = bundle.dir.join("raw.json");
        fs::write(&file, &raw).unwrap();
        bundle.config = Value::String("replaced below".to_owned());
        fs::write(bundle.dir.join("config.json"), raw).unwrap();
        let dir = bundle.dir.display().to_string();
        let ran = stage.call(["run", "--bundle", &dir, &bundle.id]);
        let what = format!("uid {text}");
        let report = bundle.read("report");
        found.note(&if ran.code == 0 { Ok(()) } else { Err(ran) }, &what);
        if uid_of(&report) == Some("0") {
            found.add(&what, ["ESCAPED it runs as root".to_owned()]);
        }
    }
    found.verdict()
}

fn exec_user(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    let mut bundle = stage.bundle();
    let outcome = bundle.run_in_background(&["pause"]);
    found.note(&outcome, "container");
    for user in [
        "1",
        "1:2",
        "1:",
        "-1",
        "1 ",
        "01x",
        "x1",
        ":1",
        "4294967296",
        "4294967297:1",
        "1:4294967296",
        "1:2:3",
    ] {
        // A number stands there: whoever gives one does not ask for root.
        exec_as(stage, &bundle, user, &mut found, |uid| uid == "0");
    }
    found.verdict()
}

fn capability_sets(report: &str) -> Vec<(&str, u64)> {
    let lines = report.lines().filter_map(|line| line.split_once(":\t"));
    lines.filter_map(|(name, value)| Some((name, u64::from_str_radix(value, 16).ok()?))).collect()
}

/// Nothing is inheritable that the config does not make so: neither for init nor for `exec --cap`.
fn inheritable(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    for uid in [0, 1000] {
        let mut bundle = stage.bundle();
        bundle.config["process"]["user"] = json!({"uid": uid, "gid": uid});
        let outcome = bundle.run_in_background(&["pause"]);
        found.note(&outcome, "container");
        for flags in
            [&[][..], &["--cap", "CAP_NET_ADMIN"], &["--cap", "CAP_NET_ADMIN", "--cap", "CAP_NET_RAW"]]
        {
            let _ = fs::remove_file(bundle.out("report"));
            let mut words = vec!["exec"];
            words.extend(flags);
            words.push(&bundle.id);
            let secret = stage.secret();
            words.extend(["/payload", "@payload", "inspect", &secret]);
            let ran = stage.call(words);
            let what = format!("uid {uid}, exec {flags:?}");
            let report = bundle.read("report");
            found.note(&if ran.code == 0 { Ok(()) } else { Err(ran) }, &what);
            for (name, set) in capability_sets(&report) {
                if set != 0 && matches!(name, "CapInh" | "CapAmb") {
                    found.add(&what, [format!("ESCAPED {name} is {set:#x}")]);
                }
                if name == "CapEff" && set & (1 << 21) != 0 {
                    found.add(&what, ["ESCAPED it has CAP_SYS_ADMIN".to_owned()]);
                }
            }
        }
    }
    found.verdict()
}

/// Id maps whose text is longer than 16 bits count.
fn long_maps(stage: &Stage) -> Verdict {
    let mut found = Found::default();
    for count in [300_u32, 341, 5000] {
        let mut bundle = stage.bundle();
        bundle.user_namespace();
        let map: Vec<Value> = (0..count)
            .map(|n| json!({"containerID": n * 10, "hostID": 100_000_000 + n * 10, "size": 10}))
            .collect();
        bundle.config["linux"]["uidMappings"] = json!(map);
        bundle.config["linux"]["gidMappings"] = json!(map);
        let outcome = bundle.run();
        let what = format!("{count} id mappings");
        found.note(&outcome, &what);
        let report = bundle.read("report");
        if report.contains("uid_map 0 0") {
            found.add(&what, ["ESCAPED it runs without its user namespace".to_owned()]);
        }
    }
    found.verdict()
}
