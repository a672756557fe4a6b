//! What limits cost: starts a program with and without them, and tells the CPU time of a start in each way.
//!
//! `limits [ROOTFS PROGRAM [ROUNDS]]`: the program is a path inside of the directory; without them it is `true` of the host.

use std::time::Duration;

use zind_core::{Command, Error, Resources};

/// CPU time of this process and of its children that have ended.
fn used() -> Duration {
    use nix::sys::resource::{UsageWho, getrusage};
    let of = |who| {
        getrusage(who).map_or(0, |usage| {
            let times = [usage.user_time(), usage.system_time()];
            times.iter().map(|time| time.tv_sec() * 1_000_000 + time.tv_usec()).sum()
        })
    };
    Duration::from_micros((of(UsageWho::RUSAGE_SELF) + of(UsageWho::RUSAGE_CHILDREN)) as u64)
}

fn main() -> Result<(), Error> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let rounds = words.get(2).and_then(|word| word.parse().ok()).unwrap_or(5);
    let command = |limits: Option<Resources>| {
        let mut command = Command::new(words.get(1).map_or("true", String::as_str));
        if let Some(rootfs) = words.first() {
            command.rootfs(rootfs).read_only(true);
        }
        if let Some(limits) = limits {
            command.resources(limits);
        }
        command
    };
    let limits = Resources::new().memory(64 << 20).cpus(0.5).pids(64);
    let ways = [
        ("without", command(None)),
        ("a group without limits", command(Some(Resources::new()))),
        ("memory, cpu and pids", command(Some(limits))),
    ];
    let mut times = [const { Vec::new() }; 3];
    for round in 0..=rounds {
        for ((_, command), times) in ways.iter().zip(&mut times) {
            let begin = used();
            for _ in 0..5 {
                assert!(command.output()?.exit.success());
            }
            // The first round makes what all share.
            times.extend((round > 0).then(|| (used() - begin) / 5));
        }
    }
    for ((name, _), times) in ways.iter().zip(&mut times) {
        times.sort();
        println!("{name}: {:?}", times[times.len() / 2]);
    }
    Ok(())
}
