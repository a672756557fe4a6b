//! The low level: `unshare -pf sleep 1000` and the two `/proc/<pid>/ns`, then a message queue that is not seen inside.

use std::fs::File;
use std::io::Read;
use std::process::Command as Plain;

use zind_core::proc::Proc;
use zind_core::{Command, Errno, Error, IdMap, IdMaps, Kind, Source, Stdio};

/// A process that shares everything but a namespace of this kind. An ordinary user needs a user namespace for it, in
/// which that user is root: `unshare -r`.
fn unshared(argv: &[&str], kind: Kind) -> Command {
    let mut command = Command::low_level(argv[0]);
    command.args(&argv[1..]).namespace(kind, Source::New);
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    if uid != 0 {
        let one = |host| vec![IdMap { container: 0, host, size: 1 }];
        command.namespace(Kind::User, Source::New).id_maps(IdMaps::Explicit { uid: one(uid), gid: one(gid) });
    }
    command
}

fn main() -> Result<(), Error> {
    let sleep = unshared(&["sleep", "1000"], Kind::Pid).spawn()?;
    let (ours, theirs) = (Proc::current()?.namespaces()?, Proc::open(sleep.pid())?.namespaces()?);
    for ((kind, our), (_, their)) in ours.iter().zip(&theirs) {
        let mark = if our.inode == their.inode { "" } else { "  <- differs" };
        println!("{:7} {}  {}{mark}", kind.name(), our.inode, their.inode);
        let is_new = *kind == Kind::Pid || (*kind == Kind::User && !nix::unistd::geteuid().is_root());
        assert_eq!(our.inode != their.inode, is_new, "{kind}");
    }
    assert_eq!(Proc::open(sleep.pid())?.status()?.ns_pids(), [sleep.pid(), 1]);
    sleep.kill()?;
    let exit = sleep.wait(None)?;
    println!("{exit:?}");

    let made = Plain::new("ipcmk").arg("-Q").output().expect("ipcmk is there").stdout;
    let queue = String::from_utf8_lossy(&made).split_whitespace().last().unwrap_or_default().to_owned();
    let mut ipcs = unshared(&["ipcs", "-q"], Kind::Ipc);
    let inside = ipcs.stdout(Stdio::Pipe).spawn().map(|process| {
        let mut text = String::new();
        process.take_stdout().map(|fd| File::from(fd).read_to_string(&mut text));
        process.wait(None).map(|_| text)
    });
    let outside = Plain::new("ipcs").arg("-q").output().expect("ipcs is there").stdout;
    Plain::new("ipcrm").args(["-q", &queue]).status().expect("ipcrm is there");
    let seen = |text: &str| text.lines().filter(|line| line.starts_with("0x")).count();
    let (inside, outside) = (seen(&inside??), seen(&String::from_utf8_lossy(&outside)));
    println!("message queues: {outside} outside, {inside} inside");
    assert!(outside > 0 && inside == 0);

    // What the kernel refuses to a program with threads is an error that says what to call instead.
    let error = std::thread::spawn(|| zind_core::lowlevel::unshare(Kind::User.flag())).join();
    let error = error.expect("the thread ends").expect_err("user namespaces are refused to threads");
    println!("{error}");
    assert_eq!(error.errno(), Some(Errno::EINVAL));
    Ok(())
}
