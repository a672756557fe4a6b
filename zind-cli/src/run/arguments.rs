//! The options of `zind run`: Docker's names, and a few of zind's own.
#![forbid(unsafe_code)]

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::arguments::{Given, list, number, path, registry, switch, takes_program, value};
use crate::failure::{Failure, Result};

/// Options of Docker's that zind does not have, whether they take a value, their letter, and what to do instead.
#[rustfmt::skip]
const ABSENT: &[(&str, bool, Option<char>, &str)] = &[
    ("annotation", true, None, LABELS),
    ("cpu-count", true, None, WINDOWS),
    ("cpu-percent", true, None, WINDOWS),
    ("disable-content-trust", false, None, ELSEWHERE),
    ("expose", true, None, NETWORKS),
    ("gpus", true, None, "devices are given by name: --device /dev/dri"),
    ("health-cmd", true, None, HEALTH),
    ("health-interval", true, None, HEALTH),
    ("health-retries", true, None, HEALTH),
    ("health-start-interval", true, None, HEALTH),
    ("health-start-period", true, None, HEALTH),
    ("health-timeout", true, None, HEALTH),
    ("io-maxbandwidth", true, None, WINDOWS),
    ("io-maxiops", true, None, WINDOWS),
    ("ip", true, None, NETWORKS),
    ("ip6", true, None, NETWORKS),
    ("isolation", true, None, WINDOWS),
    ("kernel-memory", true, None, "the kernel dropped this limit; --memory counts its memory, too"),
    ("link", true, None, NETWORKS),
    ("link-local-ip", true, None, NETWORKS),
    ("log-driver", true, None, "there is one log, which `zind logs` shows"),
    ("mac-address", true, None, NETWORKS),
    ("network-alias", true, None, NETWORKS),
    ("no-healthcheck", false, None, HEALTH),
    ("publish", true, Some('p'), NETWORKS),
    ("publish-all", false, Some('P'), NETWORKS),
    ("runtime", true, None, ELSEWHERE),
    ("storage-opt", true, None, "--tmpfs-size limits what is changed in memory"),
    ("use-api-socket", false, None, ELSEWHERE),
    ("volume-driver", true, None, "volumes are directories of this machine"),
    ("volumes-from", true, None, "name the volumes: -v NAME:/path"),
];
const LABELS: &str = "annotations of OCI are not kept yet; --label is";
const WINDOWS: &str = "it is of Windows";
const ELSEWHERE: &str = "there is no daemon that it could be of";
const NETWORKS: &str = "not yet: there are no networks of zind's own; --network host shares this machine's";
const HEALTH: &str = "not yet: checks of health are a matter of the library";

/// All of them.
pub fn arguments(command: Command) -> Command {
    all(takes_program(command, "zind run [OPTIONS] IMAGE [COMMAND [ARG]...]"))
}

/// The same, but for what is of the start.
pub fn create_arguments(command: Command) -> Command {
    let command = all(takes_program(command, "zind create [OPTIONS] IMAGE [COMMAND [ARG]...]"));
    ["detach", "detach-keys", "sig-proxy", "timeout", "attach", "learn"]
        .into_iter()
        .fold(command, |command, name| command.mut_arg(name, |arg| arg.hide(true)))
        .mut_arg("rm", |arg| arg.help("Delete it when it has ended"))
}

fn all(command: Command) -> Command {
    let command = command
        .disable_help_flag(true)
        .arg(Arg::new("help").long("help").action(ArgAction::Help).help("This text"))
        .after_help(
            "IMAGE is a name in the store or of a registry; \"host\", this machine's own system below a copy-on-write \
             layer; or a directory (/srv/root, ./root). Nothing is given that was not asked for: no network, no \
             capabilities. The exit status is that of the program, 128+N if signal N ended it, 125 if zind failed, \
             126 if the program cannot be executed, 127 if there is none.",
        );
    let command = ABSENT.iter().fold(command, |command, (name, takes_value, letter, why)| {
        let arg = if *takes_value { list(name, "VALUE", why).allow_hyphen_values(true) } else { switch(name, why) };
        let arg = arg.hide(true);
        let arg = if *name == "network-alias" { arg.alias("net-alias") } else { arg };
        command.arg(match letter {
            Some(letter) => arg.short(*letter),
            None => arg,
        })
    });
    security(limits(world(root(process(streams(command))))))
}

