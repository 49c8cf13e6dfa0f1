use super::*;
use crate::options::{DeviceRequest, Flags, HostNamespaces, MountKind, MountRequest, Surroundings, resolve};
use crate::runtime::{Mount, Process};

const ID: &str = "c718a682c516bf38b7248a8930aca2fb94faf571c05e5fe496b167bf3d044729";

struct Nowhere;

impl Surroundings for Nowhere {
    fn variable(&self, _name: &str) -> Option<String> {
        None
    }

    fn working_directory(&self) -> String {
        "/".to_owned()
    }

    fn read(&self, path: &str) -> Result<String> {
        Err(Fault::new(Kind::NotFound, path))
    }
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

fn bare() -> ImageConfig {
    ImageConfig::parse(br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#)
        .unwrap()
}

/// The image that docker's answers were taken from.
fn image() -> ImageConfig {
    ImageConfig::parse(
        br#"{"architecture":"amd64","os":"linux","author":"me","rootfs":{"type":"layers","diff_ids":[]},
        "config":{"Env":["A=1","PATH=/usr/bin:/bin"],"Entrypoint":["/bin/env"],"Cmd":["-0"],"User":"redis",
        "Volumes":{"/data":{}},"WorkingDir":"/work","ExposedPorts":{"6379/tcp":{}},"StopSignal":"SIGINT","Labels":{"a":"b"}}}"#,
    )
    .unwrap()
}

fn facts() -> HostFacts {
    HostFacts {
        container_id: ID.to_owned(),
        root_path: "rootfs".to_owned(),
        passwd: Some(
            "root:x:0:0:root:/root:/bin/sh\nredis:x:999:998:r:/var/lib/redis:/bin/sh\ngrp:x:500:500::/home/grp:/bin/sh\n"
                .to_owned(),
        ),
        group: Some("root:x:0:\nredis:x:998:\nextra:x:600:redis,grp\nother:x:601:redis\n".to_owned()),
        volumes: "/var/lib/bale/volumes".to_owned(),
        etc: EtcFiles {
            resolv_conf: Some("/c/resolv.conf".to_owned()),
            hostname: Some("/c/hostname".to_owned()),
            hosts: Some("/c/hosts".to_owned()),
        },
        hostname: "vm".to_owned(),
        cgroups_path: Some(format!("/bale/{ID}")),
        ..HostFacts::default()
    }
}

fn none() -> RunOptions {
    RunOptions { network: Network::None, ..RunOptions::default() }
}

fn command(words: &[&str]) -> RunOptions {
    RunOptions { command: strings(words), ..none() }
}

fn process(generated: &Generated) -> &Process {
    generated.config.process.as_ref().unwrap()
}

fn mount_of<'a>(generated: &'a Generated, destination: &str) -> Option<&'a Mount> {
    generated.config.mounts.iter().find(|m| m.destination == destination)
}

fn line(mount: &Mount) -> String {
    let part = |p: &Option<String>| p.clone().unwrap_or_default();
    format!("{} {} {} {}", mount.destination, part(&mount.kind), part(&mount.source), mount.options.join(","))
}

