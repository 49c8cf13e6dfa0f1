//! bpf(2): the one kind of program that cgroup v2 needs, which decides about access to devices.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use crate::error::{Error, Result};

/// One eBPF instruction, laid out as the kernel's `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Destination register in the lower, source register in the upper half.
    pub registers: u8,
    /// Offset of a load, or instructions to skip.
    pub offset: i16,
    /// Operand.
    pub immediate: i32,
}

/// An identity of a loaded program on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramId(u32);

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 1 << 1;
const REPLACE: u32 = 1 << 2;
/// The kernel's limit of programs on one cgroup.
const MOST_PROGRAMS: usize = 64;

/// The front of `union bpf_attr`, zeroed: as long as any command used here reads or writes. (A query writes as far
/// as byte 64 whatever length it is told, Linux 6.17.)
#[repr(C, align(8))]
struct Attributes([u32; 32]);

impl Attributes {
    const fn new() -> Self {
        Self([0; 32])
    }

    /// Sets the 64-bit field at word `at` to an address.
    fn address<T>(&mut self, at: usize, pointer: *const T) {
        let bytes = (pointer as u64).to_ne_bytes();
        self.0[at] = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        self.0[at + 1] = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    }

    fn descriptor(&mut self, at: usize, fd: BorrowedFd<'_>) {
        self.0[at] = fd.as_raw_fd().cast_unsigned();
    }
}

/// Makes the call.
///
/// # Safety
/// Addresses in `attributes` point to what the command reads or writes, and outlive the call.
unsafe fn bpf(command: libc::c_int, attributes: &mut Attributes) -> std::result::Result<i64, Errno> {
    loop {
        // SAFETY: the attributes are zeroed beyond what the command defines, and their length is given; what they
        // point to is the caller's promise.
        let answer =
            unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<Attributes>()) };
        if answer >= 0 {
            return Ok(answer);
        }
        match Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO) {
            // The verifier gives up when a signal arrives.
            Errno::AGAIN | Errno::INTR => {}
            errno => return Err(errno),
        }
    }
}

fn new_descriptor(answer: i64, call: &str) -> Result<OwnedFd> {
    let fd = i32::try_from(answer).map_err(|_| Error::new(call, Errno::BADF))?;
    // SAFETY: the commands that come here answer with a new descriptor (close-on-exec) that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Loads a program that decides about device access (`BPF_PROG_TYPE_CGROUP_DEVICE`).
///
/// # Errors
/// `EPERM` without `CAP_BPF` and `CAP_NET_ADMIN` (or `CAP_SYS_ADMIN`) in the first user namespace; `EINVAL` or
/// `EACCES` for a program that the verifier refuses.
pub fn load_device_program(program: &[Instruction]) -> Result<OwnedFd> {
    let call = || format!("bpf(PROG_LOAD, cgroup device, {} instructions)", program.len());
    let mut attributes = Attributes::new();
    attributes.0[0] = TYPE_CGROUP_DEVICE;
    attributes.0[1] = u32::try_from(program.len()).map_err(|_| Error::new(call(), Errno::TOOBIG))?;
    attributes.address(2, program.as_ptr());
    attributes.address(4, c"Apache-2.0".as_ptr());
    // SAFETY: program and licence are live, and as long as the length and the NUL say.
    let answer = unsafe { bpf(PROG_LOAD, &mut attributes) };
    new_descriptor(answer.map_err(|errno| Error::new(call(), errno))?, "bpf(PROG_LOAD)")
}

/// Puts a device program on a cgroup, beside those of its ancestors (all must allow); with `replaced`, in its place.
///
/// # Errors
/// The failed call; `ENOENT` when `replaced` is not attached.
pub fn attach_device_program(
    cgroup: impl AsFd,
    program: impl AsFd,
    replaced: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let mut attributes = Attributes::new();
    attributes.descriptor(0, cgroup.as_fd());
    attributes.descriptor(1, program.as_fd());
    attributes.0[2] = ATTACH_CGROUP_DEVICE;
    attributes.0[3] = ALLOW_MULTI;
    if let Some(replaced) = replaced {
        attributes.0[3] |= REPLACE;
        attributes.descriptor(4, replaced);
    }
    // SAFETY: the command has no addresses.
    let answer = unsafe { bpf(PROG_ATTACH, &mut attributes) };
    answer.map(drop).map_err(|errno| Error::new("bpf(PROG_ATTACH, cgroup device)", errno))
}

/// Takes a device program off a cgroup.
///
/// # Errors
/// The failed call; `ENOENT` when it is not attached.
pub fn detach_device_program(cgroup: impl AsFd, program: impl AsFd) -> Result<()> {
    let mut attributes = Attributes::new();
    attributes.descriptor(0, cgroup.as_fd());
    attributes.descriptor(1, program.as_fd());
    attributes.0[2] = ATTACH_CGROUP_DEVICE;
    // SAFETY: the command has no addresses.
    let answer = unsafe { bpf(PROG_DETACH, &mut attributes) };
    answer.map(drop).map_err(|errno| Error::new("bpf(PROG_DETACH, cgroup device)", errno))
}

/// Lists the device programs that are on a cgroup itself.
///
/// # Errors
/// The failed call.
pub fn device_programs(cgroup: impl AsFd) -> Result<Vec<ProgramId>> {
    let mut ids = [0_u32; MOST_PROGRAMS];
    let mut attributes = Attributes::new();
    attributes.descriptor(0, cgroup.as_fd());
    attributes.0[1] = ATTACH_CGROUP_DEVICE;
    attributes.address(4, ids.as_mut_ptr());
    attributes.0[6] = MOST_PROGRAMS as u32;
    // SAFETY: the kernel writes at most the given count of ids, which is the length of `ids`.
    let answer = unsafe { bpf(PROG_QUERY, &mut attributes) };
    answer.map_err(|errno| Error::new("bpf(PROG_QUERY, cgroup device)", errno))?;
    let count = (attributes.0[6] as usize).min(MOST_PROGRAMS);
    Ok(ids[..count].iter().copied().map(ProgramId).collect())
}

/// Opens a loaded program.
///
/// # Errors
/// The failed call; `ENOENT` when it is gone.
pub fn open_program(id: ProgramId) -> Result<OwnedFd> {
    let mut attributes = Attributes::new();
    attributes.0[0] = id.0;
    // SAFETY: the command has no addresses.
    let answer = unsafe { bpf(PROG_GET_FD_BY_ID, &mut attributes) };
    let call = format!("bpf(PROG_GET_FD_BY_ID, {})", id.0);
    new_descriptor(answer.map_err(|errno| Error::new(call.clone(), errno))?, &call)
}

const _: () = assert!(size_of::<Instruction>() == 8);
