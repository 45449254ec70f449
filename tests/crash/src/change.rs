//! Which system calls change something that outlives the process: the points before which it is worth to die.
//!
//! Listed is what does *not*, so that a call which a program begins to use one day counts until somebody has thought
//! about it. Not seen are writes through mapped memory; the only ones here go to the index of SQLite's log, which is
//! rebuilt by whoever opens the log next.

use nix::libc;

/// A system call as its registers say it (x86-64).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// Its number.
    pub(crate) number: u64,
    /// Its arguments.
    pub(crate) arguments: [u64; 6],
}

/// Whether a call changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It asks, waits, or changes the calling process alone.
    Nothing,
    /// It does, or may.
    Change,
    /// It does unless the message at this address, on this descriptor, only asks.
    ByMessage {
        /// The socket.
        descriptor: u64,
        /// Where the message is, or where it says where the message is.
        address: Address,
    },
    /// It does if the socket address that begins here has a path in the file system.
    ByFamily(u64),
}

/// Where in the process's memory a message begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// Here.
    Direct(u64),
    /// Where the first entry of the vector of this `msghdr` points.
    InHeader(u64),
}

/// Calls without effect beyond the process that makes them.
const WITHOUT_EFFECT: &[libc::c_long] = &[
    // Reading.
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_readv,
    libc::SYS_lseek,
    libc::SYS_stat,
    libc::SYS_fstat,
    libc::SYS_lstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_access,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_getrandom,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    // Sockets, until something is sent.
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    // Descriptors and memory. A deleted file ends with its last descriptor, and that closes with the process, too.
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup2,
    libc::SYS_dup3,
    libc::SYS_pipe,
    libc::SYS_pipe2,
    libc::SYS_socketpair,
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Locks: they are gone with the process, whoever kills it.
    libc::SYS_flock,
    libc::SYS_fcntl,
    // What a power cut leaves, not what a kill leaves: the page cache is the kernel's.
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    // Threads, processes, signals, waiting.
    libc::SYS_execve,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_pidfd_open,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_set_tid_address,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_futex,
    libc::SYS_arch_prctl,
    libc::SYS_prctl,
    libc::SYS_prlimit64,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_setpgid,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_select,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_time,
];

/// Names for a report; the others are called by their number. With a descriptor as first argument or without.
const NAMES: &[(libc::c_long, &str, bool)] = &[
    (libc::SYS_write, "write", true),
    (libc::SYS_writev, "writev", true),
    (libc::SYS_pwrite64, "pwrite64", true),
    (libc::SYS_ftruncate, "ftruncate", true),
    (libc::SYS_fallocate, "fallocate", true),
    (libc::SYS_fchown, "fchown", true),
    (libc::SYS_fchmod, "fchmod", true),
    (libc::SYS_sendto, "sendto", true),
    (libc::SYS_sendmsg, "sendmsg", true),
    (libc::SYS_ioctl, "ioctl", true),
    (libc::SYS_open, "open", false),
    (libc::SYS_openat, "openat", false),
    (libc::SYS_mkdir, "mkdir", false),
    (libc::SYS_unlink, "unlink", false),
    (libc::SYS_unlinkat, "unlinkat", false),
    (libc::SYS_rename, "rename", false),
    (libc::SYS_bind, "bind", true),
];

impl Call {
    /// Whether it changes something that outlives the process.
    pub(crate) fn verdict(&self) -> Verdict {
        let Ok(number) = libc::c_long::try_from(self.number) else { return Verdict::Change };
        let [first, second, third, ..] = self.arguments;
        // Any bit that lets an open change the file system.
        let makes = |flags: u64| flags & (libc::O_CREAT | libc::O_TRUNC).unsigned_abs() as u64 != 0;
        match number {
            libc::SYS_open if !makes(second) => Verdict::Nothing,
            libc::SYS_openat if !makes(third) => Verdict::Nothing,
            libc::SYS_sendto => Verdict::ByMessage { descriptor: first, address: Address::Direct(second) },
            libc::SYS_sendmsg => Verdict::ByMessage { descriptor: first, address: Address::InHeader(second) },
            libc::SYS_bind => Verdict::ByFamily(second),
            number if WITHOUT_EFFECT.contains(&number) => Verdict::Nothing,
            _ => Verdict::Change,
        }
    }

