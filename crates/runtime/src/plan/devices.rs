//! Device nodes: the default ones, those of the config, and the links in `/dev`.

use bale_fault::Result;
use bale_spec::runtime::{Device, NamespaceKind};
use bale_sys::mount::{Attributes, propagation};
use bale_sys::root::RelPath;
use rustix::fs::FileType;

use super::mounts::destination;
use super::op::{Op, Target};
use super::{Builder, Source, c_string, invalid};

/// The devices that every container has (runtime-spec config-linux.md, "Default Devices").
pub const DEFAULT: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

impl Builder<'_> {
    pub(super) fn devices(&mut self) -> Result<()> {
        // A bound /dev is somebody else's: it is left as it is (as runc does).
        let bound = self.config.mounts.iter().any(|m| {
            m.destination.trim_end_matches('/') == "/dev"
                && (m.kind.as_deref() == Some("bind")
                    || m.options.iter().any(|o| o == "bind" || o == "rbind"))
        });
        if bound {
            return Ok(());
        }
        let target = destination("/dev", "/dev")?;
        self.ops.push(Op::OpenDev { target });
        let by_bind = self.makes(NamespaceKind::User) || self.joins(NamespaceKind::User);
        let config: Vec<Device> = self.config.linux.as_ref().map(|l| l.devices.clone()).unwrap_or_default();
        for (name, major, minor) in DEFAULT {
            if config.iter().any(|d| d.path == format!("/dev/{name}")) {
                continue;
            }
            if by_bind {
                self.bind_device(&format!("/dev/{name}"), &format!("/dev/{name}"))?;
            } else {
                self.default_node(name, rustix::fs::makedev(major, minor))?;
            }
        }
        for (index, device) in config.iter().enumerate() {
            let path = format!("linux.devices[{index}]");
            if by_bind {
                self.bind_device(&device.path, &device.path)?;
            } else {
                self.node(&path, device)?;
            }
        }
        for (name, to) in LINKS {
            self.dev_link(name, to)?;
        }
        if self.facts.kcore {
            self.dev_link("core", "/proc/kcore")?;
        }
        self.dev_link("ptmx", "pts/ptmx")
    }

    fn dev_link(&mut self, name: &str, to: &str) -> Result<()> {
        self.ops.push(Op::DevLink { name: c_string("/dev", name)?, to: c_string("/dev", to)? });
        Ok(())
    }

    fn default_node(&mut self, name: &str, device: u64) -> Result<()> {
        let mode = FileType::CharacterDevice.as_raw_mode() | 0o666;
        self.ops.push(Op::Node { parent: None, name: c_string("/dev", name)?, mode, device, owner: (0, 0) });
        Ok(())
    }

    fn bind_device(&mut self, from: &str, to: &str) -> Result<()> {
        let changes =
            vec![(false, Attributes { propagation: propagation::PRIVATE, ..Attributes::default() })];
        let source = self.source(Source::Bind {
            place: "linux.devices".to_owned(),
            path: c_string("linux.devices", from)?,
            recursive: false,
            no_follow: true,
            changes,
            idmap: None,
        });
        self.ops.push(Op::BindDevice { source, target: destination("linux.devices", to)? });
        Ok(())
    }

    fn node(&mut self, path: &str, device: &Device) -> Result<()> {
        let kind = match device.kind.as_str() {
            "c" | "u" => FileType::CharacterDevice,
            "b" => FileType::BlockDevice,
            "p" => FileType::Fifo,
            other => {
                return Err(invalid(&format!("{path}.type"), &format!("{other:?} is none of c, b, u, p")));
            }
        };
        let number = |name: &str, value: i64| {
            u32::try_from(value)
                .map_err(|_| invalid(&format!("{path}.{name}"), &format!("{value} is out of range")))
        };
        let number = if kind == FileType::Fifo {
            0
        } else {
            rustix::fs::makedev(number("major", device.major)?, number("minor", device.minor)?)
        };
        let place =
            RelPath::clamped(&device.path).map_err(|e| invalid(&format!("{path}.path"), &e.to_string()))?;
        let (parent, name) =
            place.split_last().ok_or_else(|| invalid(&format!("{path}.path"), "names no file"))?;
        let name = name.clone();
        let in_dev = parent.components().len() == 1 && parent.components()[0].as_bytes() == b"dev";
        self.ops.push(Op::Node {
            parent: (!in_dev).then(|| Target::new(&parent)),
            name,
            mode: kind.as_raw_mode() | device.file_mode.unwrap_or(0o666) & 0o7777,
            device: number,
            owner: (device.uid.unwrap_or(0), device.gid.unwrap_or(0)),
        });
        Ok(())
    }
}
