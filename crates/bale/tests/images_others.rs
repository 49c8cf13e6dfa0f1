//! Images that other tools made and pushed, pulled by bale: the tree is the one that umoci unpacks, entry by entry. And
//! the way back: what bale pushed and saved is read by all of them.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bale_testkit::peers::{Peers, Running};
use bale_testkit::{Scratch, bale, image, require_root, tree};

/// One registry for the tests of this file that run at the same time.
struct Field {
    // Ended before its folder goes.
    _running: Running,
    peers: Peers,
    registry: String,
    scratch: Scratch,
}

/// Without a tree of the other tools the test is left out.
fn field() -> Option<Arc<Field>> {
    static SHARED: Mutex<Weak<Field>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(field) = shared.upgrade() {
        return Some(field);
    }
    let peers = Peers::find()?;
    let scratch = Scratch::new("field");
    let (running, registry) = peers.registry(&scratch).expect("a registry");
    write_context(&scratch.join("context"));
    let field = Arc::new(Field { _running: running, peers, registry, scratch });
    *shared = Arc::downgrade(&field);
    Some(field)
}

impl Field {
    /// Runs a script in the peers' tree: `$R` is the registry, `$S` the scratch folder, `$1` … the arguments.
    fn run(&self, script: &str, arguments: &[&str]) -> String {
        let head = format!(
            "R={}; S={}; U='--ulimit nofile=1024:1024 --ulimit nproc=1024:1024'; podman() {{ command podman --root /run/podman --runroot /run/podrun --storage-driver vfs \
             --cgroup-manager cgroupfs \"$@\"; }}; buildah() {{ command buildah --root /run/buildah --runroot \
             /run/buildrun --storage-driver vfs \"$@\"; }}\n",
            self.registry,
            self.scratch.path().display()
        );
        self.peers.run(&format!("{head}{script}"), arguments).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Wants bale's bundle of an image of the registry to equal umoci's.
    #[track_caller]
    fn compare(&self, name: &str) {
        let bale = bale!();
        let reference = format!("{}/{name}", self.registry);
        bale.ok(["pull", &reference]);
        bale.ok(["bundle", &reference, "./bundle"]);
        let theirs = self.unpack_with_umoci(name);
        let left = tree::snapshot(theirs.join("rootfs")).expect("umoci's tree");
        let right = tree::snapshot(bale.dir().join("bundle/rootfs")).expect("bale's tree");
        assert!(left.len() > 5, "umoci unpacked nothing");
        let differences = tree::difference(&left, &right);
        let shown = differences.iter().take(40).cloned().collect::<Vec<_>>().join("\n");
        assert!(differences.is_empty(), "- umoci + bale, {} lines:\n{shown}", differences.len());
    }

    fn unpack_with_umoci(&self, name: &str) -> PathBuf {
        let folder = format!("umoci-{}", name.replace([':', '/'], "-"));
        self.run(
            // Before 0.6 umoci did not read zstd; skopeo packs such layers anew then.
            "skopeo copy -q --insecure-policy --src-tls-verify=false --dest-compress-format gzip \
               docker://$R/$1 oci:$S/$2.oci:x\n\
             umoci unpack --image $S/$2.oci:x $S/$2",
            &[name, &folder],
        );
        self.scratch.join(folder)
    }
}

/// Writes what a Dockerfile adds: every kind of entry that a layer can hold.
fn write_context(dir: &Path) {
    let root = dir.join("rootfs");
    image::busybox_rootfs(&root).expect("busybox");
    let write = |path: &str, mode: u32, content: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
        fs::write(&path, content).expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
    };
    write("kinds/setuid", 0o4755, "#!/bin/sh\n");
    write("kinds/owned", 0o640, "owned");
    chown(root.join("kinds/owned"), Some(1234), Some(5678)).expect("chown");
    write("kinds/first", 0o644, "one inode");
    fs::hard_link(root.join("kinds/first"), root.join("kinds/second")).expect("link");
    symlink("/absolute/target", root.join("kinds/absolute")).expect("symlink");
    symlink("dangling", root.join("kinds/relative")).expect("symlink");
    write(&format!("kinds/{}/{}", "long".repeat(40), "name".repeat(50)), 0o600, "long");
    write("kinds/ünïcode ☃", 0o644, "snow");
    write("kinds/empty", 0o444, "");
    write("gone/file", 0o644, "to be removed");
    write("opaque/old", 0o644, "to be hidden");
    write("kinds/capable", 0o755, "#!/bin/sh\n");
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(root.join("kinds/capable"), "security.capability", &capability, flags)
        .expect("setxattr");
    // The second layer removes, hides, replaces and links across layers.
    let second = "rm -r /gone && rm -r /opaque && mkdir /opaque && echo new >/opaque/new && \
        rm /kinds/relative && mkdir /kinds/relative && echo x >/kinds/relative/x && \
        ln /kinds/owned /kinds/linked && chmod 700 /kinds/empty && mkfifo /kinds/fifo && \
        rm /kinds/second && touch -d '1999-12-31 23:59:58' /kinds/first";
    let many = "mkdir /many && cd /many && i=0 && while [ $i -lt 20000 ]; do echo $i >f$i; i=$((i+1)); done";
    let head = "FROM scratch\nADD rootfs/ /\nENV PATH=/bin\nUSER 0\n";
    fs::write(dir.join("Dockerfile"), format!("{head}RUN {second}\nCMD [\"sh\"]\n")).expect("write");
    fs::write(dir.join("Dockerfile.many"), format!("{head}RUN {many}\nCMD [\"sh\"]\n")).expect("write");
}