    /// For a report: its name, and whether its first argument is a descriptor.
    pub(crate) fn name(&self) -> (String, bool) {
        let known = NAMES.iter().find(|(number, ..)| u64::try_from(*number) == Ok(self.number));
        known.map_or_else(
            || (format!("system call {}", self.number), false),
            |(_, name, has_descriptor)| ((*name).to_owned(), *has_descriptor),
        )
    }

    /// Whether it makes a socket to rtnetlink.
    pub(crate) fn is_rtnetlink_socket(&self) -> bool {
        let is = |argument: u64, value: libc::c_int| i64::try_from(argument) == Ok(value.into());
        is(self.arguments[0], libc::AF_NETLINK) && is(self.arguments[2], libc::NETLINK_ROUTE)
    }
}

/// Whether an rtnetlink message only asks, by the first eight bytes of its header: the types come in fours, and the third
/// of each four is GET (include/uapi/linux/rtnetlink.h; `rtnetlink_rcv_msg` in net/core/rtnetlink.c goes by it, too).
pub(crate) fn only_asks(header: u64) -> bool {
    const FIRST_TYPE: u64 = 16;
    let kind = (header >> 32) & 0xffff;
    kind >= FIRST_TYPE && kind & 3 == 2
}

/// Whether a socket address, by its first eight bytes, is of the family whose addresses are files.
pub(crate) fn is_path(address: u64) -> bool {
    i64::try_from(address & 0xffff) == Ok(libc::AF_UNIX.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(number: libc::c_long, arguments: [u64; 3]) -> Call {
        let [first, second, third] = arguments;
        let number = u64::try_from(number).unwrap();
        Call { number, arguments: [first, second, third, 0, 0, 0] }
    }

    #[test]
    fn what_reaches_files_counts_and_what_asks_does_not() {
        let create = u64::try_from(libc::O_RDWR | libc::O_CREAT).unwrap();
        for (number, arguments, verdict) in [
            (libc::SYS_pwrite64, [4, 0, 24], Verdict::Change),
            (libc::SYS_mkdir, [1, 0o700, 0], Verdict::Change),
            (libc::SYS_openat, [0, 1, create], Verdict::Change),
            (libc::SYS_openat, [0, 1, 0], Verdict::Nothing),
            (libc::SYS_open, [1, create, 0], Verdict::Change),
            (libc::SYS_read, [0; 3], Verdict::Nothing),
            (libc::SYS_fsync, [4, 0, 0], Verdict::Nothing),
            (libc::SYS_bind, [8, 9, 12], Verdict::ByFamily(9)),
            (
                libc::SYS_sendmsg,
                [8, 9, 0],
                Verdict::ByMessage { descriptor: 8, address: Address::InHeader(9) },
            ),
        ] {
            assert_eq!(call(number, arguments).verdict(), verdict, "{number} {arguments:?}");
        }
    }

    #[test]
    fn a_call_that_nobody_has_thought_about_counts() {
        let unknown = Call { number: 100_000, arguments: [0; 6] };
        assert_eq!(unknown.verdict(), Verdict::Change);
        assert_eq!(unknown.name(), ("system call 100000".to_owned(), false));
        assert_eq!(call(libc::SYS_mount, [0; 3]).verdict(), Verdict::Change);
    }

    #[test]
    fn requests_that_ask_are_told_from_those_that_set() {
        // RTM_NEWLINK 16, DELLINK 17, GETLINK 18, SETLINK 19, NEWADDR 20, GETADDR 22, GETROUTE 26, NEWLINKPROP 108.
        for (kind, asks) in [
            (16, false),
            (17, false),
            (18, true),
            (19, false),
            (20, false),
            (22, true),
            (26, true),
            (108, false),
        ] {
            assert_eq!(only_asks(52 | kind << 32 | 5 << 48), asks, "{kind}");
        }
        assert!(!only_asks(20 | 2 << 32), "a control message");
    }

    #[test]
    fn only_the_addresses_of_unix_sockets_are_files() {
        assert!(is_path(1 | 0x7275 << 16));
        assert!(!is_path(u64::try_from(libc::AF_NETLINK).unwrap()));
    }
}
