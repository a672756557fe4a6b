//! Rules as one text: `ro=/etc,rox=/usr,rw=/work,connect=443,scope=abstract,signal`.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::names::{self, BIND_TCP, CONNECT_TCP, Class, EXECUTE, READ, WRITE};
use super::{Landlock, PathRule, Rights};
use crate::error::{Error, Result};

const SHORT: [(&str, u64); 4] =
    [("ro", READ), ("rox", READ | EXECUTE), ("rw", READ | WRITE), ("rwx", READ | WRITE | EXECUTE)];

fn wrong(word: &[u8], rule: &str) -> Error {
    let shown: String = String::from_utf8_lossy(word).chars().take(60).collect();
    Error::spec("landlock", format!("{shown:?} {rule}"))
}

/// The parts between commas; a backslash takes what follows it for what it is.
fn parts(text: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new()];
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        match (byte, all.last_mut()) {
            (b',', _) => all.push(Vec::new()),
            (b'\\', Some(part)) => part.push(bytes.next().copied().unwrap_or(byte)),
            (_, Some(part)) => part.push(byte),
            (_, None) => {}
        }
    }
    all
}

pub(super) fn parse(rules: &mut Landlock, text: &[u8]) -> Result<()> {
    for part in parts(text) {
        item(rules, &part)?;
    }
    Ok(())
}

fn item(rules: &mut Landlock, part: &[u8]) -> Result<()> {
    let mut split = part.splitn(2, |byte| *byte == b'=');
    let (name, value) = (split.next().unwrap_or_default(), split.next());
    let name = std::str::from_utf8(name).map_err(|_| wrong(part, "is no rule"))?.trim();
    let text = |value: &'_ [u8]| String::from_utf8(value.to_vec()).map_err(|_| wrong(part, "is no UTF-8"));
    let old = std::mem::take(rules);
    *rules = match (name, value) {
        ("", None) => return Err(wrong(part, "is no rule: write ro=/etc,rox=/usr,rw=/work,connect=443")),
        ("best_effort", None) => old.best_effort(true),
        // What follows the first of `scope=abstract,signal`.
        ("abstract" | "signal", None) => old.scope(name)?,
        (_, None) => return Err(wrong(part, "is no rule: it has no =")),
        ("connect" | "bind", Some(value)) => {
            let value = text(value)?;
            match (name, value.trim()) {
                ("connect", "any") => old.connect_any(),
                ("bind", "any") => old.bind_any(),
                (_, port) => {
                    let is_digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
                    let port = port.parse().ok().filter(|_| is_digits);
                    let port: u16 = port.ok_or_else(|| wrong(part, "has no port: 0 to 65535, or any"))?;
                    if name == "connect" { old.connect(port) } else { old.bind(port) }
                }
            }
        }
        ("scope", Some(value)) => old.scope(&text(value)?)?,
        ("handle", Some(value)) => old.handle(&text(value)?)?,
        ("log", Some(value)) => old.log(&text(value)?)?,
        (name, Some(value)) => {
            let mut rules = old;
            let path = OsString::from_vec(value.to_vec());
            let rights = match SHORT.iter().find(|(short, _)| *short == name) {
                Some((_, fs)) => Rights { fs: *fs, ..Rights::default() },
                None => names::rights(name, Class::Fs)?,
            };
            if path.is_empty() {
                return Err(wrong(part, "has no path"));
            }
            rules.push(path.into(), rights);
            rules
        }
    };
    Ok(())
}

/// Rights by names that mean the same.
fn rights_text(rights: Rights) -> String {
    let mut words: Vec<&str> = Vec::new();
    let mut left = rights.fs & !rights.exact_fs;
    // What is covered by a name of its own may be in a set, too.
    for (name, set) in [("fs", names::ALL_FS), ("read", READ), ("write", WRITE)] {
        if left != 0 && set & !rights.fs == 0 && set & left != 0 {
            words.push(name);
            left &= !set;
        }
    }
    if rights.net & !rights.exact_net != 0 {
        words.push("net");
    }
    words.extend(names::of_fs(rights.exact_fs | left));
    words.extend(names::of_net(rights.exact_net));
    words.join("+")
}

impl fmt::Display for Landlock {
    /// The text that [`Landlock::parse`] takes. A path that is no UTF-8 is shown with marks in place of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text().to_string_lossy())
    }
}

