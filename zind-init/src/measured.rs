//! [`Part`]: what the launcher reads back of itself before it becomes the payload.

/// Declares [`Part`] from one table: number, the word of `require` and `isolation`, and the call that tells.
macro_rules! parts {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $word:literal, $call:literal;)*) => {
        /// Something that was set and is read back: `index` of a [`crate::step::Step::ReadBack`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        pub enum Part {
            $($(#[$doc])* $name = $number,)*
        }

        impl Part {
            /// All of them.
            pub const ALL: &'static [Part] = &[$(Part::$name,)*];

            /// Its name, in the words of `require` and `isolation` where they have one.
            pub const fn word(self) -> &'static str {
                match self { $(Part::$name => $word,)* }
            }

            /// The call that told.
            pub const fn call(self) -> &'static str {
                match self { $(Part::$name => $call,)* }
            }
        }
    };
}

parts! {
    /// A new mount namespace.
    Mounts = 1, "mnt", "statx";
    /// A new network namespace: its cookie is another one than that of the caller's.
    Net = 2, "net", "getsockopt";
    /// A new control group namespace.
    Cgroup = 3, "cgroup", "readlinkat";
    /// A new time namespace.
    Time = 4, "time", "readlinkat";
    /// A namespace that was joined.
    Joined = 5, "namespaces", "newfstatat";
    /// A process of its own, and the first one of a new pid namespace.
    Process = 6, "pid", "getpid";
    /// The host name.
    Hostname = 7, "hostname", "uname";
    /// The NIS domain name.
    Domainname = 8, "domainname", "uname";
    /// The root of a process of the low level.
    Root = 9, "rootfs", "fstat";
    /// Descriptors that are not the container's are closed.
    Descriptors = 10, "pass_fds", "ppoll";
    /// A session of its own.
    Session = 11, "setsid", "getsid";
    /// A resource limit.
    Rlimit = 12, "rlimits", "prlimit";
    /// A session keyring of its own.
    Keyring = 13, "keyring", "keyctl";
    /// Supplementary groups.
    Groups = 14, "groups", "getgroups";
    /// The group id.
    Gid = 15, "user", "getresgid";
    /// The user id.
    Uid = 16, "user", "getresuid";
    /// The bounding set.
    Bounding = 17, "capabilities", "prctl";
    /// The effective capabilities.
    Effective = 18, "capabilities", "capget";
    /// The permitted capabilities.
    Permitted = 19, "capabilities", "capget";
    /// The inheritable capabilities.
    Inheritable = 20, "capabilities", "capget";
    /// The ambient capabilities.
    Ambient = 21, "capabilities", "prctl";
    /// `no_new_privs`
    NoNewPrivileges = 22, "no_new_privileges", "prctl";
    /// The signal at the end of who is above.
    ParentDeath = 23, "die_with_owner", "prctl";
    /// Nobody in the container may trace the launcher.
    Dumpable = 24, "dumpable", "prctl";
    /// The filter answers.
    Seccomp = 25, "seccomp", "prctl";
}

impl Part {
    /// The part with this number, if there is one.
    pub fn from_number(number: u16) -> Option<Part> {
        Part::ALL.iter().copied().find(|part| *part as u16 == number)
    }
}

/// The first argument of a prctl(2) that no kernel knows, and every filter of a start answers with [`MARK_ERRNO`]: that tells
/// that it is in force, also where it refuses all else.
pub const MARK: u32 = 0x7a69_6e64;

/// An errno that no call has.
pub const MARK_ERRNO: u32 = 3911;

/// What comes on the report socket before a [`crate::step::Step::ReadBack`], with what was expected and what was found.
pub const READING: u8 = b'=';

/// The length of that message: [`READING`], two numbers.
pub const READING_SIZE: usize = 17;
