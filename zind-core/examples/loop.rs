use std::time::Instant;
use zind_core::*;
fn main(){ let n:usize=std::env::args().nth(1).unwrap().parse().unwrap(); let mode=std::env::args().nth(2).unwrap_or_default();
 let prog=std::env::args().nth(3).unwrap_or("/bin/true".into());
 let mut c=Command::new(prog.as_str());
 match mode.as_str(){ "noinit"=>{c.init(false);}, "noseccomp"=>{c.seccomp(Seccomp::None);}, "nonet"=>{c.namespace(Kind::Net,Source::Host);} ,"low"=>{c=Command::low_level(prog.as_str());}, "user"=>{c.namespace(Kind::User,Source::New);}, "ro"=>{c.rootfs("/tmp/zroot").overlay(Overlay::None).read_only(true).seccomp(Seccomp::None);}, "dir"=>{c.rootfs("/tmp/zroot");}, _=>{} }
 if mode!="ro" && mode!="dir" { c.mount(Mount::bind("/tmp/zroot/z","/payload")); }
 let (mut v,mut a,mut b,mut d)=(vec![],vec![],vec![],vec![]); for _ in 0..n { let t=Instant::now();
  let s=c.begin().unwrap(); let t1=t.elapsed().as_micros(); let p=s.finish().unwrap(); let t2=t.elapsed().as_micros(); let e=p.wait(None).unwrap().unwrap(); assert!(e.success(),"{e:?}"); let t3=t.elapsed().as_micros(); drop(p);
  v.push(t.elapsed().as_micros()); a.push(t1); b.push(t2-t1); d.push(t3-t2); }
 for x in [&mut v,&mut a,&mut b,&mut d] { x.sort(); }
 println!("{mode}: median {} p10 {} | begin {} start {} run+end {}", v[n/2], v[n/10], a[n/2],b[n/2],d[n/2]); }