/// An option that zind does not have says so.
pub fn refuse_absent(verb: &str, given: &ArgMatches) -> Result<()> {
    let absent = ABSENT.iter().find(|(name, ..)| !given.texts(name).is_empty());
    match absent {
        Some((name, _, _, why)) => Err(Failure::new(format!("{verb}: zind does not have --{name}")).hint(*why)),
        None => Ok(()),
    }
}

fn streams(command: Command) -> Command {
    command
        .next_help_heading("Streams and life")
        .arg(switch("interactive", "Pass stdin on; else it is empty").short('i'))
        .arg(list("attach", "STREAM", "Only these of stdin, stdout and stderr; the others are empty").short('a'))
        .arg(switch("tty", "A terminal of its own").short('t'))
        .arg(switch("detach", "In the background: its id is written, and it goes on").short('d'))
        .arg(value(
            "detach-keys",
            "KEYS",
            "Keys that leave it, and it goes on; of one with a name ctrl-p,ctrl-q without it",
        ))
        .arg(value("name", "NAME", "Others find it by this name, and it is kept: zind exec, logs, attach"))
        .arg(switch("rm", "Delete it when it has ended: so it is without --name, -d and --restart, unless --rm=false"))
        .arg(value(
            "restart",
            "POLICY",
            "When it is started again: no (without it), on-failure[:N], always or unless-stopped",
        ))
        .arg(list("log-opt", "KEY=VALUE", "max-size=BYTES, max-file=NUMBER of its log"))
        .arg(path("cidfile", "FILE", "Write its id to this file"))
        .arg(switch("sig-proxy", "Pass signals on to the program: so it is unless --sig-proxy=false"))
        .arg(switch("init", "A PID 1 that reaps and passes signals on: so it is unless --init=false"))
        .arg(value("stop-signal", "SIGNAL", "The signal that asks it to end; without it, the image's, or TERM"))
        .arg(number(
            "stop-timeout",
            "SECONDS",
            "How long after that signal `zind stop` kills it; 10 without it (kept as a label: zind.stop-timeout)",
        ))
        .arg(number("timeout", "TIME", "Kill it after this time: 10, 1m30s (zind's own)"))
        .arg(switch("quiet", "No bars while an image is fetched").short('q'))
}

fn process(command: Command) -> Command {
    command
        .next_help_heading("Program")
        .arg(list("env", "NAME[=VALUE]", "Set a variable; without a value, to the caller's").short('e'))
        .arg(list("env-file", "FILE", "Variables, one in a line"))
        .arg(value("workdir", "DIR", "Working directory").short('w'))
        .arg(number("user", "USER[:GROUP]", "By name or number").short('u'))
        .arg(list("group-add", "GROUP", "Supplementary groups"))
        .arg(value("entrypoint", "PROGRAM", "Replace the image's entrypoint; \"\" takes it away"))
        .arg(list("label", "NAME=VALUE", "Words about the container").short('l'))
        .arg(list("label-file", "FILE", "Labels, one in a line"))
}

