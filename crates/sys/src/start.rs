//! The start of the C library without its questions to the processor.
//!
//! A static glibc asks by some eighty CPUID instructions how large the caches are and which `memcpy` is the fastest,
//! before `main` and in every process. On a virtual machine each of them leaves the machine: 1 to 6 us, together up to
//! half a millisecond, of which a command that takes one millisecond has no use. [`begin`] does what
//! `__libc_start_main` of glibc 2.36 does (csu/libc-start.c), in its order, without `init_cpu_features`: what it would
//! have filled in stays zero, and every function of which there are several is then the one that any x86-64 has. Code
//! that asks the processor itself, as the decompressors and hashes do, is not concerned.
//!
//! The functions are the library's own and hidden, which is no hindrance within one static program, but they are
//! another release's in another form: `build.rs` lets this in for 2.36 only, and all others start as they do.

#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "walks over what the kernel and the linker laid out, one promise each"
)]

use std::arch::asm;
use std::ffi::{c_char, c_int, c_void};

type Main = unsafe extern "C" fn(c_int, *const *const c_char, *const *const c_char) -> c_int;
type Constructor = unsafe extern "C" fn(c_int, *const *const c_char, *const *const c_char);

/// `Elf64_Rela` of elf.h.
#[repr(C)]
struct Relocation {
    offset: *mut usize,
    info: u64,
    resolver: unsafe extern "C" fn() -> usize,
}

/// `R_X86_64_IRELATIVE` of elf.h.
const IRELATIVE: u32 = 37;

/// From how many bytes on `memcpy` goes past the caches: three quarters of the cache that a thread is taken to have,
/// as glibc reckons it, here of its own default of 1 MiB. With 0 it would do so for every size.
const NON_TEMPORAL_BYTES: i64 = 0xc_0000;

#[allow(non_upper_case_globals, reason = "the library's names")]
unsafe extern "C" {
    static mut __environ: *const *const c_char;
    static mut __libc_stack_end: *const usize;
    static mut __x86_shared_non_temporal_threshold: i64;
    static _dl_random: *const u8;
    static __libc_enable_secure: c_int;
    static __rela_iplt_start: [Relocation; 0];
    static __rela_iplt_end: [Relocation; 0];
    static __preinit_array_start: [Constructor; 0];
    static __preinit_array_end: [Constructor; 0];
    static __init_array_start: [Constructor; 0];
    static __init_array_end: [Constructor; 0];
    static __fini_array_start: [unsafe extern "C" fn(); 0];
    static __fini_array_end: [unsafe extern "C" fn(); 0];

    fn _dl_aux_init(vector: *const usize);
    fn __tunables_init(environment: *const *const c_char);
    fn __libc_setup_tls();
    fn __libc_early_init(initial: bool);
    fn __libc_init_first(argc: c_int, argv: *const *const c_char, environment: *const *const c_char);
    fn __libc_check_standard_fds();
    fn __cxa_atexit(
        function: unsafe extern "C" fn(*mut c_void),
        argument: *mut c_void,
        object: *mut c_void,
    ) -> c_int;
    fn _init();
    fn _fini();
    fn exit(code: c_int) -> !;
    fn main(argc: c_int, argv: *const *const c_char, environment: *const *const c_char) -> c_int;
}

/// Starts the C library, runs `main` and ends the process.
///
/// Until the relocations are done nothing here may become a call of `memcpy` or its kin.
///
/// # Safety
/// `stack` is the stack as the kernel makes it: argc, argv, null, environment, null, auxiliary vector. This is the
/// process's first work.
pub unsafe extern "C" fn begin(stack: *const usize) -> ! {
    // SAFETY: the caller's promise about the stack; the library's functions are called in the order in which it
    // calls them, each with what it gives them (csu/libc-start.c of 2.36).
    unsafe {
        let argc = *stack as c_int;
        let argv = stack.add(1).cast::<*const c_char>();
        let environment = argv.add(*stack + 1);
        __environ = environment;
        __libc_stack_end = stack;
        _dl_aux_init(behind_null(environment.cast()));
        __tunables_init(environment);
        __x86_shared_non_temporal_threshold = NON_TEMPORAL_BYTES;
        relocate();
        __libc_setup_tls();
        guards();
        __libc_early_init(true);
        __libc_init_first(argc, argv, environment);
        __cxa_atexit(finish, std::ptr::null_mut(), std::ptr::null_mut());
        if __libc_enable_secure != 0 {
            __libc_check_standard_fds();
        }
        let construct = |from: *const Constructor, to: *const Constructor| {
            let mut at = from;
            while at < to {
                (*at)(argc, argv, environment);
                at = at.add(1);
            }
        };
        construct((&raw const __preinit_array_start).cast(), (&raw const __preinit_array_end).cast());
        _init();
        construct((&raw const __init_array_start).cast(), (&raw const __init_array_end).cast());
        let main: Main = main;
        exit(main(argc, argv, environment))
    }
}

/// # Safety
/// `at` is in an array that ends with null; something follows it.
unsafe fn behind_null(mut at: *const usize) -> *const usize {
    // SAFETY: the caller's promise.
    unsafe {
        while *at != 0 {
            at = at.add(1);
        }
        at.add(1)
    }
}

/// Chooses among the functions of which there are several (`apply_irel` of csu/libc-start.c).
///
/// # Safety
/// Nobody has called one yet.
unsafe fn relocate() {
    let mut at: *const Relocation = (&raw const __rela_iplt_start).cast();
    let end: *const Relocation = (&raw const __rela_iplt_end).cast();
    // SAFETY: the linker made the table: each entry names a word of this program and the function that gives its
    // value. Another kind of entry is not in a static program; it would be left as it is.
    unsafe {
        while at < end {
            if (*at).info as u32 == IRELATIVE {
                let value = ((*at).resolver)();
                (*at).offset.write_volatile(value);
            }
            at = at.add(1);
        }
    }
}

/// Sets the canary of stack frames and the guard of saved pointers from the kernel's random bytes, as
/// `_dl_setup_stack_chk_guard` and `_dl_setup_pointer_guard` do.
///
/// # Safety
/// Thread-local storage is there.
unsafe fn guards() {
    // SAFETY: 16 bytes are at `_dl_random`; 0x28 and 0x30 are `stack_guard` and `pointer_guard` of `tcbhead_t`.
    unsafe {
        // They are wherever the kernel put them.
        let canary = _dl_random.cast::<usize>().read_unaligned() & !0xff;
        let pointers = _dl_random.add(8).cast::<usize>().read_unaligned();
        asm!(
            "mov fs:[0x28], {0}",
            "mov fs:[0x30], {1}",
            in(reg) canary,
            in(reg) pointers,
            options(nostack, preserves_flags),
        );
    }
}

/// Runs destructors, last first (`call_fini` of csu/libc-start.c).
unsafe extern "C" fn finish(_: *mut c_void) {
    let start: *const unsafe extern "C" fn() = (&raw const __fini_array_start).cast();
    let mut at: *const unsafe extern "C" fn() = (&raw const __fini_array_end).cast();
    // SAFETY: the linker made the table; exit calls this once.
    unsafe {
        while at > start {
            at = at.sub(1);
            (*at)();
        }
        _fini();
    }
}
