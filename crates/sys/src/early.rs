//! The seal, before anything else: what `bale runc create`, `run` and `exec` do first is to execute themselves again
//! from a sealed image ([`crate::seal`]), and all that the C library and Rust set up before `main` would be thrown
//! away with it. On a virtual machine that is a third of a millisecond, most of it the C library's CPUID
//! instructions, each of which leaves the machine.
//!
//! The linker makes [`bale_entry`] the program's first instruction (`build.rs` of the binary). It has no C library, no
//! thread-local storage, no allocator, no `memcpy`: only system calls. Whatever does not go as it should is left to
//! [`crate::seal::exec_sealed`], which tries again in `main` and has words for it.

#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "walks over what the kernel laid out, one promise each"
)]

use std::arch::{asm, global_asm};
use std::ffi::c_char;
use std::mem::MaybeUninit;

global_asm!(
    ".pushsection .text.bale_entry,\"ax\",@progbits",
    ".globl bale_entry",
    ".type bale_entry, @function",
    "bale_entry:",
    // What the kernel gave is kept for what follows: the stack pointer, and rdx.
    "mov r12, rsp",
    "mov r13, rdx",
    "mov rdi, rsp",
    "xor ebp, ebp",
    "and rsp, -16",
    "call {seal}",
    "mov rsp, r12",
    "mov rdx, r13",
    "jmp bale_begin",
    ".size bale_entry, . - bale_entry",
    ".popsection",
    seal = sym seal,
);

#[cfg(known_start)]
global_asm!(
    ".pushsection .text.bale_begin,\"ax\",@progbits",
    ".globl bale_begin",
    ".type bale_begin, @function",
    "bale_begin:",
    "mov rdi, rsp",
    "xor ebp, ebp",
    "and rsp, -16",
    "call {begin}",
    ".size bale_begin, . - bale_begin",
    ".popsection",
    begin = sym crate::start::begin,
);

#[cfg(not(known_start))]
global_asm!(
    ".globl bale_begin",
    ".type bale_begin, @function",
    "bale_begin:",
    "jmp _start",
    ".size bale_begin, . - bale_begin",
);

unsafe extern "C" {
    fn bale_entry();
}

/// Keeps the entry point in the program.
#[used]
static ENTRY: unsafe extern "C" fn() = bale_entry;

const AT_EXECFN: usize = 31;
const AT_FDCWD: usize = -100_isize as usize;
const PATH_MAX: usize = 4096;

/// # Safety
/// The arguments are what the system call wants.
unsafe fn call(number: i64, a: [usize; 5]) -> isize {
    let answer: isize;
    // SAFETY: the kernel keeps all registers but rax, rcx and r11; the caller answers for the arguments.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => answer,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3], in("r8") a[4],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    answer
}

/// Reads a byte so that the compiler does not make a loop of these a call of the C library.
///
/// # Safety
/// `at` is an address of this process's memory.
unsafe fn byte(at: *const c_char) -> u8 {
    // SAFETY: the caller's promise.
    unsafe { at.cast::<u8>().read_volatile() }
}

/// Tells whether the string at `at` begins with `word`, and with `whole` that it ends there.
///
/// # Safety
/// `at` is the address of a string that ends with NUL.
unsafe fn is(at: *const c_char, word: &[u8], whole: bool) -> bool {
    let mut index = 0;
    while index < word.len() {
        // SAFETY: not beyond the NUL, as all bytes before were equal to ones of `word`, which has none.
        if unsafe { byte(at.add(index)) } != word[index] {
            return false;
        }
        index += 1;
    }
    // SAFETY: as above.
    !whole || unsafe { byte(at.add(index)) } == 0
}

/// Tells whether these arguments are of a command that enters containers. Too often is no harm.
///
/// # Safety
/// `argv` has `argc` strings.
unsafe fn enters(argc: usize, argv: *const *const c_char) -> bool {
    let mut runtime = false;
    let mut name = true;
    let mut index = 0;
    while index < argc {
        // SAFETY: the caller's promise.
        let mut word = unsafe { *argv.add(index) };
        if name {
            let mut at = word;
            // SAFETY: up to the NUL of the string.
            while unsafe { byte(at) } != 0 {
                // SAFETY: as above.
                let slash = unsafe { byte(at) } == b'/';
                // SAFETY: as above: at most the NUL itself.
                at = unsafe { at.add(1) };
                if slash {
                    word = at;
                }
            }
            name = false;
        }
        // SAFETY: strings of argv end with NUL.
        unsafe {
            runtime |= is(word, b"runc", true) || is(word, b"crun", true) || is(word, b"bale-runc", true);
            if runtime && (is(word, b"run", true) || is(word, b"create", true) || is(word, b"exec", true)) {
                return true;
            }
        }
        if index == 1 && !runtime {
            return false;
        }
        index += 1;
    }
    false
}

/// Executes this program again from a sealed image, where its command enters containers and it is not sealed yet.
/// Returns otherwise, and when anything fails.
///
/// # Safety
/// `stack` is the stack as the kernel makes it: argc, argv, null, environment, null, auxiliary vector.
unsafe extern "C" fn seal(stack: *const usize) {
    // SAFETY: the caller's promise, for this and the walk below.
    let argc = unsafe { *stack };
    // SAFETY: argv follows argc.
    let argv = unsafe { stack.add(1) }.cast::<*const c_char>();
    // SAFETY: argv has argc strings.
    if !unsafe { enters(argc, argv) } {
        return;
    }
    // SAFETY: the environment follows argv's null.
    let env = unsafe { stack.add(argc + 2) };
    let mut at = env;
    // SAFETY: the environment ends with null.
    while unsafe { *at } != 0 {
        // SAFETY: as above.
        at = unsafe { at.add(1) };
    }
    // SAFETY: the auxiliary vector follows, pairs that end with a zero key.
    at = unsafe { at.add(1) };
    // SAFETY: as above.
    while unsafe { *at } != 0 {
        // SAFETY: AT_EXECFN's value is the address of a string.
        if unsafe { *at == AT_EXECFN && is(*at.add(1) as *const c_char, b"/dev/fd/", false) } {
            return;
        }
        // SAFETY: as above.
        at = unsafe { at.add(2) };
    }
    // SAFETY: argv and environment are the kernel's.
    unsafe { execute(argv as usize, env as usize) };
}