fn root(command: Command) -> Command {
    registry(
        command
            .next_help_heading("Root and mounts")
            .arg(path("rootfs", "DIR", "This directory as root, and no image (zind's own)"))
            .arg(value("pull", "POLICY", "When the image is fetched: missing (without it), always or never"))
            .arg(value("platform", "OS/ARCH", "Which of an image for several: linux/arm64"))
            .arg(list("volume", "SOURCE:TARGET[:OPTIONS]", "A path of the host, or the name of a volume").short('v'))
            .arg(list("mount", "KEY=VALUE,...", "type=bind|volume|tmpfs,source=,target=,readonly..."))
            .arg(list("tmpfs", "TARGET[:OPTIONS]", "A file system in memory"))
            .arg(switch("read-only", "Nothing of the root can be changed"))
            .arg(number("tmpfs-size", "BYTES", "Limit of all that is changed in memory (zind's own)"))
            .arg(value(
                "overlay",
                "WHERE",
                "Keep what is changed in this directory; \"none\": in the root itself (zind's own)",
            ))
            .arg(number("shm-size", "BYTES", "Size of /dev/shm"))
            .arg(list("device", "PATH[:TARGET][:rwm]", "A device of the host")),
    )
}

fn world(command: Command) -> Command {
    command
        .next_help_heading("Namespaces and network")
        .arg(value("hostname", "NAME", "Host name").short('h'))
        .arg(value("domainname", "NAME", "NIS domain name"))
        .arg(list("sysctl", "NAME=VALUE", "A kernel parameter of the container's namespaces"))
        .arg(value("network", "MODE", "none (without it), host, or ns:FILE").alias("net"))
        .arg(list("dns", "ADDRESS", "Name servers"))
        .arg(list("dns-search", "DOMAIN", "Domains to search"))
        .arg(list("dns-option", "OPTION", "Options of the resolver").alias("dns-opt"))
        .arg(list("add-host", "NAME:ADDRESS", "A line of /etc/hosts"))
        .arg(value("pid", "MODE", "private (without it), host, or ns:FILE"))
        .arg(value("ipc", "MODE", "private (without it), host, or ns:FILE"))
        .arg(value("uts", "MODE", "private (without it), host, or ns:FILE"))
        .arg(value("cgroupns", "MODE", "private (without it), host, or ns:FILE"))
        .arg(value("userns", "MODE", "host, single, auto (ids of /etc/subuid), or ns:FILE"))
}

/// Those that can be changed while it runs; the others are of the start.
pub fn limits_of_running(command: Command) -> Command {
    groups(command.next_help_heading("Limits"))
}

fn limits(command: Command) -> Command {
    groups(command.next_help_heading("Limits"))
        .arg(number("oom-score-adj", "NUMBER", "-1000 to 1000: who is killed first"))
        .arg(list("ulimit", "NAME=SOFT[:HARD]", "setrlimit(2): nofile=1024"))
        .arg(path("cgroup-parent", "PATH", "The group below which the container's is made"))
}

/// What control groups limit.
fn groups(command: Command) -> Command {
    command
        .arg(number("memory", "BYTES", "Most memory: 512k, 256m, 1.5g").short('m'))
        .arg(number("memory-swap", "BYTES", "Memory and swap together; -1: any swap"))
        .arg(number("memory-reservation", "BYTES", "Below this, memory is taken from others first"))
        .arg(number("memory-swappiness", "0..100", "How gladly memory is swapped out"))
        .arg(switch("oom-kill-disable", "Out of memory stops, in place of killing (cgroup v1)"))
        .arg(number("cpus", "NUMBER", "CPU time per second: 0.5 is half of one"))
        .arg(number("cpu-shares", "NUMBER", "Share where it is scarce: 1024 is the usual").short('c'))
        .arg(number("cpu-period", "MICROSECONDS", "Period of --cpu-quota"))
        .arg(number("cpu-quota", "MICROSECONDS", "CPU time per period"))
        .arg(number("cpu-rt-period", "MICROSECONDS", "Period of --cpu-rt-runtime"))
        .arg(number("cpu-rt-runtime", "MICROSECONDS", "Real-time scheduling per period"))
        .arg(value("cpuset-cpus", "LIST", "The CPUs that it runs on: 0-3,7"))
        .arg(value("cpuset-mems", "LIST", "The memory nodes that it uses: 0,1"))
        .arg(number("pids-limit", "NUMBER", "Most processes and threads; -1: any"))
        .arg(number("blkio-weight", "10..1000", "Share of busy disks"))
        .arg(list("blkio-weight-device", "DEVICE:WEIGHT", "Share of one disk"))
        .arg(list("device-read-bps", "DEVICE:BYTES", "Most bytes read per second"))
        .arg(list("device-write-bps", "DEVICE:BYTES", "Most bytes written per second"))
        .arg(list("device-read-iops", "DEVICE:NUMBER", "Most reads per second"))
        .arg(list("device-write-iops", "DEVICE:NUMBER", "Most writes per second"))
        .arg(list("device-cgroup-rule", "RULE", "\"c 1:3 rwm\": allow nodes"))
}

