//! The executor. Everything here runs in a fresh child with one thread: no allocation, no locks.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use bale_sys::mount::{self, Attributes, FsContext, attr, propagation};
use bale_sys::process::{
    close_all_but, close_on_exec_from, default_signals, exec, exit_now, fork_sibling, place_fd,
};
use bale_sys::{identity, namespace, netlink, seccomp, socket, terminal};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;

use super::files::{self, Want};
use super::report::{
    ANNOUNCED, ANNOUNCED_LENGTH, Call, DONE, Failure, LIMITED, MESSAGE_MAX, MOVED, READY, SYNC, TEXT_MAX,
};
use super::{Filter, Inherited, Program, hook, procfs};
use crate::plan::kind_flag;
use crate::plan::op::{Op, Point, Target};
use crate::timings;

type Outcome = Result<(), Failure>;

/// What init has opened so far.
pub(super) struct Init<'a> {
    given: &'a Inherited<'a>,
    program: &'a Program,
    filter: &'a Filter,
    root: Option<BorrowedFd<'a>>,
    null: Option<OwnedFd>,
    null_is_tree: bool,
    empty: Option<OwnedFd>,
    dev: Option<OwnedFd>,
    cwd: Option<OwnedFd>,
    cwd_entered: bool,
    label: Option<OwnedFd>,
    program_path: usize,
    umask: u32,
    /// Every descriptor from here on is closed by exec.
    closing: bool,
    /// Failures go to `result.fifo`: the parent is gone.
    detached: bool,
    /// The parent has said [`LIMITED`].
    limited: bool,
    /// When it began, and when it had its root.
    times: [u64; 2],
    /// The kernel's words about a failed mount.
    log: [u8; TEXT_MAX],
    log_length: usize,
}

/// Executes the operations. Returns the exit status for when one failed; the last operation is an exec.
pub fn run(ops: &[Op], given: &Inherited<'_>, program: &Program, filter: &Filter) -> u8 {
    let mut init = Init {
        given,
        program,
        filter,
        root: given.root.map(AsFd::as_fd),
        null: None,
        null_is_tree: false,
        empty: None,
        dev: None,
        cwd: None,
        cwd_entered: false,
        label: None,
        program_path: 0,
        umask: 0o022,
        closing: false,
        detached: false,
        limited: false,
        times: [timings::now(), 0],
        log: [0; TEXT_MAX],
        log_length: 0,
    };
    // Modes of what is created are exactly those of the plan.
    rustix::process::umask(Mode::empty());
    for (index, op) in ops.iter().enumerate() {
        if let Err(mut failure) = init.execute(op) {
            failure.op = u16::try_from(index).unwrap_or(u16::MAX);
            init.tell(&failure);
            return 1;
        }
    }
    1
}

/// Names the call that failed.
pub(super) fn at(call: Call) -> impl Fn(Errno) -> Failure {
    move |errno| Failure::new(call, errno.raw_os_error())
}

impl<'a> Init<'a> {
    fn tell(&self, failure: &Failure) {
        let mut message = [0; MESSAGE_MAX];
        let length = failure.encode(&self.log[..self.log_length], &mut message);
        // There is nobody else to tell when this fails.
        let _ = match (self.detached, self.given.fifos) {
            (true, Some((_, result))) => rustix::io::write(result, &message[..length]).map(|_| ()),
            _ => socket::send(self.given.parent, &message[..length]),
        };
    }