/// # Safety
/// `argv` and `env` are the addresses of arrays for execve.
unsafe fn execute(argv: usize, env: usize) {
    let mut path = MaybeUninit::<[u8; PATH_MAX]>::uninit();
    let start = path.as_mut_ptr().cast::<u8>();
    let exe = c"/proc/self/exe".as_ptr() as usize;
    // SAFETY: the buffer is live and one byte longer than what is passed.
    let length = unsafe { call(libc::SYS_readlink, [exe, start as usize, PATH_MAX - 1, 0, 0]) };
    if length <= 1 || length as usize >= PATH_MAX - 1 {
        return;
    }
    let mut slash = length as usize;
    // SAFETY: within what readlink wrote.
    while slash > 0 && unsafe { start.add(slash - 1).read_volatile() } != b'/' {
        slash -= 1;
    }
    if slash == 0 {
        return;
    }
    // SAFETY: within the buffer, which has a byte more than readlink's part.
    unsafe { start.add(length as usize).write_volatile(0) };
    // SAFETY: `slash` is within the string; the part before it becomes a string of its own.
    unsafe { start.add(slash - 1).write_volatile(0) };
    let dir = if slash == 1 { c"/".as_ptr() as usize } else { start as usize };
    // SAFETY: as above.
    let name = unsafe { start.add(slash) } as usize;
    // SAFETY: strings end with NUL and are live; descriptors are this function's own.
    unsafe { execute_image(dir, name, exe, argv, env) };
}

/// # Safety
/// `dir`, `name` and `exe` are addresses of strings, `argv` and `env` of arrays for execve.
unsafe fn execute_image(dir: usize, name: usize, exe: usize, argv: usize, env: usize) {
    let key = c"lowerdir+".as_ptr() as usize;
    let (overlay, second, empty) =
        (c"overlay".as_ptr() as usize, c"/dev".as_ptr() as usize, c"".as_ptr() as usize);
    // SAFETY: constant strings.
    let fs = unsafe { call(libc::SYS_fsopen, [overlay, 1, 0, 0, 0]) };
    if fs < 0 {
        return;
    }
    let fs = fs as usize;
    // SAFETY: strings as promised; 1 is FSCONFIG_SET_STRING, 6 is FSCONFIG_CMD_CREATE.
    let failed = unsafe {
        call(libc::SYS_fsconfig, [fs, 1, key, dir, 0]) < 0
            || call(libc::SYS_fsconfig, [fs, 1, key, second, 0]) < 0
            || call(libc::SYS_fsconfig, [fs, 6, 0, 0, 0]) < 0
    };
    // SAFETY: numbers only: FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY|MOUNT_ATTR_NODEV.
    let mount = if failed { -1 } else { unsafe { call(libc::SYS_fsmount, [fs, 1, 0x5, 0, 0]) } };
    if mount >= 0 {
        let flags = (libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC) as usize;
        // SAFETY: `name` as promised.
        let image = unsafe { call(libc::SYS_openat, [mount as usize, name, flags, 0, 0]) };
        if image >= 0 {
            // SAFETY: strings and arrays as promised.
            unsafe {
                if same(image as usize, exe, empty) {
                    let at_empty = libc::AT_EMPTY_PATH as usize;
                    call(libc::SYS_execveat, [image as usize, empty, argv, env, at_empty]);
                }
                call(libc::SYS_close, [image as usize, 0, 0, 0, 0]);
            }
        }
        // SAFETY: this function's own descriptor.
        unsafe { call(libc::SYS_close, [mount as usize, 0, 0, 0, 0]) };
    }
    // SAFETY: this function's own descriptor.
    unsafe { call(libc::SYS_close, [fs, 0, 0, 0, 0]) };
}

/// Tells whether the image is the running binary, which may have been replaced on disk since it started.
///
/// # Safety
/// `exe` and `empty` are addresses of strings.
unsafe fn same(image: usize, exe: usize, empty: usize) -> bool {
    let mut one = MaybeUninit::<libc::stat>::uninit();
    let mut two = MaybeUninit::<libc::stat>::uninit();
    let (first, second) = (one.as_mut_ptr(), two.as_mut_ptr());
    let at_empty = libc::AT_EMPTY_PATH as usize;
    // SAFETY: the buffers are live and have the size of the kernel's struct stat, which libc's is on x86-64.
    unsafe {
        if call(libc::SYS_newfstatat, [image, empty, first as usize, at_empty, 0]) < 0
            || call(libc::SYS_newfstatat, [AT_FDCWD, exe, second as usize, 0, 0]) < 0
        {
            return false;
        }
    }
    // SAFETY: the kernel filled both.
    unsafe {
        (*first).st_ino == (*second).st_ino
            && (*first).st_size == (*second).st_size
            && (*first).st_mtime == (*second).st_mtime
            && (*first).st_mtime_nsec == (*second).st_mtime_nsec
    }
}
