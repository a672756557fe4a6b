//! [`Step`]: the numbered list of everything that can fail during a start.

/// Declares [`Step`] with its names and its reverse look-up from one table.
macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $words:literal;)*) => {
        /// One thing zind does on the way to a running payload.
        ///
        /// Numbers are stable: they cross the report socket and the C ABI, and are never reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        #[non_exhaustive]
        pub enum Step {
            $($(#[$doc])* $name = $number,)*
        }

        impl Step {
            /// What zind was doing, as a short phrase: `"mount"`, `"execute the program"`.
            pub const fn words(self) -> &'static str {
                match self { $(Step::$name => $words,)* }
            }

            /// The stable identifier, as in the source: `"Mount"`, `"Exec"`.
            pub const fn name(self) -> &'static str {
                match self { $(Step::$name => stringify!($name),)* }
            }

            /// The step with this number, if there is one.
            pub const fn from_number(number: u16) -> Option<Step> {
                match number { $($number => Some(Step::$name),)* _ => None }
            }
        }
    };
}

steps! {
    // 1..: milestones that a launcher reports; none of them is a failure.
    /// The namespaces exist and the launcher waits for the word to go on.
    Ready = 1, "wait for the caller";
    /// The payload's program is about to be executed.
    ReachedExec = 2, "reach the program";
    /// The payload runs.
    Started = 3, "run";
    /// The payload exited; the value is its exit code.
    Exited = 4, "exit";
    /// The payload was ended by a signal; the value is its number.
    Signaled = 5, "end by a signal";
    /// The launcher has made a directory, hands it over, and waits until it is filled.
    HandedOver = 6, "wait for the content of the root";

    // 20..: in the caller, before anything of the container exists.
    /// Make the memory file that holds the launcher or the plan.
    Memfd = 20, "make a memory file";
    /// Make the sockets and pipes between caller and container.
    Socket = 21, "make a socket";
    /// `clone3(2)` of the launcher with its namespaces.
    Clone = 22, "make the container's process";
    /// `execveat(2)` of the launcher itself.
    Launcher = 23, "execute the launcher";
    /// Open a file that stands for a namespace.
    OpenNamespace = 24, "open a namespace";
    /// Open or clone a directory or file of the host that the container will see.
    OpenSource = 25, "open a file of the host";
    /// Write `uid_map`.
    UidMap = 26, "write the user id map";
    /// Write `gid_map`.
    GidMap = 27, "write the group id map";
    /// Write `setgroups`.
    SetgroupsFile = 28, "write setgroups";
    /// Run newuidmap(1) or newgidmap(1).
    MapHelper = 29, "run the id map helper";
    /// Bind a namespace to a file.
    Pin = 30, "pin a namespace to a file";
    /// Read the user database of the root file system.
    UserLookup = 31, "look up the user";
    /// Talk to the launcher.
    Report = 32, "talk to the launcher";
    /// Build the prepared mount namespace that starts as root share.
    Template = 33, "prepare the template of mounts";
    /// Wait for the container's end.
    Wait = 34, "wait for the process";
    /// Send a signal.
    Kill = 35, "send a signal";
    /// Read from or write to the payload's standard streams.
    Stdio = 36, "transfer the standard streams";
    /// Read a file below `/proc`.
    Proc = 37, "read /proc";
    /// Open or create a file of the caller's for a standard stream.
    OpenStdio = 38, "open a file for a standard stream";
    /// Attach the process to a control group.
    JoinCgroup = 39, "join the control group";
    /// Make, change or remove layers on disk.
    Layers = 48, "change the layers";
    /// Read layers on disk.
    ReadLayers = 49, "read the layers";

    // 60..: in the launcher, on the way to the payload.
    /// Map and check the plan.
    ReadPlan = 60, "read the plan";
    /// Close the descriptors that are not the container's.
    CloseFds = 61, "close descriptors";
    /// `setns(2)`.
    Setns = 62, "join a namespace";
    /// `unshare(2)`.
    Unshare = 63, "make a namespace";
    /// Write the offsets of a time namespace.
    TimeOffsets = 64, "set the clock offsets";
    /// Fork the process that becomes the payload.
    Fork = 65, "fork the payload";
    /// Become user 0 of the new user namespace.
    SetupIds = 66, "become root of the user namespace";
    /// `sethostname(2)`.
    Hostname = 67, "set the host name";
    /// `setdomainname(2)`.
    Domainname = 68, "set the domain name";
    /// Bring the loopback interface up.
    Loopback = 69, "bring the loopback interface up";
    /// Set the propagation of the mounts the container starts with.
    Propagation = 70, "set the mount propagation";
    /// Mount the scratch file system on which the root is put together.
    Staging = 71, "mount the staging file system";
    /// Make a directory.
    Mkdir = 72, "make a directory";
    /// Make a symbolic link.
    Symlink = 73, "make a symbolic link";
    /// Write a file into the root.
    WriteFile = 74, "write a file";
    /// Make a device node.
    Mknod = 75, "make a device node";
    /// Mount a new file system.
    Mount = 76, "mount";
    /// Bind a file or directory.
    Bind = 77, "bind";
    /// Change the attributes of a mount.
    MountSetattr = 78, "change a mount";
    /// Open the directory that becomes the root.
    OpenRoot = 79, "open the root";
    /// `pivot_root(2)`.
    PivotRoot = 80, "change the root";
    /// `chroot(2)`.
    Chroot = 81, "change the root with chroot";
    /// Hide a path.
    Mask = 82, "mask a path";
    /// Make a path read-only.
    ReadonlyPath = 83, "make a path read-only";
    /// Unmount.
    Umount = 84, "unmount";
    /// Find the place of a mount inside the root.
    MountTarget = 85, "find the mount point";
    /// Mount the file system of fuse-overlayfs(1), or start it.
    Fuse = 86, "mount with fuse-overlayfs";
    /// `setsid(2)`.
    Setsid = 100, "make a session";
    /// `setpgid(2)`.
    Setpgid = 101, "set the process group";
    /// `TIOCSCTTY` or `TIOCNOTTY`.
    ControllingTerminal = 102, "set the controlling terminal";
    /// `tcsetpgrp(3)`.
    Foreground = 103, "become the foreground process group";
    /// Put the standard streams and passed descriptors in place.
    ArrangeFds = 104, "put the descriptors in place";
    /// `setrlimit(2)`.
    Rlimit = 105, "set a resource limit";
    /// Write `oom_score_adj`.
    OomScoreAdj = 106, "set oom_score_adj";
    /// `setpriority(2)`.
    Nice = 107, "set the nice value";
    /// `sched_setattr(2)`.
    Scheduler = 108, "set the scheduling policy";
    /// `chdir(2)`.
    Chdir = 109, "change the working directory";
    /// A new session keyring.
    Keyring = 110, "make a session keyring";
    /// `personality(2)`.
    Personality = 111, "set the personality";
    /// Drop capabilities from the bounding set.
    BoundingSet = 112, "drop capabilities from the bounding set";
    /// `setgroups(2)`.
    Setgroups = 113, "set the supplementary groups";
    /// `setresgid(2)`.
    Setgid = 114, "set the group id";
    /// `setresuid(2)`.
    Setuid = 115, "set the user id";
    /// `capset(2)`.
    Capabilities = 116, "set the capabilities";
    /// Raise an ambient capability.
    Ambient = 117, "raise an ambient capability";
    /// `PR_SET_NO_NEW_PRIVS`.
    NoNewPrivileges = 118, "set no_new_privs";
    /// `PR_SET_PDEATHSIG`.
    ParentDeath = 119, "set the parent death signal";
    /// `PTRACE_TRACEME`.
    Ptrace = 120, "let the parent trace";
    /// Install the seccomp filter.
    Seccomp = 121, "install the seccomp filter";
    /// `PR_SET_SECUREBITS`.
    Securebits = 122, "set the secure bits";
    /// `execve(2)`.
    Exec = 123, "execute the program";
    /// The program exists but the interpreter that it names does not.
    Interpreter = 124, "execute the program's interpreter";
    /// The program reaches its seccomp or signal set-up: signals of the payload.
    Signals = 125, "reset the signals";

    // 150..: calls on their own, of the low level.
    /// A call of the low level on the calling thread or process.
    Call = 150, "call the kernel";

    // 160..: files and volumes.
    /// Copy from the host into a root, or write a file there.
    CopyIn = 160, "copy into the root";
    /// Copy from a root to the host, or read a file there.
    CopyOut = 161, "copy out of the root";
    /// Make, fill, lock or remove a named volume.
    Volume = 162, "use the volume";

    // 170..: images and the store.
    /// Open, lock, read or change the store of images.
    Store = 170, "use the store";
    /// Write, read or check a blob.
    Blob = 171, "keep the blob";
    /// Unpack a layer.
    Unpack = 172, "unpack the layer";
    /// Read or write an archive of images.
    Archive = 173, "use the archive";
    /// Remove what nothing refers to.
    Collect = 174, "collect what is unused";

    // 180..: registries.
    /// Run a credential helper: docker-credential-NAME.
    CredentialHelper = 180, "run the credential helper";
    /// Read a file with credentials.
    ReadAuth = 181, "read the credentials";
    /// Read certificates or keys.
    ReadCertificates = 182, "read the certificates";

    // 185..: images from containers.
    /// Read a tree, or write the layer it becomes.
    Pack = 185, "pack the layer";
    /// Put a step of a build together, or keep its result.
    Build = 186, "build the image";

    // 190..: control groups.
    /// Find out which hierarchies there are, and where the caller is in them.
    CgroupLayout = 190, "look at the control groups";
    /// Make a control group, or have the one above hand controllers down.
    MakeCgroup = 191, "make the control group";
    /// Set a limit.
    WriteCgroup = 192, "set the limit";
    /// Read from a control group.
    ReadCgroup = 193, "read the control group";
    /// Freeze or thaw a control group.
    Freeze = 194, "freeze the control group";
    /// Kill everything in a control group.
    KillCgroup = 195, "kill the control group";
    /// Remove a control group.
    RemoveCgroup = 196, "remove the control group";

    // 200..: around control groups.
    /// Make or attach the program that holds the device rules of a control group.
    DeviceProgram = 200, "set the device rules";
    /// Talk to systemd.
    Systemd = 201, "ask systemd for a scope";
    /// Watch a control group.
    Watch = 202, "watch the control group";

    // 210..: around containers that live on.
    /// Keep containers in their directory, and find them there.
    Container = 210, "keep the container";
    /// Read or write the state of a container.
    ContainerState = 211, "keep the state of the container";
    /// Start the monitor of a container.
    Monitor = 212, "start the monitor";
    /// Ask the monitor of a container for something.
    AskMonitor = 213, "ask the monitor";
    /// Write or read the log of a container.
    Log = 214, "use the log";
    /// Run a hook.
    Hook = 215, "run the hook";
    /// Wait until a container is ready.
    Readiness = 216, "wait until the container is ready";

    // 220..: running a program in a running container, and terminals.
    /// The launcher has made the payload's terminal, and hands its other end over; no failure.
    HandedTerminal = 220, "hand the terminal over";
    /// Make, size or set the mode of a terminal.
    Terminal = 221, "set up the terminal";
    /// Join a running container.
    JoinContainer = 222, "join the container";
    /// Write or read the journal of what happens to containers.
    Journal = 223, "use the journal";
    // 250..: kernel parameters and further walls.
    /// Set a kernel parameter of the container's namespaces.
    Sysctl = 250, "set the kernel parameter";
    /// Make a set of Landlock rules, and enter the domain that they are for.
    Landlock = 251, "enter the Landlock domain";
    /// Open what a Landlock rule is about.
    LandlockPath = 252, "open the place of a Landlock rule";
    /// Add a rule about a path.
    LandlockRule = 253, "add the Landlock rule for";
    /// Add a rule about a port.
    LandlockPort = 254, "add the Landlock rule for port";
    /// Ask for the label that AppArmor or SELinux gives the program.
    Label = 255, "set the label";
    /// Read it again: it is another one.
    LabelCheck = 256, "check the label";
    /// What was set is not what is found: see [`crate::measured::Part`].
    ReadBack = 257, "read back what is in force";
    /// What was mounted or protected is not what is found.
    ReadMount = 258, "read back the mount";
    /// The payload stands ready, and is looked at from outside; no failure.
    LookAtMe = 259, "look at the payload";
    /// Look that nothing of the old root is left: by the mount that `/..` is on.
    OldRoot = 260, "look for the old root";

    // 230..: around OCI's documents.
    /// Read a `config.json`.
    Config = 230, "read the configuration";

    // 240..: system call filters.
    /// The launcher hands the listener of the payload's filter over; no failure.
    HandedListener = 240, "hand the listener over";
    /// Hear of calls from the listener of a filter, and answer them.
    Notify = 241, "answer a system call";
    /// Read a seccomp profile.
    SeccompProfile = 242, "read the seccomp profile";
    /// Hand the listener to the agent that the profile names.
    SeccompAgent = 243, "hand the listener to the agent";
}
