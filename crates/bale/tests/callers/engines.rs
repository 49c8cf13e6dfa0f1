//! Each engine: how it is started on folders of its own, and ended.

use bale_testkit::require_root;

use crate::stage::Stage;

const RUNC: &str = "/usr/sbin/runc";
const CRUN: &str = "/usr/bin/crun";

/// Its limits are those of the test: a machine may forbid raising them.
const PODMAN: [&str; 2] = [
    r#"
cat >$W/containers.conf <<END
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "k8s-file"
netns = "none"
$([ "$4" = v2 ] && echo "pids_limit = 0")
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "$RT"
END
export CONTAINERS_CONF=$W/containers.conf XDG_RUNTIME_DIR=/run
podman() {
    timeout 60 podman --root $W/root --runroot $W/runroot --tmpdir $W/tmp --storage-driver vfs --log-level error "$@"
}
run() { podman run --cgroup-parent /$CG "$@"; }
tar -C $S/rootfs -c . | podman import - box >/dev/null 2>&1 || exit 1
tar -C $S/rootfs -c . | podman import -c 'CMD ["sleep", "1000"]' - sleeper >/dev/null 2>&1 || exit 1
"#,
    "podman rm -fa -t 0 >/dev/null; umount -R $W/root 2>/dev/null; umount $W/runroot 2>/dev/null\n",
];

const DOCKER: [&str; 2] = [
    r#"
export DOCKER_HOST=unix://$W/docker.sock DOCKER_CONFIG=$W/config DOCKER_BUILDKIT=0
echo '{"runtimes": {"mine": {"path": "'$RT'"}}, "default-runtime": "mine"}' >daemon.json
dockerd --config-file $W/daemon.json --iptables=false --ip6tables=false --bridge=none --storage-driver vfs \
    --data-root $W/data --exec-root $W/exec --pidfile $W/pid -H $DOCKER_HOST --cgroup-parent /$CG \
    --default-ulimit nofile=1024:1024 --default-ulimit nproc=1024:1024 >$W/log 2>&1 &
daemon=$!
until_true 'docker version >/dev/null 2>&1 || ! kill -0 $daemon' || exit 1
kill -0 $daemon || { tail -n 5 $W/log >&2; exit 1; }
docker() { timeout 60 docker "$@"; }
run() { docker run --network none "$@"; }
tar -C $S/rootfs -c . | docker import - box >/dev/null || exit 1
"#,
    "docker ps -aq | xargs -r docker rm -f >/dev/null; kill $daemon; wait $daemon\n",
];

/// Makes `runc` the runtime under test, and writes down what it is asked.
const AS_RUNC: &str = r#"
mkdir path
printf '#!/bin/sh\necho "$*" >>%s/asked\nexec %s "$@"\n' $W $RT >path/runc
chmod 755 path/runc
PATH=$W/path:$PATH
"#;

const CONTAINERD: [&str; 2] = [
    r#"
printf 'version = 2\nroot = "%s/root"\nstate = "%s/state"\n[grpc]\naddress = "%s/sock"\n' $W $W $W >config.toml
containerd --config config.toml >$W/log 2>&1 &
daemon=$!
export CONTAINERD_ADDRESS=$W/sock
until_true 'ctr version >/dev/null 2>&1 || ! kill -0 $daemon' || exit 1
kill -0 $daemon || { tail -n 5 $W/log >&2; exit 1; }
ctr() { timeout 60 ctr "$@"; }
run() { ctr run --snapshotter native --runc-binary $RT --cgroup /$CG/$RANDOM "$@"; }
task() { ctr tasks "$@"; }
state() { ctr tasks ls | busybox awk -v name="$1" '$1 == name { print $3 }'; }
stopped() { until_true "[ \"\$(state $1)\" = STOPPED ]"; }
ctr image import $S/box.tar >/dev/null || exit 1
box=$(ctr image ls -q)
"#,
    "kill $daemon; wait $daemon\n",
];

const BUILDAH: [&str; 2] = [
    r#"
buildah() { timeout 60 buildah --root $W/root --runroot $W/runroot --storage-driver vfs --log-level error "$@"; }
O="--isolation oci --runtime $RT --network none"
L="--ulimit nofile=1024:1024 --ulimit nproc=1024:1024"
tar -C $S/rootfs -cf box.tar .
"#,
    "buildah rm -a >/dev/null; umount -R $W/root 2>/dev/null; umount $W/runroot 2>/dev/null\n",
];