    fn source(&self, source: crate::plan::op::Src) -> Result<&'a OwnedFd, Failure> {
        self.given.sources.get(usize::from(source.0)).ok_or(Failure::new(Call::None, libc_badf()))
    }

    fn root(&self) -> Result<BorrowedFd<'a>, Failure> {
        self.root.ok_or(Failure::new(Call::None, libc_badf()))
    }

    fn open(&self, target: &Target, want: Want) -> Result<OwnedFd, Failure> {
        files::open_target(self.root()?, target, want)
    }

    fn execute(&mut self, op: &Op) -> Outcome {
        match op {
            Op::JoinCgroups => self.join_cgroups(),
            Op::JoinGroup { source, .. } => {
                rustix::io::write(self.source(*source)?, b"0").map(drop).map_err(at(Call::Write))
            }
            Op::Join { source, kind } => {
                namespace::join(self.source(*source)?, kind_flag(*kind)).map_err(at(Call::Setns))
            }
            Op::NewCgroupNamespace => namespace::unshare(namespace::NEWCGROUP).map_err(at(Call::Unshare)),
            Op::Sync(Point::Limited) => self.await_limits(),
            Op::Sync(point) => self.sync(*point, -1),
            Op::BecomeRoot => become_ids(0, 0, Some(&[])),
            Op::WriteSelf { path, value, lenient } => {
                files::write_host(self.given.proc.as_fd(), path, value, *lenient)
            }
            Op::OpenLabel { paths } => {
                files::open_first(self.given.proc.as_fd(), paths).map(|fd| self.label = Some(fd))
            }
            Op::WriteLabel { value } => self.write_label(value),
            Op::PrivateMounts => {
                mount::change_root_propagation(propagation::PRIVATE, true).map_err(at(Call::MountSetattr))
            }
            Op::AttachRoot { source, at: place } => self.attach_root(*source, place.as_deref()),
            Op::OpenNull => self.open_null(),
            Op::Mount {
                kind,
                options,
                attributes,
                after,
                target,
                no_links,
                copy_up,
                keep_mode,
                index: _,
                pids,
            } => {
                let want = if *no_links { Want::DirectoryNoLinks } else { Want::Directory };
                let mode = if *keep_mode { files::mode_if_there(self.root()?, target)? } else { None };
                let target = self.open(target, want)?;
                let tree = match pids {
                    Some(source) => self.make_procfs(*source, options, *attributes)?,
                    None => self.make_mount(kind, options, mode, *attributes)?,
                };
                if *copy_up {
                    files::copy_up(target.as_fd(), tree.as_fd())?;
                }
                if !after.is_empty() {
                    mount::set_attributes(&tree, true, *after).map_err(at(Call::MountSetattr))?;
                }
                mount::attach(&tree, &target).map_err(at(Call::MoveMount))
            }
            Op::Remount { options, change, target, .. } => self.remount(options.as_deref(), *change, target),
            Op::CopyLink { parent, name, to, .. } => {
                let parent = self.open(parent, Want::Directory)?;
                files::same_link(parent.as_fd(), name, to)
            }
            Op::Bind { source, target, no_follow, .. } => self.bind(*source, target, *no_follow),
            Op::BindDevice { source, target } => {
                let target = self.open(target, Want::File)?;
                mount::attach(self.source(*source)?, &target).map_err(at(Call::MoveMount))
            }
            Op::OpenDev { target } => self.open(target, Want::Directory).map(|fd| self.dev = Some(fd)),
            Op::Node { parent, name, mode, device, owner } => {
                self.node(parent.as_ref(), name, *mode, *device, *owner)
            }
            Op::DevLink { name, to } => files::link(self.dev()?, name, to),
            Op::Link { parent, name, to } => {
                let parent = self.open(parent, Want::Directory)?;
                files::link(parent.as_fd(), name, to)
            }
            Op::SetMount { target, change } => {
                let target = self.open(target, Want::Existing)?;
                mount::set_attributes(&target, false, *change).map_err(at(Call::MountSetattr))
            }
            Op::Hook(hook) => hook::run(hook),
            Op::Mask(target) => self.mask(target),
            Op::ReadOnly(target) => self.read_only(target),
            Op::Terminal { size, console, control } => self.terminal(*size, *console, *control),
            Op::PlaceStdio => self.place_stdio(),
            Op::Sysctl { path, value, .. } => files::write_host(self.given.proc.as_fd(), path, value, false),
            Op::OpenCwd(target) => self.open(target, Want::Directory).map(|fd| self.cwd = Some(fd)),
            Op::PivotRoot { no_pivot } => self.pivot(*no_pivot),
            Op::SetRoot { change, recursive } => {
                mount::set_attributes(self.root()?, *recursive, *change).map_err(at(Call::MountSetattr))
            }
            Op::HostName(name) => rustix::system::sethostname(name).map_err(at(Call::None)),
            Op::DomainName(name) => rustix::system::setdomainname(name).map_err(at(Call::None)),
            Op::LoopbackUp => netlink::loopback_up().map_err(at(Call::None)),
            Op::Keyring(name) => keyring(name),
            Op::NewSession => new_session(),
            Op::Limit { resource, soft, hard, .. } => {
                identity::set_limit(*resource, *soft, *hard).map_err(at(Call::Prlimit))
            }
            Op::Personality(value) => identity::set_personality(*value).map_err(at(Call::None)),
            Op::Scheduler(attr) => identity::set_scheduler(attr).map_err(at(Call::None)),
            Op::IoPriority { class, level } => {
                identity::set_io_priority(*class, *level).map_err(at(Call::None))
            }
            Op::MemoryPolicy { mode, nodes } => {
                identity::set_memory_policy(*mode, nodes).map_err(at(Call::None))
            }
            Op::Affinity(mask) => identity::set_affinity(mask).map_err(at(Call::None)),
            Op::AllProcessors => {
                // An outer filter may forbid it.
                let _ = identity::set_affinity(&[u64::MAX; 128]);
                Ok(())
            }
            Op::OwnStdio { uid } => {
                self.own_stdio(*uid)?;
                self.close_rest()
            }
            Op::NoNewPrivileges => identity::no_new_privileges().map_err(at(Call::Prctl)),
            Op::Seccomp { listener } => self.seccomp(*listener),
            Op::DropBounding(set) => identity::drop_bounding(*set).map_err(at(Call::Prctl)),
            Op::Ids { uid, gid, groups } => become_ids(*uid, *gid, groups.as_deref()),
            Op::Capabilities { effective, permitted, inheritable, ambient } => {
                identity::set_capabilities(*effective, *permitted, *inheritable).map_err(at(Call::Capset))?;
                identity::set_ambient(*ambient).map_err(at(Call::Prctl))
            }
            Op::EnterCwd => self.enter_cwd(),
            Op::Chdir(path) => self.change_directory(path),
            Op::Umask(mask) => {
                self.umask = *mask;
                Ok(())
            }
            Op::EnterPids => self.enter_pids(),
            Op::Session { terminal } => session(*terminal),
            Op::FindProgram => self.find_program(),
            // Failures to tell are told by whoever reads: the parent may be gone.
            Op::Announce => {
                self.announce();
                Ok(())
            }
            Op::WaitForStart => self.wait_for_start(),
            Op::Exec => Err(self.exec()),
        }
    }

    fn join_cgroups(&self) -> Outcome {
        for (index, tasks) in self.given.tasks.iter().enumerate() {
            if let Err(errno) = rustix::io::write(tasks, b"0") {
                let mut failure = at(Call::Write)(errno);
                failure.argument = u16::try_from(index).unwrap_or(0);
                return Err(failure);
            }
        }
        Ok(())
    }

    /// Tells the parent where init is and waits for its word. `detail` is a descriptor's number for the listener.
    fn sync(&mut self, point: Point, detail: i32) -> Outcome {
        let mut message = [SYNC, point as u8, 0, 0, 0, 0, 0, 0];
        message[4..8].copy_from_slice(&detail.to_ne_bytes());
        // write and read, not sendmsg and recvmsg: with a listener the filter is loaded already.
        rustix::io::write(self.given.parent, &message).map_err(at(Call::Write))?;
        while self.word()? != DONE {}
        Ok(())
    }

    fn announce(&self) {
        let mut message = [0_u8; ANNOUNCED_LENGTH];
        message[0] = ANNOUNCED;
        let times = [self.times[0], self.times[1], timings::now()];
        for (place, time) in message[8..].chunks_exact_mut(8).zip(times) {
            place.copy_from_slice(&time.to_ne_bytes());
        }
        let _ = socket::send(self.given.parent, &message);
    }

    fn await_limits(&mut self) -> Outcome {
        self.announce();
        while !self.limited {
            self.word()?;
        }
        Ok(())
    }

    /// Waits for the parent's next word.
    fn word(&mut self) -> Result<u8, Failure> {
        let mut word = [0_u8; 1];
        loop {
            match rustix::io::read(self.given.parent, &mut word) {
                Ok(0) => return Err(Failure::new(Call::Read, Errno::PIPE.raw_os_error())),
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(at(Call::Read)(errno)),
            }
        }
        self.limited |= word[0] == LIMITED;
        Ok(word[0])
    }

    fn write_label(&self, value: &[u8]) -> Outcome {
        let file = self.label.as_ref().ok_or(Failure::new(Call::Open, libc_badf()))?;
        rustix::io::write(file, value).map(|_| ()).map_err(at(Call::Write))
    }

    fn attach_root(&mut self, source: crate::plan::op::Src, place: Option<&std::ffi::CStr>) -> Outcome {
        let tree = self.source(source)?;
        match place {
            None => mount::attach_on_root(tree).map_err(at(Call::MoveMount))?,
            Some(place) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let target = rustix::fs::open(place, flags, Mode::empty()).map_err(at(Call::Open))?;
                // By path: it must be the directory that the parent cloned.
                let same = |a: Stat, b: Stat| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino);
                if !rustix::fs::fstat(&target)
                    .is_ok_and(|t| rustix::fs::fstat(tree).is_ok_and(|s| same(t, s)))
                {
                    return Err(at(Call::Open)(Errno::STALE));
                }
                mount::attach(tree, &target).map_err(at(Call::MoveMount))?;
            }
        }
        self.root = Some(tree.as_fd());
        Ok(())
    }

    fn open_null(&mut self) -> Outcome {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let null = rustix::fs::open(c"/dev/null", flags, Mode::empty()).map_err(at(Call::Open))?;
        let stat = rustix::fs::fstat(&null).map_err(at(Call::Open))?;
        if !is_null(&stat) {
            return Err(Failure::new(Call::NotTheDevice, Errno::NODEV.raw_os_error()));
        }
        self.null = Some(null);
        Ok(())
    }

    fn make_mount(
        &mut self,
        kind: &std::ffi::CStr,
        options: &[(std::ffi::CString, Option<std::ffi::CString>)],
        mode: Option<u32>,
        attributes: u64,
    ) -> Result<OwnedFd, Failure> {
        let context = FsContext::open(kind).map_err(at(Call::FsOpen))?;
        if let Some(mode) = mode {
            let text = files::octal(mode);
            let text = std::ffi::CStr::from_bytes_until_nul(&text).unwrap_or(c"1777");
            context.set(c"mode", Some(text)).map_err(at(Call::FsCreate))?;
        }
        let made =
            configure(&context, options).and_then(|()| context.mount(attributes).map_err(at(Call::FsMount)));
        if made.is_err() {
            self.log_length = context.read_log(&mut self.log);
        }
        made
    }

    fn remount(
        &mut self,
        options: Option<&[(std::ffi::CString, Option<std::ffi::CString>)]>,
        change: Attributes,
        target: &Target,
    ) -> Outcome {
        let target = self.open(target, Want::Existing)?;
        if let Some(options) = options {
            let context = FsContext::pick(&target).map_err(at(Call::FsPick))?;
            let changed = set_options(&context, options)
                .and_then(|()| context.reconfigure().map_err(at(Call::FsReconfigure)));
            if changed.is_err() {
                self.log_length = context.read_log(&mut self.log);
                return changed;
            }
        }
        mount::set_attributes(&target, false, change).map_err(at(Call::MountSetattr))
    }

    /// Makes a procfs of a pid namespace that is entered later.
    fn make_procfs(
        &mut self,
        pids: crate::plan::op::Src,
        options: &[(std::ffi::CString, Option<std::ffi::CString>)],
        attributes: u64,
    ) -> Result<OwnedFd, Failure> {
        let context = procfs::begin(self.source(pids)?).map_err(at(Call::FsOpen))?;
        let made =
            configure(&context, options).and_then(|()| context.mount(attributes).map_err(at(Call::FsMount)));
        if made.is_err() {
            self.log_length = context.read_log(&mut self.log);
        }
        let tree = made?;
        // Whoever has power over processes in the namespace may have begun another.
        let kind = rustix::fs::fstatfs(&tree).map_err(at(Call::FsMount))?.f_type;
        if kind != rustix::fs::PROC_SUPER_MAGIC {
            return Err(Failure::new(Call::FsMount, Errno::PERM.raw_os_error()));
        }
        Ok(tree)
    }

    fn bind(&self, source: crate::plan::op::Src, target: &Target, no_follow: bool) -> Outcome {
        let tree = self.source(source)?;
        let stat = rustix::fs::fstat(tree).map_err(at(Call::OpenTree))?;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let want = match (no_follow, is_directory) {
            (true, _) => Want::ExistingNoFollow,
            (false, true) => Want::Directory,
            (false, false) => Want::File,
        };
        let target = self.open(target, want)?;
        mount::attach(tree, &target).map_err(|errno| match errno {
            // What mount(2) says to a file on a directory: docker and its users know these words.
            Errno::INVAL if !is_directory && is_directory_fd(&target) => at(Call::MoveMount)(Errno::NOTDIR),
            errno => at(Call::MoveMount)(errno),
        })
    }

    fn dev(&self) -> Result<BorrowedFd<'_>, Failure> {
        self.dev.as_ref().map(AsFd::as_fd).ok_or(Failure::new(Call::None, libc_badf()))
    }

    fn node(
        &self,
        parent: Option<&Target>,
        name: &std::ffi::CStr,
        mode: u32,
        device: u64,
        owner: (u32, u32),
    ) -> Outcome {
        match parent {
            None => files::node(self.dev()?, name, mode, device, owner),
            Some(parent) => {
                let parent = self.open(parent, Want::Directory)?;
                files::node(parent.as_fd(), name, mode, device, owner)
            }
        }
    }

    fn mask(&mut self, target: &Target) -> Outcome {
        let Some(target) = files::open_if_there(self.root()?, target)? else { return Ok(()) };
        let stat = rustix::fs::fstat(&target).map_err(at(Call::OpenTarget))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return self.mask_directory(&target);
        }
        let null = self.null.as_ref().ok_or(Failure::new(Call::Open, libc_badf()))?;
        let tree = mount::clone_fd(null, false).map_err(at(Call::OpenTree))?;
        if !self.null_is_tree {
            let set = attr::RDONLY | attr::NOSUID | attr::NOEXEC;
            let change = Attributes { set, propagation: propagation::PRIVATE, clear: 0 };
            mount::set_attributes(&tree, false, change).map_err(at(Call::MountSetattr))?;
        }
        mount::attach(&tree, &target).map_err(at(Call::MoveMount))?;
        // The next ones are clones of this one and read-only from birth.
        (self.null, self.null_is_tree) = (Some(tree), true);
        Ok(())
    }

    /// Puts an empty read-only directory there: one file system for all of them.
    fn mask_directory(&mut self, target: &OwnedFd) -> Outcome {
        if let Some(empty) = &self.empty {
            let tree = mount::clone_fd(empty, false).map_err(at(Call::OpenTree))?;
            return mount::attach(&tree, target).map_err(at(Call::MoveMount));
        }
        let context = FsContext::open(c"tmpfs").map_err(at(Call::FsOpen))?;
        context.set(c"source", Some(c"tmpfs")).map_err(at(Call::FsConfig))?;
        context.set(c"nr_inodes", Some(c"1")).map_err(at(Call::FsConfig))?;
        context.set(c"mode", Some(c"0555")).map_err(at(Call::FsConfig))?;
        context.create().map_err(at(Call::FsCreate))?;
        let attributes = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
        let tree = context.mount(attributes).map_err(at(Call::FsMount))?;
        mount::attach(&tree, target).map_err(at(Call::MoveMount))?;
        self.empty = Some(tree);
        Ok(())
    }

    fn read_only(&self, target: &Target) -> Outcome {
        let Some(target) = files::open_if_there(self.root()?, target)? else { return Ok(()) };
        let tree = mount::clone_fd(&target, true).map_err(at(Call::OpenTree))?;
        let change = Attributes { set: attr::RDONLY, ..Attributes::default() };
        mount::set_attributes(&tree, true, change).map_err(at(Call::MountSetattr))?;
        mount::attach(&tree, &target).map_err(at(Call::MoveMount))
    }

    fn terminal(&self, size: Option<(u16, u16)>, console: bool, control: bool) -> Outcome {
        let master = files::open_multiplexer(self.root()?, self.given.proc.as_fd())?;
        let peer = terminal::peer_of(&master).map_err(at(Call::Ioctl))?;
        if self.given.console.is_none() {
            // As runc: what is sent over a console socket is an ordinary terminal, with `\r\n`.
            terminal::keep_newlines(&master).map_err(at(Call::Ioctl))?;
        }
        if let Some((rows, columns)) = size {
            terminal::set_size(&master, rows, columns).map_err(at(Call::Ioctl))?;
        }
        if console {
            let target = files::open_console(self.root()?)?;
            let tree = mount::clone_fd(&peer, false).map_err(at(Call::OpenTree))?;
            mount::attach(&tree, &target).map_err(at(Call::MoveMount))?;
        }
        let to = self.given.console.unwrap_or(self.given.parent);
        socket::send_fd(to, b"/dev/ptmx", master.as_fd()).map_err(at(Call::Send))?;
        drop(master);
        if control {
            new_session()?;
            terminal::make_controlling(&peer).map_err(at(Call::Ioctl))?;
        }
        for number in 0..3 {
            place_fd(peer.as_raw_fd(), number).map_err(at(Call::Dup))?;
        }
        Ok(())
    }

    fn place_stdio(&self) -> Outcome {
        let Some(streams) = self.given.stdio else { return Ok(()) };
        for (number, stream) in (0..).zip(streams) {
            place_fd(stream.as_raw_fd(), number).map_err(at(Call::Dup))?;
        }
        Ok(())
    }

    fn pivot(&mut self, no_pivot: bool) -> Outcome {
        rustix::process::fchdir(self.root()?).map_err(at(Call::Chdir))?;
        if no_pivot {
            return rustix::process::chroot(c".").map_err(at(Call::Chroot));
        }
        mount::pivot_to_cwd().map_err(at(Call::Pivot))?;
        mount::detach_cwd().map_err(at(Call::Unmount))?;
        self.times[1] = timings::now();
        rustix::process::chdir(c"/").map_err(at(Call::Chdir))
    }

    fn own_stdio(&self, uid: u32) -> Outcome {
        for number in 0..3 {
            let stream = match number {
                0 => rustix::stdio::stdin(),
                1 => rustix::stdio::stdout(),
                _ => rustix::stdio::stderr(),
            };
            // A closed stream stays closed.
            let Ok(stat) = rustix::fs::fstat(stream) else { continue };
            if is_null(&stat) {
                self.take_null(number)?;
                continue;
            }
            let device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
            // Of devices only terminals change hands (136 to 143 are those of devpts).
            if stat.st_uid == uid || device && !(136..=143).contains(&rustix::fs::major(stat.st_rdev)) {
                continue;
            }
            // EPERM, EINVAL and EROFS: not ours to give, or not mapped here.
            let _ = rustix::fs::fchown(stream, Some(Uid::from_raw(uid)), None);
        }
        Ok(())
    }

    /// Closes what leads to the host, before anything that the config names is looked up as the container sees it:
    /// `/proc/self/fd/7` must not be a directory of the host (CVE-2024-21626), neither for this process nor for
    /// another that may look at one that waits for `start`.
    fn close_rest(&mut self) -> Outcome {
        (self.null, self.empty, self.dev) = (None, None, None);
        // With a directory opened before, the root was only for finding that.
        self.root = self.root.filter(|_| self.cwd.is_none());
        let number = |fd: Option<&OwnedFd>| fd.map_or(-1, AsRawFd::as_raw_fd);
        let (start, result) =
            self.given.fifos.map_or((-1, -1), |(start, result)| (start.as_raw_fd(), result.as_raw_fd()));
        let root = self.root.map_or(-1, |root| root.as_raw_fd());
        let (cwd, label) = (number(self.cwd.as_ref()), number(self.label.as_ref()));
        let keep = [self.given.parent.as_raw_fd(), start, result, root, cwd, label];
        close_all_but(3 + self.given.preserve_fds, &keep).map_err(at(Call::None))
    }

    /// Enters a directory of the container that was joined; magic links of procfs lead nowhere.
    fn change_directory(&self, path: &std::ffi::CStr) -> Outcome {
        let root = self.root()?;
        let directory = files::open_directory(root, path).map_err(at(Call::Chdir))?;
        rustix::process::fchdir(&directory).map_err(at(Call::Chdir))
    }

    /// Puts the container's own `/dev/null` in place of the host's, if it has one that is the device.
    fn take_null(&self, number: i32) -> Outcome {
        let Some(root) = self.root else { return Ok(()) };
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        // What is there is looked at before it is opened for real: opening a device has effects.
        let path = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(found) = rustix::fs::openat2(root, c"dev/null", path, Mode::empty(), resolve) else {
            return Ok(());
        };
        if !rustix::fs::fstat(&found).is_ok_and(|stat| is_null(&stat)) {
            return Ok(());
        }
        let Ok(null) = rustix::fs::openat2(root, c"dev/null", flags, Mode::empty(), resolve) else {
            return Ok(());
        };
        if !rustix::fs::fstat(&null).is_ok_and(|stat| is_null(&stat)) {
            return Ok(());
        }
        place_fd(null.as_raw_fd(), number).map_err(at(Call::Dup))
    }

    fn seccomp(&mut self, listener: bool) -> Outcome {
        // What the filter may refuse comes before it: a profile without close_range is common.
        self.close_on_exec()?;
        let loaded = seccomp::load(&self.filter.instructions, self.filter.flags);
        let fd = loaded.map_err(|error| at(Call::Seccomp)(error))?;
        match fd {
            Some(fd) if listener => self.sync(Point::Listener, fd.as_raw_fd()),
            _ => Ok(()),
        }
    }

    fn enter_cwd(&mut self) -> Outcome {
        let Some(cwd) = self.cwd.as_ref().filter(|_| !self.cwd_entered) else { return Ok(()) };
        match rustix::process::fchdir(cwd) {
            Ok(()) => {
                self.cwd_entered = true;
                Ok(())
            }
            Err(errno) => Err(at(Call::Chdir)(errno)),
        }
    }

    /// Goes on in a new process, and ends this one.
    fn enter_pids(&self) -> Outcome {
        let Some(child) = fork_sibling().map_err(at(Call::Fork))? else { return Ok(()) };
        let mut message = [MOVED, 0, 0, 0, 0, 0, 0, 0];
        message[4..8].copy_from_slice(&child.pid.to_ne_bytes());
        // When the parent is gone, there is nobody to tell.
        let _ = socket::send_fd(self.given.parent, &message, child.pidfd.as_fd());
        exit_now(0)
    }

    fn find_program(&mut self) -> Outcome {
        (self.cwd, self.label) = (None, None);
        let mut worst = Failure::new(Call::NotInPath, Errno::NOENT.raw_os_error());
        for (index, candidate) in self.program.candidates.iter().enumerate() {
            match executable(candidate) {
                Ok(()) => {
                    self.program_path = index;
                    return Ok(());
                }
                Err(errno) if !self.program.in_path => return Err(at(Call::Program)(errno)),
                // As Go's LookPath: what cannot be executed is passed over, and remembered.
                Err(Errno::ACCESS) => worst.errno = Errno::ACCESS.raw_os_error(),
                Err(_) => {}
            }
        }
        Err(worst)
    }

    fn wait_for_start(&mut self) -> Outcome {
        let Some((start, _)) = self.given.fifos else { return Ok(()) };
        // write, not send, as in `sync`: the filter is loaded already.
        rustix::io::write(self.given.parent, &[READY]).map_err(at(Call::Write))?;
        self.detached = true;
        let mut word = [0_u8; 1];
        loop {
            match rustix::io::read(start, &mut word) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(at(Call::Read)(errno)),
            }
        }
    }

    /// Keeps the program from inheriting what it was not given; done once, as a filter may forbid it later.
    fn close_on_exec(&mut self) -> Outcome {
        if !self.closing {
            close_on_exec_from(3 + self.given.preserve_fds).map_err(at(Call::None))?;
            self.closing = true;
        }
        Ok(())
    }

    fn exec(&mut self) -> Failure {
        let Some(path) = self.program.candidates.get(self.program_path) else {
            return Failure::new(Call::NotInPath, Errno::NOENT.raw_os_error());
        };
        rustix::process::umask(Mode::from_raw_mode(self.umask));
        if let Err(failure) = self.close_on_exec() {
            return failure;
        }
        default_signals();
        at(Call::Exec)(exec(path, &self.program.argv, &self.program.env))
    }
}

