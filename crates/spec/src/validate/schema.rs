//! The shape of `config.json` (runtime-spec 1.3) as a table: what keys there are, and what their values may be.
//!
//! `check` finds typos with it, and `set` learns what a bare word after `=` means.

/// What a value may be.
#[derive(Debug)]
pub enum Shape {
    /// A string.
    Text,
    /// One of these strings.
    Word(&'static [&'static str]),
    /// true or false.
    Bool,
    /// A whole number in this range.
    Int(i128, i128),
    /// A number of bytes, which `set` also takes with a unit; -1 is unlimited.
    Bytes,
    /// A list.
    List(&'static Shape),
    /// A list of `KEY=value` strings, which `set` addresses by key.
    Pairs,
    /// An object with free keys.
    Map(&'static Shape),
    /// An object with these keys.
    Object(&'static [Field]),
    /// Anything: it belongs to another platform.
    Foreign,
}

/// A key of an object.
#[derive(Debug)]
pub struct Field {
    /// The key.
    pub name: &'static str,
    /// Its value.
    pub shape: Shape,
    /// It must be there.
    pub required: bool,
}

const fn field(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, required: false }
}

const fn required(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, required: true }
}

const U16: Shape = Shape::Int(0, u16::MAX as i128);
const U32: Shape = Shape::Int(0, u32::MAX as i128);
const I32: Shape = Shape::Int(i32::MIN as i128, i32::MAX as i128);
const U64: Shape = Shape::Int(0, u64::MAX as i128);
const I64: Shape = Shape::Int(i64::MIN as i128, i64::MAX as i128);
const TEXTS: Shape = Shape::List(&Shape::Text);

/// The document.
pub static CONFIG: Shape = Shape::Object(&[
    required("ociVersion", Shape::Text),
    field("process", PROCESS),
    field("root", Shape::Object(&[required("path", Shape::Text), field("readonly", Shape::Bool)])),
    field("hostname", Shape::Text),
    field("domainname", Shape::Text),
    field("mounts", Shape::List(&MOUNT)),
    field("hooks", HOOKS),
    field("annotations", Shape::Map(&Shape::Text)),
    field("linux", LINUX),
    field("solaris", Shape::Foreign),
    field("windows", Shape::Foreign),
    field("vm", Shape::Foreign),
    field("zos", Shape::Foreign),
    field("freebsd", Shape::Foreign),
]);

const PROCESS: Shape = Shape::Object(&[
    field("terminal", Shape::Bool),
    field("consoleSize", Shape::Object(&[required("height", U16), required("width", U16)])),
    field(
        "user",
        Shape::Object(&[
            field("uid", U32),
            field("gid", U32),
            field("umask", U32),
            field("additionalGids", Shape::List(&U32)),
            field("username", Shape::Text),
        ]),
    ),
    field("args", TEXTS),
    field("commandLine", Shape::Text),
    field("env", Shape::Pairs),
    required("cwd", Shape::Text),
    field(
        "capabilities",
        Shape::Object(&[
            field("bounding", TEXTS),
            field("effective", TEXTS),
            field("inheritable", TEXTS),
            field("permitted", TEXTS),
            field("ambient", TEXTS),
        ]),
    ),
    field(
        "rlimits",
        Shape::List(&Shape::Object(&[
            required("type", Shape::Text),
            required("hard", U64),
            required("soft", U64),
        ])),
    ),
    field("noNewPrivileges", Shape::Bool),
    field("apparmorProfile", Shape::Text),
    field("oomScoreAdj", Shape::Int(-1000, 1000)),
    field(
        "scheduler",
        Shape::Object(&[
            required(
                "policy",
                Shape::Word(&[
                    "SCHED_OTHER",
                    "SCHED_FIFO",
                    "SCHED_RR",
                    "SCHED_BATCH",
                    "SCHED_ISO",
                    "SCHED_IDLE",
                    "SCHED_DEADLINE",
                ]),
            ),
            field("nice", Shape::Int(-20, 19)),
            field("priority", I32),
            field(
                "flags",
                Shape::List(&Shape::Word(&[
                    "SCHED_FLAG_RESET_ON_FORK",
                    "SCHED_FLAG_RECLAIM",
                    "SCHED_FLAG_DL_OVERRUN",
                    "SCHED_FLAG_KEEP_POLICY",
                    "SCHED_FLAG_KEEP_PARAMS",
                    "SCHED_FLAG_UTIL_CLAMP_MIN",
                    "SCHED_FLAG_UTIL_CLAMP_MAX",
                ])),
            ),
            field("runtime", U64),
            field("deadline", U64),
            field("period", U64),
        ]),
    ),
    field("selinuxLabel", Shape::Text),
    field(
        "ioPriority",
        Shape::Object(&[
            required("class", Shape::Word(&["IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"])),
            field("priority", Shape::Int(0, 7)),
        ]),
    ),
    field("execCPUAffinity", Shape::Object(&[field("initial", Shape::Text), field("final", Shape::Text)])),
]);