fn security(command: Command) -> Command {
    command
        .next_help_heading("Security")
        .arg(list("cap-add", "NAME", "Give a capability; ALL, or what docker or podman give (zind gives none)"))
        .arg(list("cap-drop", "NAME", "Take one of those away"))
        .arg(list(
            "security-opt",
            "OPTION",
            "no-new-privileges[=false], seccomp=unconfined|FILE, apparmor=PROFILE, label=CONTEXT, mount-label=CONTEXT",
        ))
        .arg(list(
            "landlock",
            "RULES",
            "Landlock: ro, rox, rw, rwx=PATH; connect, bind=PORT; scope=abstract,signal (zind's own)",
        ))
        .arg(switch("privileged", "All capabilities, no filter, nothing hidden"))
        .arg(path("learn", "FILE", "No filter: write the smallest profile that the program passes under (zind's own)"))
        .arg(list("require", "PART", "Refuse to start if this is not in force: seccomp, memory... (zind's own)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every option of `docker run`, aliases and the ones of other systems included.
    const DOCKERS: &str = "interactive tty detach attach rm name hostname env env-file workdir user group-add entrypoint volume mount \
        tmpfs read-only memory memory-swap cpus cpu-shares cpu-period cpu-quota cpuset-cpus cpuset-mems pids-limit ulimit cap-add \
        cap-drop security-opt privileged network publish dns dns-search dns-option add-host init shm-size device stop-signal \
        stop-timeout pull platform label userns pid ipc uts cgroupns cgroup-parent sysctl oom-score-adj cidfile sig-proxy \
        domainname expose publish-all mac-address ip ip6 network-alias link-local-ip health-cmd health-interval health-retries \
        health-start-interval health-start-period health-timeout no-healthcheck blkio-weight blkio-weight-device device-read-bps \
        device-read-iops device-write-bps device-write-iops device-cgroup-rule cpu-rt-period cpu-rt-runtime memory-reservation \
        memory-swappiness oom-kill-disable gpus annotation detach-keys label-file volumes-from storage-opt quiet log-opt restart \
        log-driver runtime volume-driver link kernel-memory isolation cpu-count cpu-percent io-maxbandwidth io-maxiops \
        use-api-socket disable-content-trust help dns-opt net net-alias";

    #[test]
    fn no_option_of_dockers_is_unknown() {
        for verb in [arguments, create_arguments] {
            let command = verb(Command::new("run"));
            for option in DOCKERS.split_whitespace() {
                let is_named = |arg: &&Arg| {
                    arg.get_long() == Some(option) || arg.get_all_aliases().is_some_and(|names| names.contains(&option))
                };
                let arg = command.get_arguments().find(is_named);
                assert!(arg.is_some(), "--{option} is neither there nor refused");
            }
        }
        // What is not there is refused by its name, with a word on what to do.
        for (name, takes_value, _, why) in ABSENT {
            let option = format!("--{name}");
            let words = if *takes_value {
                vec!["run", &option, "x", "host", "true"]
            } else {
                vec!["run", &option, "host", "true"]
            };
            let given = arguments(Command::new("run")).try_get_matches_from(words).unwrap();
            let refused = refuse_absent("run", &given).unwrap_err().to_string();
            assert!(refused.starts_with(&format!("run: zind does not have {option}; ")) && why.len() > 15, "{refused}");
        }
    }
}