fn golden(name: &str, text: &str) {
    let path = format!("{}/tests/generate/{name}.json", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("BALE_ACCEPT").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{path} (BALE_ACCEPT=1 writes it anew)");
}

#[test]
fn an_image_as_docker_runs_it() {
    let generated = config(&image(), &none(), &facts()).unwrap();
    golden("image", &generated.config.to_canonical());
    let [volume] = generated.volumes.as_slice() else { panic!("{:?}", generated.volumes) };
    assert!(volume.anonymous && volume.copy_up && volume.destination == "/data" && volume.name.len() == 64);
    assert_eq!(volume.source, format!("/var/lib/bale/volumes/{}/_data", volume.name));
    assert_eq!((generated.stop_signal, generated.default_seccomp, generated.init), (2, true, false));
    assert_eq!(generated.labels.get("a").map(String::as_str), Some("b"));
}

#[test]
fn privileged_confines_nothing() {
    let node = |path: &str, kind, major, minor, mode| HostDevice {
        path: path.to_owned(),
        kind,
        major,
        minor,
        mode,
        uid: 0,
        gid: 0,
    };
    let devices = vec![
        node("/dev/kvm", 'c', 10, 232, 0o660),
        node("/dev/pts/0", 'c', 136, 0, 0o620),
        node("/dev/console", 'c', 5, 1, 0o600),
        node("/dev/vda", 'b', 254, 0, 0o660),
    ];
    let options = RunOptions { privileged: true, read_only: true, ..command(&["/bin/true"]) };
    let generated = config(&bare(), &options, &HostFacts { devices, ..facts() }).unwrap();
    golden("privileged", &generated.config.to_canonical());
    assert!(!generated.default_seccomp);
}

#[test]
fn a_bundle_is_self_contained() {
    let options =
        RunOptions { network: Network::Host, hostname: Some("redis".to_owned()), ..RunOptions::default() };
    let generated = bundle_config(&image(), &options, &facts()).unwrap();
    golden("bundle", &generated.config.to_canonical());
    assert!(generated.volumes.is_empty());
    let named = RunOptions { mounts: vec![volume("/x", Some("n"))], ..options };
    assert!(bundle_config(&image(), &named, &facts()).is_err());
}

#[test]
fn specs_to_start_from() {
    golden("spec", &spec(false).to_canonical());
    golden("rootless", &rootless_spec(1000, 1001, true).to_canonical());
}

/// The flags and the answers are those of a run of docker 28.5.
#[test]
fn many_flags_at_once() {
    let flags = Flags {
        command: strings(&["/bin/id"]),
        network: Some("none".into()),
        memory: Some("64m".into()),
        memory_swap: Some("128m".into()),
        memory_reservation: Some("32m".into()),
        cpus: Some("1.5".into()),
        cpuset_cpus: Some("0".into()),
        pids_limit: Some("100".into()),
        ulimit: strings(&["nofile=1024:2048", "core=-1"]),
        shm_size: Some("1m".into()),
        sysctl: strings(&["net.core.somaxconn=100"]),
        oom_score_adj: Some("100".into()),
        hostname: Some("web.example.org".into()),
        domainname: Some("nis".into()),
        label: strings(&["x=y"]),
        stop_signal: Some("TERM".into()),
        security_opt: strings(&["no-new-privileges"]),
        cap_add: strings(&["SYS_ADMIN"]),
        cap_drop: strings(&["MKNOD"]),
        read_only: true,
        tmpfs: strings(&["/tmp", "/run:size=64m,exec,mode=1770"]),
        volume: strings(&["/tmp:/host:ro", "named:/named", "anon:/anon:nocopy", "/zz"]),
        mount: strings(&[
            "type=tmpfs,dst=/tm2,tmpfs-size=1m,tmpfs-mode=700",
            "type=bind,src=/run,dst=/b2,readonly,bind-propagation=rslave",
        ]),
        device: strings(&["/dev/null:/dev/mynull:rw"]),
        device_cgroup_rule: strings(&["c 42:* rmw"]),
        init: true,
        user: Some("grp".into()),
        group_add: strings(&["700", "extra"]),
        workdir: Some("/made/here".into()),
        ..Flags::default()
    };
    let options = resolve(&flags, &Nowhere).unwrap();
    let null =
        HostDevice { path: "/dev/null".into(), kind: 'c', major: 1, minor: 3, mode: 0o20666, uid: 0, gid: 0 };
    let generated = config(&bare(), &options, &HostFacts { devices: vec![null], ..facts() }).unwrap();
    golden("many", &generated.config.to_canonical());
    assert!(generated.init);
    assert_eq!(generated.create_directories, ["/tmp"]);
    let volumes: Vec<_> =
        generated.volumes.iter().map(|v| (v.destination.as_str(), v.anonymous, v.copy_up)).collect();
    assert_eq!(volumes, [("/named", false, true), ("/anon", false, false), ("/zz", true, true)]);
    let back: RunOptions = serde_json::from_str(&serde_json::to_string(&options).unwrap()).unwrap();
    assert_eq!(back, options);
}

fn volume(target: &str, name: Option<&str>) -> MountRequest {
    let kind = MountKind::Volume { name: name.map(str::to_owned), copy_up: true };
    MountRequest { target: target.to_owned(), readonly: false, kind }
}

#[test]
fn entrypoint_and_command() {
    let entry = |words: &[&str]| Some(strings(words));
    type Case<'a> = (Option<Vec<String>>, &'a [&'a str], &'a [&'a str]);
    let cases: [Case<'_>; 6] = [
        (None, &[], &["/bin/env", "-0"]),
        (None, &["-u", "X"], &["/bin/env", "-u", "X"]),
        (entry(&["/bin/id"]), &["-u"], &["/bin/id", "-u"]),
        (entry(&["/bin/id"]), &[], &["/bin/id"]),
        (entry(&[]), &["/bin/env"], &["/bin/env"]),
        (entry(&[]), &[], &[]),
    ];
    for (entrypoint, words, wanted) in cases {
        let options = RunOptions { entrypoint, ..command(words) };
        match config(&image(), &options, &facts()) {
            Ok(generated) => assert_eq!(process(&generated).args, wanted),
            Err(fault) => assert_eq!((fault.words(), wanted.len()), ("no command specified", 0)),
        }
    }
    assert_eq!(config(&bare(), &none(), &facts()).unwrap_err().words(), "no command specified");
}

#[test]
fn the_environment_has_dockers_order() {
    let env = |image: &ImageConfig, words: &[&str], tty| {
        let options = RunOptions { env: strings(words), tty, ..command(&["x"]) };
        process(&config(image, &options, &facts()).unwrap()).env.clone()
    };
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(
        env(&bare(), &["FOO=bar", "A=2", "EMPTY=", "UNSETHERE"], true),
        [path, "HOSTNAME=c718a682c516", "TERM=xterm", "FOO=bar", "A=2", "EMPTY=", "HOME=/root"]
    );
    assert_eq!(
        env(&image(), &["A=2", "HOME=/x", "PATH=/p"], false),
        ["PATH=/p", "HOSTNAME=c718a682c516", "A=2", "HOME=/x"]
    );
    assert_eq!(
        env(&image(), &["A", "HOSTNAME=h"], false),
        ["PATH=/usr/bin:/bin", "HOSTNAME=h", "HOME=/var/lib/redis"]
    );
}

#[test]
fn capabilities_as_docker_adds_and_drops() {
    let all = strings(&crate::capability::ALL);
    let of = |add: &[&str], drop: &[&str]| capabilities(&strings(add), &strings(drop), false, &all);
    assert_eq!(of(&[], &[]), crate::capability::DOCKER_DEFAULT);
    assert_eq!(of(&["CAP_CHOWN"], &["ALL"]), ["CAP_CHOWN"]);
    assert_eq!(of(&["ALL"], &["ALL"]).len(), 41);
    assert_eq!(of(&["ALL"], &["CAP_NET_ADMIN"]).len(), 40);
    assert_eq!(of(&["CAP_NET_ADMIN"], &["CAP_NET_ADMIN"]).last().map(String::as_str), Some("CAP_NET_ADMIN"));
    assert_eq!(of(&[], &["CAP_MKNOD", "CAP_CHOWN"]).len(), 12);
    assert_eq!(capabilities(&[], &strings(&["ALL"]), true, &all).len(), 41);
}

#[test]
fn the_hosts_namespaces() {
    let host_namespaces = HostNamespaces { pid: true, ipc: true, uts: true, cgroup: true };
    let options = RunOptions { host_namespaces, ..command(&["x"]) };
    let generated = config(&bare(), &options, &facts()).unwrap();
    let kinds: Vec<_> = generated.config.linux.as_ref().unwrap().namespaces.iter().map(|n| n.kind).collect();
    assert_eq!(kinds, [NamespaceKind::Network, NamespaceKind::Mount]);
    assert_eq!(generated.config.hostname, None);
    assert_eq!(line(mount_of(&generated, "/dev/shm").unwrap()), "/dev/shm bind /dev/shm rbind,rprivate");
    let on_host = RunOptions { network: Network::Host, ..command(&["x"]) };
    let generated = config(&bare(), &on_host, &facts()).unwrap();
    assert_eq!(generated.config.hostname.as_deref(), Some("vm"));
    assert!(generated.config.linux.as_ref().unwrap().sysctl.is_empty());
}

#[test]
fn mounts_take_the_place_of_defaults_and_volumes() {
    let bind = |target: &str, source: &str| MountRequest {
        target: target.to_owned(),
        readonly: false,
        kind: MountKind::Bind { source: source.to_owned(), create: true, recursive: true, propagation: None },
    };
    let of =
        |mounts: Vec<MountRequest>| config(&image(), &RunOptions { mounts, ..none() }, &facts()).unwrap();
    let generated = of(vec![bind("/data", "/d"), bind("/etc/hosts", "/h"), bind("/dev/shm", "/s")]);
    assert!(generated.volumes.is_empty());
    let lines: Vec<String> = generated.config.mounts.iter().map(line).collect();
    let wanted = [
        "/data bind /d rbind,rprivate",
        "/etc/hosts bind /h rbind,rprivate",
        "/dev/shm bind /s rbind,rprivate",
        "/etc/resolv.conf bind /c/resolv.conf rbind,rprivate",
        "/etc/hostname bind /c/hostname rbind,rprivate",
    ];
    assert_eq!(lines[6..], wanted);
    let destinations =
        |g: &Generated| g.config.mounts.iter().map(|m| m.destination.clone()).collect::<Vec<_>>();
    let whole_dev = of(vec![bind("/dev", "/dev")]);
    assert_eq!(destinations(&whole_dev)[..4], ["/proc", "/sys", "/sys/fs/cgroup", "/dev"]);
    let nested = of(vec![bind("/a/b", "/b"), volume("/a", Some("a1")), bind("/a/b/c", "/c")]);
    assert_eq!(destinations(&nested)[7..11], ["/a", "/data", "/a/b", "/a/b/c"]);
}

#[test]
fn devices_by_directory_and_missing_ones() {
    let request = |source: &str, target: &str| DeviceRequest {
        source: source.into(),
        target: target.into(),
        access: "rw".into(),
    };
    let tun = HostDevice {
        path: "/dev/net/tun".into(),
        kind: 'c',
        major: 10,
        minor: 200,
        mode: 0o666,
        uid: 0,
        gid: 0,
    };
    let facts = HostFacts { devices: vec![tun], ..facts() };
    let of = |request: DeviceRequest| {
        config(&bare(), &RunOptions { devices: vec![request], ..command(&["x"]) }, &facts)
    };
    let linux = of(request("/dev/net", "/dev/n2")).unwrap().config.linux.unwrap();
    assert_eq!(linux.devices[0].path, "/dev/n2/tun");
    let rules = linux.resources.unwrap().devices;
    assert_eq!((rules.len(), rules[1].minor, rules[1].access.as_deref()), (2, Some(200), Some("rw")));
    let fault = of(request("/dev/nope", "/dev/nope")).unwrap_err();
    assert_eq!(fault.words(), "--device \"/dev/nope\": there is no device at this path of the host");
}

#[test]
fn strange_images_are_refused() {
    let of = |section: &str| {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}},"config":{section}}}"#
        );
        config(&ImageConfig::parse(text.as_bytes()).unwrap(), &command(&["x"]), &facts())
            .map(|_| ())
            .unwrap_err()
            .words()
            .to_owned()
    };
    assert_eq!(of(r#"{"Volumes":{"/../":{}}}"#), "the image declares a volume at \"/../\"");
    assert_eq!(of(r#"{"StopSignal":"SIGFOO"}"#), "the image's stop signal \"SIGFOO\" is no signal");
    assert_eq!(of(r#"{"User":"nobody"}"#), "unable to find user nobody: no matching entries in passwd file");
    assert!(of(r#"{"WorkingDir":"rel"}"#).starts_with("the working directory \"rel\" is invalid"));
}