const MAPPING: Shape =
    Shape::Object(&[required("containerID", U32), required("hostID", U32), required("size", U32)]);

const MOUNT: Shape = Shape::Object(&[
    required("destination", Shape::Text),
    field("type", Shape::Text),
    field("source", Shape::Text),
    field("options", TEXTS),
    field("uidMappings", Shape::List(&MAPPING)),
    field("gidMappings", Shape::List(&MAPPING)),
]);

const HOOK: Shape = Shape::Object(&[
    required("path", Shape::Text),
    field("args", TEXTS),
    field("env", TEXTS),
    field("timeout", Shape::Int(1, i32::MAX as i128)),
]);

const HOOKS: Shape = Shape::Object(&[
    field("prestart", Shape::List(&HOOK)),
    field("createRuntime", Shape::List(&HOOK)),
    field("createContainer", Shape::List(&HOOK)),
    field("startContainer", Shape::List(&HOOK)),
    field("poststart", Shape::List(&HOOK)),
    field("poststop", Shape::List(&HOOK)),
]);

const LINUX: Shape = Shape::Object(&[
    field("uidMappings", Shape::List(&MAPPING)),
    field("gidMappings", Shape::List(&MAPPING)),
    field("sysctl", Shape::Map(&Shape::Text)),
    field("resources", RESOURCES),
    field("cgroupsPath", Shape::Text),
    field(
        "namespaces",
        Shape::List(&Shape::Object(&[
            required(
                "type",
                Shape::Word(&["pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"]),
            ),
            field("path", Shape::Text),
        ])),
    ),
    field(
        "devices",
        Shape::List(&Shape::Object(&[
            required("path", Shape::Text),
            required("type", Shape::Word(&["c", "b", "u", "p"])),
            field("major", I64),
            field("minor", I64),
            field("fileMode", Shape::Int(0, 0o7777)),
            field("uid", U32),
            field("gid", U32),
        ])),
    ),
    field("netDevices", Shape::Map(&Shape::Object(&[field("name", Shape::Text)]))),
    field("seccomp", SECCOMP),
    field(
        "rootfsPropagation",
        Shape::Word(&[
            "private",
            "shared",
            "slave",
            "unbindable",
            "rprivate",
            "rshared",
            "rslave",
            "runbindable",
        ]),
    ),
    field("maskedPaths", TEXTS),
    field("readonlyPaths", TEXTS),
    field("mountLabel", Shape::Text),
    field(
        "intelRdt",
        Shape::Object(&[
            field("closID", Shape::Text),
            field("schemata", TEXTS),
            field("l3CacheSchema", Shape::Text),
            field("memBwSchema", Shape::Text),
            field("enableMonitoring", Shape::Bool),
        ]),
    ),
    field(
        "memoryPolicy",
        Shape::Object(&[
            required(
                "mode",
                Shape::Word(&[
                    "MPOL_DEFAULT",
                    "MPOL_BIND",
                    "MPOL_INTERLEAVE",
                    "MPOL_WEIGHTED_INTERLEAVE",
                    "MPOL_PREFERRED",
                    "MPOL_PREFERRED_MANY",
                    "MPOL_LOCAL",
                ]),
            ),
            field("nodes", Shape::Text),
            field(
                "flags",
                Shape::List(&Shape::Word(&[
                    "MPOL_F_NUMA_BALANCING",
                    "MPOL_F_RELATIVE_NODES",
                    "MPOL_F_STATIC_NODES",
                ])),
            ),
        ]),
    ),
    field(
        "personality",
        Shape::Object(&[required("domain", Shape::Word(&["LINUX", "LINUX32"])), field("flags", TEXTS)]),
    ),
    field("timeOffsets", Shape::Map(&Shape::Object(&[field("secs", I64), field("nanosecs", U32)]))),
]);

const THROTTLE: Shape =
    Shape::List(&Shape::Object(&[required("major", I64), required("minor", I64), required("rate", U64)]));

const WEIGHT: Shape = Shape::Int(10, 1000);