fn libc_badf() -> i32 {
    Errno::BADF.raw_os_error()
}

/// Without an answer it is none.
fn is_directory_fd(fd: &OwnedFd) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

fn is_null(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(1, 3)
}

fn configure(context: &FsContext, options: &[(std::ffi::CString, Option<std::ffi::CString>)]) -> Outcome {
    set_options(context, options)?;
    context.create().map_err(at(Call::FsCreate))
}

fn set_options(context: &FsContext, options: &[(std::ffi::CString, Option<std::ffi::CString>)]) -> Outcome {
    for (index, (key, value)) in options.iter().enumerate() {
        if let Err(errno) = context.set(key, value.as_deref()) {
            let argument = u16::try_from(index).unwrap_or(0);
            return Err(Failure { argument, ..at(Call::FsConfig)(errno) });
        }
    }
    Ok(())
}

fn become_ids(uid: u32, gid: u32, groups: Option<&[Gid]>) -> Outcome {
    identity::keep_capabilities(true).map_err(at(Call::Prctl))?;
    if let Some(groups) = groups {
        identity::set_groups(groups).map_err(at(Call::Setgroups))?;
    }
    identity::set_gid(gid).map_err(at(Call::Setgid))?;
    identity::set_uid(uid).map_err(at(Call::Setuid))?;
    // A change of ids makes the process dumpable again when ids differ from before.
    identity::set_dumpable(false).map_err(at(Call::Prctl))
}