#[test]
fn buildah_oci_with_whiteouts_opaque_folders_links_and_capabilities() {
    require_root!();
    let Some(field) = field() else { return };
    field.run(
        "buildah build -q --isolation chroot $U --layers --format oci -t $R/buildah:oci $S/context >/dev/null\n\
         buildah push -q --tls-verify=false $R/buildah:oci",
        &[],
    );
    field.compare("buildah:oci");
}

#[test]
fn buildah_docker_schema_2() {
    require_root!();
    let Some(field) = field() else { return };
    field.run(
        "buildah build -q --isolation chroot $U --layers --format docker -t $R/buildah:docker $S/context >/dev/null\n\
         buildah push -q --tls-verify=false $R/buildah:docker",
        &[],
    );
    field.compare("buildah:docker");
}

#[test]
fn podman_with_zstd_layers() {
    require_root!();
    let Some(field) = field() else { return };
    field.run(
        "podman build -q --isolation chroot $U --layers -t $R/podman:zstd $S/context >/dev/null\n\
         podman push -q --tls-verify=false --compression-format zstd $R/podman:zstd",
        &[],
    );
    field.compare("podman:zstd");
}

#[test]
fn podman_with_a_layer_of_20000_files() {
    require_root!();
    let Some(field) = field() else { return };
    field.run(
        "podman build -q --isolation chroot $U --layers -f $S/context/Dockerfile.many -t $R/podman:many $S/context >/dev/null\n\
         podman push -q --tls-verify=false $R/podman:many",
        &[],
    );
    field.compare("podman:many");
}

#[test]
fn an_index_of_several_platforms() {
    require_root!();
    let Some(field) = field() else { return };
    field.run(
        "for a in arm64 amd64 s390x; do\n\
           printf 'FROM scratch\\nADD rootfs/ /\\nENV ARCH=%s\\nCMD [\"sh\"]\\n' $a >$S/Dockerfile.$a\n\
           buildah build -q --isolation chroot $U --platform linux/$a -f $S/Dockerfile.$a --manifest several $S/context >/dev/null\n\
         done\n\
         buildah manifest push -q --tls-verify=false --all several docker://$R/index:several",
        &[],
    );
    field.compare("index:several");
    let bale = bale!();
    let reference = format!("{}/index:several", field.registry);
    bale.ok(["pull", "--platform", "linux/s390x", &reference]);
    assert!(bale.ok(["inspect", &reference]).contains("ARCH=s390x"));
}