const RESOURCES: Shape = Shape::Object(&[
    field(
        "devices",
        Shape::List(&Shape::Object(&[
            required("allow", Shape::Bool),
            field("type", Shape::Word(&["a", "c", "b"])),
            field("major", I64),
            field("minor", I64),
            field("access", Shape::Text),
        ])),
    ),
    field(
        "memory",
        Shape::Object(&[
            field("limit", Shape::Bytes),
            field("reservation", Shape::Bytes),
            field("swap", Shape::Bytes),
            field("kernel", Shape::Bytes),
            field("kernelTCP", Shape::Bytes),
            field("swappiness", Shape::Int(0, 100)),
            field("disableOOMKiller", Shape::Bool),
            field("useHierarchy", Shape::Bool),
            field("checkBeforeUpdate", Shape::Bool),
        ]),
    ),
    field(
        "cpu",
        Shape::Object(&[
            field("shares", U64),
            field("quota", I64),
            field("burst", U64),
            field("period", U64),
            field("realtimeRuntime", I64),
            field("realtimePeriod", U64),
            field("cpus", Shape::Text),
            field("mems", Shape::Text),
            field("idle", Shape::Int(0, 1)),
        ]),
    ),
    field("pids", Shape::Object(&[field("limit", I64)])),
    field(
        "blockIO",
        Shape::Object(&[
            field("weight", WEIGHT),
            field("leafWeight", WEIGHT),
            field(
                "weightDevice",
                Shape::List(&Shape::Object(&[
                    required("major", I64),
                    required("minor", I64),
                    field("weight", WEIGHT),
                    field("leafWeight", WEIGHT),
                ])),
            ),
            field("throttleReadBpsDevice", THROTTLE),
            field("throttleWriteBpsDevice", THROTTLE),
            field("throttleReadIOPSDevice", THROTTLE),
            field("throttleWriteIOPSDevice", THROTTLE),
        ]),
    ),
    field(
        "hugepageLimits",
        Shape::List(&Shape::Object(&[required("pageSize", Shape::Text), required("limit", U64)])),
    ),
    field(
        "network",
        Shape::Object(&[
            field("classID", U32),
            field(
                "priorities",
                Shape::List(&Shape::Object(&[required("name", Shape::Text), required("priority", U32)])),
            ),
        ]),
    ),
    field("rdma", Shape::Map(&Shape::Object(&[field("hcaHandles", U32), field("hcaObjects", U32)]))),
    field("unified", Shape::Map(&Shape::Text)),
]);

const ACTION: Shape = Shape::Word(&[
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
]);

const SECCOMP: Shape = Shape::Object(&[
    required("defaultAction", ACTION),
    field("defaultErrnoRet", U32),
    field(
        "architectures",
        Shape::List(&Shape::Word(&[
            "SCMP_ARCH_X86",
            "SCMP_ARCH_X86_64",
            "SCMP_ARCH_X32",
            "SCMP_ARCH_ARM",
            "SCMP_ARCH_AARCH64",
            "SCMP_ARCH_MIPS",
            "SCMP_ARCH_MIPS64",
            "SCMP_ARCH_MIPS64N32",
            "SCMP_ARCH_MIPSEL",
            "SCMP_ARCH_MIPSEL64",
            "SCMP_ARCH_MIPSEL64N32",
            "SCMP_ARCH_PPC",
            "SCMP_ARCH_PPC64",
            "SCMP_ARCH_PPC64LE",
            "SCMP_ARCH_S390",
            "SCMP_ARCH_S390X",
            "SCMP_ARCH_PARISC",
            "SCMP_ARCH_PARISC64",
            "SCMP_ARCH_RISCV64",
            "SCMP_ARCH_LOONGARCH64",
            "SCMP_ARCH_M68K",
            "SCMP_ARCH_SH",
            "SCMP_ARCH_SHEB",
        ])),
    ),
    field(
        "flags",
        Shape::List(&Shape::Word(&[
            "SECCOMP_FILTER_FLAG_TSYNC",
            "SECCOMP_FILTER_FLAG_LOG",
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        ])),
    ),
    field("listenerPath", Shape::Text),
    field("listenerMetadata", Shape::Text),
    field(
        "syscalls",
        Shape::List(&Shape::Object(&[
            required("names", TEXTS),
            required("action", ACTION),
            field("errnoRet", U32),
            field(
                "args",
                Shape::List(&Shape::Object(&[
                    required("index", Shape::Int(0, 5)),
                    required("value", U64),
                    field("valueTwo", U64),
                    required(
                        "op",
                        Shape::Word(&[
                            "SCMP_CMP_NE",
                            "SCMP_CMP_LT",
                            "SCMP_CMP_LE",
                            "SCMP_CMP_EQ",
                            "SCMP_CMP_GE",
                            "SCMP_CMP_GT",
                            "SCMP_CMP_MASKED_EQ",
                        ]),
                    ),
                ])),
            ),
        ])),
    ),
]);

impl Shape {
    /// Returns the key of an object.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        match self {
            Self::Object(fields) => fields.iter().find(|f| f.name == name),
            _ => None,
        }
    }

    /// Says in words what a value may be.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Text => "a string".to_owned(),
            Self::Word(known) if known.len() <= 8 => format!("one of {}", known.join(", ")),
            Self::Word(_) => "one of the words of the specification".to_owned(),
            Self::Bool => "true or false".to_owned(),
            Self::Bytes => "a number of bytes".to_owned(),
            Self::Int(0, most) if *most == i128::from(u64::MAX) => {
                "a whole number that is not negative".to_owned()
            }
            Self::Int(least, most) => format!("a whole number from {least} to {most}"),
            Self::List(_) => "a list".to_owned(),
            Self::Pairs => "a list of \"KEY=value\"".to_owned(),
            Self::Map(_) | Self::Object(_) => "an object".to_owned(),
            Self::Foreign => "anything".to_owned(),
        }
    }
}