impl Landlock {
    /// The text that [`Landlock::extend`] takes.
    pub fn to_text(&self) -> OsString {
        let mut items: Vec<Vec<u8>> = Vec::new();
        for PathRule { path, rights } in &self.paths {
            let short = SHORT.iter().find(|(_, fs)| *fs == rights.fs && rights.exact_fs == 0);
            let mut item = short.map_or_else(|| rights_text(*rights), |(name, _)| (*name).to_owned()).into_bytes();
            item.push(b'=');
            for &byte in path.as_os_str().as_bytes() {
                if matches!(byte, b',' | b'\\') {
                    item.push(b'\\');
                }
                item.push(byte);
            }
            items.push(item);
        }
        items.extend(self.others().into_iter().map(String::into_bytes));
        OsString::from_vec(items.join(&b','))
    }

    /// What is not about paths.
    fn others(&self) -> Vec<String> {
        let mut items: Vec<String> = Vec::new();
        for (right, port) in &self.ports {
            items.push(format!("{}={port}", if *right == CONNECT_TCP { "connect" } else { "bind" }));
        }
        for (right, name) in [(CONNECT_TCP, "connect"), (BIND_TCP, "bind")] {
            if self.free & right != 0 {
                items.push(format!("{name}=any"));
            }
        }
        if let Some(handled) = self.handled {
            items.push(format!("handle={}", rights_text(handled)));
        }
        if let Some(scopes) = self.scopes {
            let names = names::of_scopes(scopes);
            items.push(format!("scope={}", if names.is_empty() { "none".to_owned() } else { names.join("+") }));
        }
        if self.log != 0 {
            items.push(format!("log={}", names::of_log(self.log).join("+")));
        }
        if self.best_effort {
            items.push("best_effort".to_owned());
        }
        items
    }
}

/// For the fuzzer: what is taken can be written, and means the same again.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(bytes: &[u8]) {
    let mut rules = Landlock::new();
    if parse(&mut rules, bytes).is_err() {
        return;
    }
    assert!(rules.paths.len() + rules.ports.len() <= bytes.len());
    let is_text = rules.paths.iter().all(|rule| std::str::from_utf8(rule.path.as_os_str().as_bytes()).is_ok());
    let text = rules.to_string();
    if is_text && !text.is_empty() {
        let again = Landlock::parse(&text);
        assert!(again.as_ref().is_ok_and(|again| again.means(&rules)), "{text:?} {again:?} {rules:?}");
    }
    let _ = rules.check(true);
    for abi in [0, 1, 4, 7, 9] {
        if let Ok(on) = rules.clone().best_effort(true).on(abi, names::SIGNAL) {
            assert!(on.paths.iter().all(|(_, access, file)| access & !on.fs == 0 && file & !on.fs == 0));
            assert!(on.ports.iter().all(|(access, _)| access & !on.net == 0 && *access != 0));
        }
    }
}

#[cfg(any(test, fuzzing))]
impl Landlock {
    /// The same on every kernel.
    fn means(&self, other: &Landlock) -> bool {
        let on = |rules: &Landlock, abi| rules.clone().best_effort(true).on(abi, names::SIGNAL).ok();
        self.best_effort == other.best_effort && (0..12).all(|abi| on(self, abi) == on(other, abi))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_written_as_it_is_read() {
        for text in [
            "ro=/usr,rw=/work,connect=443,bind=8080,scope=abstract+signal",
            "rox=/usr,read+ioctl_dev=/dev/tty,make_dir+refer=/x\\,y\\\\z,scope=none",
            "rwx=/,connect=any,bind=any,handle=fs+bind_tcp,log=same_exec_off+new_exec_on,best_effort",
            "write=/w,handle=read+write+net",
        ] {
            assert_eq!(Landlock::parse(text).unwrap().to_string(), text);
        }
        let long = Landlock::parse("scope=abstract,signal,LANDLOCK_ACCESS_FS_READ_FILE=/a=b").unwrap();
        assert_eq!(long.to_string(), "read_file=/a=b,scope=abstract+signal");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, told) in [
            ("", "is no rule"),
            ("ro=/usr,,", "is no rule"),
            ("ro", "has no ="),
            ("ro=", "has no path"),
            ("reed=/x", "\"reed\" is no right"),
            ("connect=65536", "0 to 65535"),
            ("bind=+1", "0 to 65535"),
            ("connect=", "0 to 65535"),
            ("scope=all", "\"all\" is no scope"),
            ("handle=nothing", "\"nothing\" is no right"),
            ("log=on", "\"on\" is none of"),
        ] {
            let error = Landlock::parse(text).unwrap_err();
            assert!(error.field() == Some("landlock") && error.to_string().contains(told), "{text}: {error}");
        }
    }
}
