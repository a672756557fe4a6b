use std::time::Instant;
use zind_core::*;
fn main() {
    let n: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let mode = std::env::args().nth(2).unwrap_or_default();
    let prog = std::env::args().nth(3).unwrap_or("/bin/true".into());
    let mut c = Command::new(prog.as_str());
    match mode.as_str() {
        "noinit" => {
            c.init(false);
        }
        "noseccomp" => {
            c.seccomp(Seccomp::None);
        }
        "nonet" => {
            c.namespace(Kind::Net, Source::Host);
        }
        "low" => {
            c = Command::low_level(prog.as_str());
        }
        "user" => {
            c.namespace(Kind::User, Source::New);
        }
        _ => {}
    }
    let mut v = vec![];
    for _ in 0..n {
        let t = Instant::now();
        let o = c.output();
        match o {
            Ok(o) => assert!(o.exit.success(), "{:?} {:?}", o.exit, String::from_utf8_lossy(&o.stderr.to_vec())),
            Err(e) => {
                println!("{e}");
                return;
            }
        }
        v.push(t.elapsed().as_micros());
    }
    let first = v[0];
    v.sort();
    println!("{mode}: first {first} median {} p10 {} p99 {}", v[n / 2], v[n / 10], v[n * 99 / 100]);
}
