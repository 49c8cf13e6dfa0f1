//! A network namespace that is made beside the work of this thread.
//!
//! To make one takes the kernel as long as a third of a container's start, and clone3 would do it while everybody
//! waits. Here a second thread of this process makes it and ends, while the first decides what is to be done. Nobody
//! else ever sees that thread: it runs a dozen instructions from registers and system calls. It has no stack, no
//! thread-local storage, no signals and no Rust, so it can hold no lock and nothing that this process's memory holds.

#[cfg(target_arch = "x86_64")]
use std::arch::asm;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use rustix::io::Errno;
use rustix::thread::futex;

use crate::{namespace, process, raw};

/// A network namespace in the making.
#[derive(Debug)]
pub struct Network {
    /// At an address of its own, as this value may be moved.
    shared: Box<Shared>,
    taken: bool,
}

/// Nobody has claimed the work; the thread writes 1 when it does.
const OPEN: u32 = 0;
/// The work is not to be done any more.
const GIVEN_UP: u32 = 2;

/// What the thread and the kernel write.
#[derive(Debug)]
struct Shared {
    /// The thread's number until it ends; then the kernel makes it zero.
    thread: AtomicU32,
    /// The namespace's descriptor, or an errno, negative.
    answer: AtomicI32,
    /// Whether it is to be made: [`OPEN`] until the thread begins with it or somebody gives up.
    claim: AtomicU32,
}

impl Network {
    /// Begins, in a process that has one thread. `None` where it cannot be done beside: init can make the namespace, and has
    /// words for why not.
    #[must_use]
    pub fn begin() -> Option<Self> {
        process::one_thread().ok()?;
        let shared = Box::new(Shared {
            thread: AtomicU32::new(0),
            answer: AtomicI32::new(-1),
            claim: AtomicU32::new(OPEN),
        });
        start(&shared).then_some(Self { shared, taken: false })
    }

    /// Leaves it, if the thread has not begun: on a busy machine it may wait for a processor longer than the work takes.
    /// Tells whether it is left; [`Network::finish`] has none then.
    #[must_use]
    pub fn give_up(&self) -> bool {
        self.shared.claim.compare_exchange(OPEN, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Waits until it is made. This process has one thread then. `None` as for [`Network::begin`].
    #[must_use]
    pub fn finish(mut self) -> Option<OwnedFd> {
        self.taken = true;
        let namespace = self.wait()?;
        matches!(namespace::kind(&namespace), Ok(namespace::NEWNET)).then_some(namespace)
    }

    fn wait(&self) -> Option<OwnedFd> {
        loop {
            match self.shared.thread.load(Ordering::Acquire) {
                0 => break,
                // Not a private one: the kernel's own wake is not either.
                number => drop(futex::wait(&self.shared.thread, futex::Flags::empty(), number, None)),
            }
        }
        // It no longer has this memory, and is about to be no thread of this process: clone3 and setns want one.
        while process::one_thread().is_err_and(|error| error.errno() == Errno::INVAL) {
            rustix::thread::sched_yield();
        }
        let fd = self.shared.answer.load(Ordering::Acquire);
        // SAFETY: the thread's open(2) returned it, nobody else knows of it, and it is taken once: by `finish`, or by
        // `drop` when that was not called.
        (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if !self.taken {
            // The thread writes to this value's memory.
            drop(self.wait());
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn start(_: &Shared) -> bool {
    false
}

/// Starts the thread; `shared` lives until it has ended.
#[cfg(target_arch = "x86_64")]
fn start(shared: &Shared) -> bool {
    // A signal's handler would run on the stack of the first thread.
    let Ok(mask) = raw::signal_mask(u64::MAX) else { return false };
    let started = clone_thread(shared);
    // A mask of the kernel's size cannot be refused.
    let _ = raw::signal_mask(mask);
    started
}

#[cfg(target_arch = "x86_64")]
fn clone_thread(shared: &Shared) -> bool {
    let flags = libc::CLONE_VM
        | libc::CLONE_FILES
        | libc::CLONE_FS
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_PARENT_SETTID
        | libc::CLONE_CHILD_CLEARTID;
    let path = c"/proc/thread-self/ns/net";
    let answer: isize;
    // SAFETY: both threads go on behind the first system call, and only the first comes to the label 2 and so out of
    // this block: the other ends before. They have the same stack pointer, which the second never uses: its code has no
    // push, no call and no access to memory but those of `answer` and `claim`, which live until its end. It has no signals,
    // which would use that stack. It does not use thread-local storage, which would be the first's. The descriptors
    // are shared, so the one that open(2) returns is this process's. The kernel keeps all registers but rax, rcx, r11.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            // rax is 0, which is OPEN.
            "mov edx, 1",
            "lock cmpxchg dword ptr [r14], edx",
            "jne 4f",
            "mov edi, {network}",
            "mov eax, {unshare}",
            "syscall",
            "test eax, eax",
            "jnz 3f",
            "mov edi, {here}",
            "mov rsi, r13",
            "mov edx, {open}",
            "xor r10d, r10d",
            "mov eax, {openat}",
            "syscall",
            "3:",
            "mov dword ptr [r12], eax",
            "4:",
            "xor edi, edi",
            "mov eax, {exit}",
            "syscall",
            "ud2",
            "2:",
            network = const libc::CLONE_NEWNET,
            unshare = const libc::SYS_unshare,
            here = const libc::AT_FDCWD,
            open = const libc::O_RDONLY | libc::O_CLOEXEC,
            openat = const libc::SYS_openat,
            exit = const libc::SYS_exit,
            inlateout("rax") libc::SYS_clone as isize => answer,
            in("rdi") i64::from(flags),
            in("rsi") 0_usize,
            in("rdx") shared.thread.as_ptr(),
            in("r10") shared.thread.as_ptr(),
            in("r8") 0_usize,
            in("r12") shared.answer.as_ptr(),
            in("r13") path.as_ptr(),
            in("r14") shared.claim.as_ptr(),
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    answer > 0
}