/// One machine is controller and node. glibc resolves no name for a machine that has only its loopback addresses.
const SLURM: [&str; 2] = [
    r#"
busybox ip addr add 10.9.9.9/32 dev lo
host=$(uname -n)
export SLURM_CONF=$W/slurm.conf
mkdir state spool b
cat >slurm.conf <<END
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
StateSaveLocation=$W/state
SlurmdSpoolDir=$W/spool
SlurmctldPidFile=$W/slurmctld.pid
SlurmdPidFile=$W/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
NodeName=$host NodeAddr=127.0.0.1 CPUs=1 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
END
echo CgroupPlugin=disabled >cgroup.conf
cat >oci.conf <<END
RunTimeQuery="$RT --root=$W/rt state %n.%u.%j.%s.%t"
RunTimeRun="$RT --root=$W/rt run %n.%u.%j.%s.%t -b %b"
RunTimeKill="$RT --root=$W/rt kill -a %n.%u.%j.%s.%t"
RunTimeDelete="$RT --root=$W/rt delete --force %n.%u.%j.%s.%t"
EnvExclude="^(SLURM_CONF|SLURM_CONF_SERVER)="
END
cp -a $S/rootfs b/rootfs
(cd b && $RT spec && sed -i 's|"terminal": true|"terminal": false|; s|"linux": {|"linux": {"cgroupsPath": "/'$CG'/task",|' config.json)
slurmctld -D >$W/log 2>&1 &
controller=$!
slurmd -D >>$W/log 2>&1 &
node=$!
until_true '[ "$(timeout 2 sinfo -h -o %T)" = idle ]' || { tail -n 9 $W/log >&2; exit 1; }
srun() { timeout 60 srun "$@"; }
"#,
    "scancel -u root; kill $node $controller; wait $node $controller\n",
];

#[test]
fn podman() {
    require_root!();
    let Some(stage) = Stage::new() else { return };
    stage.play(&[RUNC], &["bale-runc", "runc"], "host", PODMAN, include_str!("podman.txt"));
    stage.assert_clean();
}

/// By this name podman reads the log, and allows containers without cgroups.
#[test]
fn podman_with_crun() {
    require_root!();
    let Some(stage) = Stage::new() else { return };
    stage.play(&[CRUN, RUNC], &["crun"], "v2", PODMAN, include_str!("podman_crun.txt"));
    stage.assert_clean();
}

#[test]
fn docker() {
    require_root!();
    let Some(stage) = Stage::new() else { return };
    stage.play(&[RUNC], &["bale-runc"], "host", DOCKER, include_str!("docker.txt"));
    stage.assert_clean();
}

#[test]
fn docker_with_buildkit() {
    require_root!();
    let Some(stage) = Stage::new() else { return };
    if !stage.has("usr/libexec/docker/cli-plugins/docker-buildx") {
        return;
    }
    let [setup, end] = DOCKER;
    let setup = format!("{AS_RUNC}{}", setup.replace("DOCKER_BUILDKIT=0", "DOCKER_BUILDKIT=1"));
    stage.play(&[RUNC], &["bale-runc"], "host", [&setup, end], include_str!("docker_buildkit.txt"));
    stage.assert_clean();
}

#[test]
fn containerd() {
    require_root!();
    let Some(stage) = Stage::new() else { return };
    stage.add_archive();
    stage.play(&[RUNC], &["bale-runc"], "host", CONTAINERD, include_str!("containerd.txt"));
    stage.assert_clean();
}

#[test]
fn buildah() {
    require_root!();
    let Some(stage) = Stage::new() else { return };
    stage.play(&[RUNC], &["bale-runc"], "host", BUILDAH, include_str!("buildah.txt"));
    stage.assert_clean();
}

#[test]
fn slurm() {
    require_root!();
    let Some(stage) = Stage::new() else { return };
    if !stage.has("usr/bin/srun") {
        return;
    }
    stage.play(&[RUNC], &["bale-runc"], "host", SLURM, include_str!("slurm.txt"));
    stage.assert_clean();
}
