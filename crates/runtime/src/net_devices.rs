//! Network devices that move into the container (runtime-spec config-linux.md, "Network Devices").
//!
//! Everything that can be known before is looked up before the first device moves. What was moved is moved back when
//! a later one fails; when the container ends, the kernel brings physical devices back and destroys virtual ones.

use std::os::fd::{AsFd, OwnedFd};

use bale_fault::{Context, Fault, Result};
use bale_sys::error::Call;
use bale_sys::namespace;
use bale_sys::netlink::{Address, Link, Route};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::plan::NetDevice;

/// A network namespace, and a socket in it.
struct Side {
    route: Route,
    namespace: OwnedFd,
}

/// A device that is to move, with what it loses by that.
struct Moving<'a> {
    device: &'a NetDevice,
    link: Link,
    addresses: Vec<Address>,
}

/// Moves devices from this process's network namespace into that of the process `pid`.
///
/// # Errors
/// What failed, with the field of the config.
pub fn move_in(devices: &[NetDevice], pid: i32) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    let mut here = Side { route: Route::open()?, namespace: open_namespace("/proc/self/ns/net")? };
    let found: Result<Vec<Moving<'_>>> =
        devices.iter().map(|device| find(&mut here.route, device).within(|| field(device))).collect();
    let found = found?;
    let mut there = enter(&here.namespace, open_namespace(&format!("/proc/{pid}/ns/net"))?)?;
    for (index, moving) in found.iter().enumerate() {
        let new_name = &moving.device.new_name;
        let (outcome, moved) = match send(&mut here, &mut there, moving, new_name) {
            Ok(()) => (receive(&mut there, new_name, &moving.addresses, true), index + 1),
            Err(fault) => (Err(fault), index),
        };
        if outcome.is_err() {
            // The first failure is the one that is told.
            for earlier in found[..moved].iter().rev() {
                bring_back(&mut here, &mut there, earlier, &earlier.device.new_name);
            }
            return outcome.within(|| field(moving.device));
        }
    }
    Ok(())
}

fn field(device: &NetDevice) -> String {
    format!("config.json: linux.netDevices[{:?}]", device.name)
}

fn open_namespace(path: &str) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).call(|| format!("open({path:?})")).map_err(Fault::from)
}

/// A socket is in the namespace that its maker is in.
fn enter(own: &OwnedFd, namespace: OwnedFd) -> Result<Side> {
    namespace::join(&namespace, namespace::NEWNET).call(|| "setns(<init>, CLONE_NEWNET)")?;
    let route = Route::open();
    namespace::join(own, namespace::NEWNET).call(|| "setns(<own>, CLONE_NEWNET)")?;
    Ok(Side { route: route?, namespace })
}

fn find<'a>(route: &mut Route, device: &'a NetDevice) -> Result<Moving<'a>> {
    let link = match route.link(&device.name) {
        Err(error) if error.errno() == Errno::NODEV => {
            return Err(Fault::from(error).hint("the device must be in the network namespace of the runtime"));
        }
        other => other?,
    };
    let mut addresses = route.addresses(link.index)?;
    addresses.retain(Address::is_lasting);
    Ok(Moving { device, link, addresses })
}

/// Moves a device away. When it cannot leave, it is as it was.
fn send(from: &mut Side, to: &mut Side, moving: &Moving<'_>, name: &str) -> Result<()> {
    let link = &moving.link;
    from.route.set_up(link, false)?;
    let Err(error) = from.route.move_link(link, name, to.namespace.as_fd()) else { return Ok(()) };
    let gone = from.route.link(&link.name).is_err_and(|error| error.errno() == Errno::NODEV);
    if gone {
        // The kernel moves it first and gives the name then: that is what it refused.
        bring_back(from, to, moving, &link.name);
    } else if link.up {
        // Going down took the addresses of IPv6 away; those of IPv4 are there, and cannot be given twice.
        let _ = from.route.set_up(link, true);
        moving.addresses.iter().for_each(|address| drop(from.route.add_address(link, address)));
    }
    Err(hinted(error.errno(), error.into()))
}

/// Gives a device that has come what the way took from it.
fn receive(side: &mut Side, name: &str, addresses: &[Address], up: bool) -> Result<()> {
    let link = side.route.link(name)?;
    for address in addresses {
        side.route.add_address(&link, address)?;
    }
    if up { side.route.set_up(&link, true).map_err(Fault::from) } else { Ok(()) }
}

fn hinted(errno: Errno, fault: Fault) -> Fault {
    match errno {
        Errno::EXIST => fault.hint("the name is taken in the container's network namespace"),
        Errno::INVAL | Errno::OPNOTSUPP => {
            fault.hint("this kind of device cannot leave its network namespace")
        }
        _ => fault,
    }
}

/// Moves a device back that was moved. Nobody is left to be told of a failure.
fn bring_back(here: &mut Side, there: &mut Side, moving: &Moving<'_>, name: &str) {
    let Ok(link) = there.route.link(name) else { return };
    let _ = there.route.set_up(&link, false);
    if there.route.move_link(&link, &moving.link.name, here.namespace.as_fd()).is_ok() {
        let _ = receive(here, &moving.link.name, &moving.addresses, moving.link.up);
    }
}
