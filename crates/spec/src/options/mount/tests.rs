use super::*;

fn bind(target: &str, source: &str, readonly: bool, create: bool, propagation: Option<&str>) -> MountRequest {
    let propagation = propagation.map(str::to_owned);
    let kind = MountKind::Bind { source: source.to_owned(), create, recursive: true, propagation };
    MountRequest { target: target.to_owned(), readonly, kind }
}

fn named(target: &str, name: Option<&str>, readonly: bool, copy_up: bool) -> MountRequest {
    let kind = MountKind::Volume { name: name.map(str::to_owned), copy_up };
    MountRequest { target: target.to_owned(), readonly, kind }
}

fn memory(target: &str, options: &[&str]) -> MountRequest {
    let options = options.iter().map(|o| (*o).to_owned()).collect();
    MountRequest { target: target.to_owned(), readonly: false, kind: MountKind::Tmpfs { options } }
}

#[test]
fn volumes() {
    let cases = [
        ("/zz", named("/zz", None, false, true)),
        ("/tmp:/host:ro", bind("/host", "/tmp", true, true, None)),
        ("/tmp/../run//x:/a/./b/", bind("/a/b", "/run/x", false, true, None)),
        ("./x:/x", bind("/x", "/work/x", false, true, None)),
        ("..:/x:rslave,z", bind("/x", "/", false, true, Some("rslave"))),
        ("named:/named", named("/named", Some("named"), false, true)),
        ("anon:/anon:nocopy,ro", named("/anon", Some("anon"), true, false)),
        ("/a:/b:cached", bind("/b", "/a", false, true, None)),
    ];
    for (spec, wanted) in cases {
        assert_eq!(volume(spec, "/work").unwrap(), wanted, "{spec}");
    }
}

#[test]
fn wrong_volumes_say_why() {
    let cases = [
        ("tmp:x", "the path in the container, \"x\", must be absolute"),
        ("/tmp:/", "the path in the container cannot be \"/\""),
        ("/tmp:/..", "the path in the container cannot be \"/\""),
        ("/tmp:/x:rx", "invalid mode \"rx\"; did you mean \"ro\"?"),
        ("/tmp:/x:raed", "invalid mode \"raed\""),
        ("/run:/x:ro:z", "too many colons"),
        (":/x", "empty section between colons"),
        ("/x:", "empty section between colons"),
        ("a b:/x", "\"a b\" is not a volume's name ([a-zA-Z0-9][a-zA-Z0-9_.-]+)"),
        ("/run:/x:ro,rw", "the modes \"ro,rw\" contradict each other"),
        ("/run:/x:slave,shared", "the modes \"slave,shared\" contradict each other"),
        ("ab:/x:rslave", "propagation is for directories of the host, not for volumes"),
        ("/run:/x:nocopy", "nocopy is for volumes, not for directories of the host"),
        ("/x:ro", "a volume without a source cannot have a mode"),
    ];
    for (spec, reason) in cases {
        assert_eq!(volume(spec, "/work").unwrap_err().chain(), format!("--volume {spec:?}: {reason}"));
    }
}

#[test]
fn mounts() {
    let nonrecursive = MountRequest {
        target: "/b2".to_owned(),
        readonly: true,
        kind: MountKind::Bind {
            source: "/usr".to_owned(),
            create: false,
            recursive: false,
            propagation: None,
        },
    };
    let cases = [
        (
            "type=bind,src=/run,dst=/b2,readonly,bind-propagation=rslave",
            bind("/b2", "/run", true, false, Some("rslave")),
        ),
        ("type=bind,source=./d,target=/b2,ro=false", bind("/b2", "/work/d", false, false, None)),
        ("type=bind,src=/usr,dst=/b2,readonly=true,bind-recursive=disabled", nonrecursive),
        ("type=volume,src=vv,dst=/v2,volume-nocopy", named("/v2", Some("vv"), false, false)),
        ("dst=/v2", named("/v2", None, false, true)),
        ("type=bind,\"src=/a,b\",dst=/x", bind("/x", "/a,b", false, false, None)),
        (
            "type=tmpfs,dst=/tm2,tmpfs-size=1m,tmpfs-mode=700",
            memory("/tm2", &["noexec", "nosuid", "nodev", "rprivate", "size=1048576", "mode=700"]),
        ),
    ];
    for (spec, wanted) in cases {
        assert_eq!(mount(spec, "/work").unwrap(), wanted, "{spec}");
    }
}

#[test]
fn wrong_mounts_say_why() {
    let cases = [
        ("typ=bind,src=/tmp,dst=/x", "unexpected key \"typ\"; did you mean \"type\"?"),
        (
            "type=volume,dst=/x,bind-propagation=rslave",
            "cannot mix bind-* options with mount type \"volume\"",
        ),
        ("type=tmpfs,src=/x,dst=/y", "a tmpfs has no source"),
        ("type=bind,dst=/y", "a bind mount needs src=/path"),
        ("type=bind,src=rel,dst=/y", "the source \"rel\" must be absolute"),
        ("type=bnid,src=/run,dst=/y", "mount type \"bnid\" is unknown; did you mean \"bind\"?"),
        ("type=bind,src=/run", "target is required"),
        ("type=bind,src=/run,dst=/x,readonly=maybe", "\"maybe\" is no value of readonly: true or false"),
        ("type=bind,src=/run,dst=/x,foo", "unexpected key \"foo\""),
        ("type=bind,src=/run,dst", "\"dst\" must be a key=value pair"),
        (
            "type=bind,src=/run,dst=/x,bind-propagation=rslav",
            "propagation \"rslav\" is unknown; did you mean \"rslave\"?",
        ),
        ("type=volume,dst=/x,readonly", "an anonymous volume cannot be read-only: nobody could fill it"),
        ("type=bind,\"src=/a", "a quotation mark is not closed"),
        ("type=volume,dst=/x,volume-driver=nfs", "volume-driver is not supported"),
        ("", "unexpected key \"\""),
    ];
    for (spec, reason) in cases {
        assert_eq!(mount(spec, "/work").unwrap_err().chain(), format!("--mount {spec:?}: {reason}"));
    }
}

#[test]
fn tmpfs_keeps_dockers_defaults_unless_taken_back() {
    let cases = [
        ("/tmp", memory("/tmp", &["noexec", "nosuid", "nodev", "rprivate"])),
        (
            "/run:size=64m,exec,mode=1770",
            memory("/run", &["nosuid", "nodev", "rprivate", "size=64m", "exec", "mode=1770"]),
        ),
        ("/a:defaults,size=50%", memory("/a", &["noexec", "nosuid", "nodev", "rprivate", "size=50%"])),
    ];
    for (spec, wanted) in cases {
        assert_eq!(tmpfs(spec).unwrap(), wanted, "{spec}");
    }
    let wrong = [
        ("rel", "the path in the container, \"rel\", must be absolute"),
        ("/x:foo", "invalid tmpfs option \"foo\""),
        ("/x:noexc", "invalid tmpfs option \"noexc\"; did you mean \"noexec\"?"),
        ("/x:noexec,size=10q", "\"10q\" is no value of size"),
        ("/x:mode=9", "\"9\" is no value of mode"),
    ];
    for (spec, reason) in wrong {
        assert_eq!(tmpfs(spec).unwrap_err().chain(), format!("--tmpfs {spec:?}: {reason}"));
    }
}