fn keyring(name: &std::ffi::CStr) -> Outcome {
    match identity::join_session_keyring(name) {
        // A kernel without keyrings, or a profile of an outer container that forbids them (as runc).
        Err(Errno::NOSYS | Errno::PERM) => Ok(()),
        other => other.map_err(at(Call::None)),
    }
}

fn session(terminal: bool) -> Outcome {
    new_session()?;
    if terminal {
        terminal::make_controlling(rustix::stdio::stdin()).map_err(at(Call::Ioctl))?;
    }
    Ok(())
}

fn new_session() -> Outcome {
    match rustix::process::setsid() {
        // EPERM: it leads its group already, as after clone into a new pid namespace it may.
        Ok(_) | Err(Errno::PERM) => Ok(()),
        Err(errno) => Err(at(Call::None)(errno)),
    }
}

/// Checks a program as Go's `exec.LookPath` does: a file, and executable by the effective user.
fn executable(path: &std::ffi::CStr) -> Result<(), Errno> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    match rustix::fs::accessat(rustix::fs::CWD, path, rustix::fs::Access::EXEC_OK, AtFlags::EACCESS) {
        // The filter is loaded already and may be older than faccessat2; then exec has the last word.
        Err(Errno::NOSYS | Errno::PERM) if stat.st_mode & 0o111 != 0 => Ok(()),
        Err(Errno::NOSYS | Errno::PERM) => Err(Errno::ACCESS),
        answer => answer,
    }
}
