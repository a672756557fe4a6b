use std::time::Instant;
use zind_core::*;
fn med(mut v: Vec<f64>) -> f64 { v.sort_by(|a,b| a.total_cmp(b)); v[v.len()/2] }
fn go(name: &str, n: usize, gap: u64, f: &mut dyn FnMut()) {
    f();
    let mut v = vec![];
    for _ in 0..n { std::thread::sleep(std::time::Duration::from_millis(gap)); let t = Instant::now(); f(); v.push(t.elapsed().as_secs_f64()*1e6); }
    println!("{name}: {:.0} us", med(v));
}
fn main() {
    let run = |r: Option<Resources>| { let mut c = Command::new("/bin/true"); if let Some(r) = r { c.resources(r); } let o = c.output().unwrap(); assert!(o.exit.success()); };
    for gap in [0u64, 200] {
        let n = if gap == 0 { 200 } else { 15 };
        println!("gap {gap}");
        go("none", n, gap, &mut || run(None));
        go("empty", n, gap, &mut || run(Some(Resources::new())));
        go("pids", n, gap, &mut || run(Some(Resources::new().pids(10))));
        go("mem", n, gap, &mut || run(Some(Resources::new().memory(64<<20))));
        go("mem cpu pids", n, gap, &mut || run(Some(Resources::new().memory(64<<20).pids(10).cpus(0.5))));
        go("mem cpu pids cpuset io", n, gap, &mut || run(Some(Resources::new().memory(64<<20).pids(10).cpus(0.5).cpuset_cpus("0-1"))));
        go("create+delete mem cpu pids", n, gap, &mut || { let g = Cgroup::create(&Resources::new().memory(64<<20).pids(10).cpus(0.5), None).unwrap(); g.delete().unwrap(); });
    }
    let mut c = Command::new("/bin/sleep"); c.arg("60").resources(Resources::new().memory(64<<20).pids(10).cpus(0.5));
    let p = c.spawn().unwrap();
    go("stats", 200, 0, &mut || { p.stats().unwrap(); });
    p.kill().unwrap(); p.wait(None).unwrap();
}