#[test]
fn docker_build_and_push() {
    require_root!();
    let Some(field) = field() else { return };
    field.run(
        "mkdir -p /run/docker-data\n\
         dockerd --data-root /run/docker-data --exec-root /run/docker-exec --pidfile /run/docker.pid -H unix:///run/d.sock \
           --iptables=false --ip6tables=false --bridge=none --storage-driver vfs --insecure-registry $R >$S/dockerd.log 2>&1 &\n\
         export DOCKER_HOST=unix:///run/d.sock DOCKER_BUILDKIT=0\n\
         for i in $(seq 200); do docker version >/dev/null 2>&1 && break; sleep 0.1; done\n\
         tar -C $S/context/rootfs --xattrs --xattrs-include='*' -cf - . | docker import -c 'CMD [\"sh\"]' - $R/docker:import >/dev/null\n\
         docker push -q $R/docker:import >/dev/null\n\
         id=$(docker create --network none $R/docker:import /bin/true)\n\
         docker cp $S/context/Dockerfile $id:/added && docker commit $id $R/docker:commit >/dev/null\n\
         docker push -q $R/docker:commit >/dev/null",
        &[],
    );
    field.compare("docker:import");
    field.compare("docker:commit");
}

#[test]
fn umoci_repack_and_skopeo_copy() {
    require_root!();
    let Some(field) = field() else { return };
    field.run(
        "cd $S && umoci init --layout own && umoci new --image own:x && umoci config --image own:x --config.cmd sh\n\
         umoci unpack --image own:x own-bundle >/dev/null 2>&1\n\
         cp -a context/rootfs/. own-bundle/rootfs/ && umoci repack --image own:x own-bundle >/dev/null 2>&1\n\
         rm -r own-bundle/rootfs/gone && umoci repack --refresh-bundle --image own:x own-bundle >/dev/null 2>&1\n\
         skopeo copy -q --insecure-policy --dest-tls-verify=false oci:own:x docker://$R/umoci:oci\n\
         skopeo copy -q --insecure-policy --dest-tls-verify=false --format v2s2 oci:own:x docker://$R/umoci:v2s2",
        &[],
    );
    field.compare("umoci:oci");
    field.compare("umoci:v2s2");
}

#[test]
fn what_bale_pushes_and_saves_is_read_by_all() {
    require_root!();
    let Some(field) = field() else { return };
    let bale = bale!();
    let ours = format!("{}/ours:1", field.registry);
    bale.load_busybox();
    bale.ok(["tag", "busybox", &ours]);
    bale.ok(["push", &ours]);
    let archive = field.scratch.join("ours.tar");
    bale.ok(["save", "-o", archive.to_str().expect("utf-8"), &ours]);
    let listed = field.run(
        "skopeo inspect --tls-verify=false docker://$R/ours:1 >/dev/null\n\
         podman pull -q --tls-verify=false $R/ours:1 >/dev/null\n\
         podman rmi -f $R/ours:1 >/dev/null && podman load -q -i $S/ours.tar >/dev/null\n\
         podman image exists $R/ours:1\n\
         buildah pull -q --tls-verify=false docker://$R/ours:1 >/dev/null\n\
         skopeo copy -q --insecure-policy oci-archive:$S/ours.tar oci:$S/ours.oci:x\n\
         umoci unpack --image $S/ours.oci:x $S/ours-bundle\n\
         ls $S/ours-bundle/rootfs/bin | wc -l",
        &[],
    );
    assert!(listed.trim().parse::<u32>().expect("a number") > 100, "{listed}");
    docker_and_containerd_read(&field);
}

fn docker_and_containerd_read(field: &Field) {
    let said = field.run(
        "dockerd --data-root /run/docker-data --exec-root /run/docker-exec --pidfile /run/docker.pid -H unix:///run/d.sock \
           --iptables=false --ip6tables=false --bridge=none --storage-driver vfs --insecure-registry $R >$S/dockerd2.log 2>&1 &\n\
         export DOCKER_HOST=unix:///run/d.sock\n\
         for i in $(seq 200); do docker version >/dev/null 2>&1 && break; sleep 0.1; done\n\
         docker pull -q $R/ours:1 >/dev/null && docker rmi $R/ours:1 >/dev/null\n\
         docker load -q -i $S/ours.tar\n\
         containerd --root /run/cd --state /run/cds -a /run/cd.sock >$S/containerd.log 2>&1 &\n\
         for i in $(seq 200); do ctr -a /run/cd.sock version >/dev/null 2>&1 && break; sleep 0.1; done\n\
         ctr -a /run/cd.sock content fetch --plain-http $R/ours:1 >/dev/null\n\
         ctr -a /run/cd.sock images import --no-unpack $S/ours.tar >/dev/null\n\
         ctr -a /run/cd.sock images ls -q",
        &[],
    );
    assert!(said.contains("ours:1"), "{said}");
}
