//! Mounts, devices and files of a container.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::path::PathBuf;

use clap::ArgMatches;
use zind_core::{Device, Mount, Overlay, Spec};

use super::settings::bytes;
use crate::arguments::Given;
use crate::failure::{Failure, Result};

pub fn apply(spec: &mut Spec, given: &ArgMatches) -> Result<()> {
    spec.read_only = given.is_on("read-only");
    spec.tmpfs_size = bytes(given, "tmpfs-size")?;
    match given.text("overlay") {
        None | Some("tmpfs") => {}
        Some("none") => spec.overlay = Overlay::None,
        Some(directory) => spec.overlay = Overlay::Dir(absolute(directory)?),
    }
    if let Some(size) = bytes(given, "shm-size")? {
        spec.mounts.push(Mount::tmpfs("/dev/shm").size(size).with_options(["noexec", "nosuid", "nodev"])?);
    }
    for text in given.texts("volume") {
        spec.mounts.push(volume(text)?);
    }
    for text in given.texts("mount") {
        spec.mounts.push(mount(text)?);
    }
    for text in given.texts("tmpfs") {
        spec.mounts.push(tmpfs(text)?);
    }
    files(spec, given)?;
    spec.devices = given.texts("device").into_iter().map(Device::parse).collect::<zind_core::Result<_>>()?;
    Ok(())
}

/// A path of the caller's, as `docker run -v ./data:/data` means it.
fn absolute(path: &str) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| Failure::file("find", path, &error))
}

/// `SOURCE:TARGET[:OPTIONS]`: a path of the host begins with a slash or a dot, anything else is the name of a volume.
fn volume(text: &str) -> Result<Mount> {
    let bad = |why: &str| Failure::new(format!("--volume: {text:?} {why}"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        [_] => {
            return Err(bad("names no source")
                .hint("a volume without a name is not there; write NAME:TARGET, or --tmpfs TARGET"));
        }
        _ => return Err(bad("has too many parts").hint("--mount takes paths with colons")),
    };
    let mut mount = match source.as_bytes() {
        [b'/' | b'.', ..] => Mount::bind(absolute(source)?, target),
        [] => return Err(bad("names no source")),
        _ => Mount::volume(source, target),
    };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        mount = match option {
            "rw" => mount,
            "ro" => mount.read_only(true),
            "nocopy" => mount.copy_up(false),
            "z" | "Z" | "U" => {
                return Err(bad(&format!("has the option {option:?}"))
                    .hint("zind changes no labels or owners of the host's files; leave it away"));
            }
            other => mount.with_options([other])?,
        };
    }
    Ok(mount)
}

/// `type=bind,source=/a,target=/b,readonly`.
fn mount(text: &str) -> Result<Mount> {
    let bad = |why: String| Failure::new(format!("--mount: {text:?} {why}"));
    let (mut kind, mut source, mut target) = ("volume", None, None);
    let (mut read_only, mut copies, mut recursive) = (false, true, true);
    let mut options: Vec<String> = Vec::new();
    for part in text.split(',') {
        let (key, value) = part.split_once('=').map_or((part, None), |(key, value)| (key, Some(value)));
        let needed = || value.ok_or_else(|| bad(format!("gives {key} no value")));
        let is_on = || !matches!(value, Some("false" | "0"));
        match key {
            "type" => kind = needed()?,
            "source" | "src" => source = Some(needed()?),
            "target" | "dst" | "destination" => target = Some(needed()?),
            "readonly" | "ro" => read_only = is_on(),
            "bind-propagation" => options.push(needed()?.to_owned()),
            "bind-nonrecursive" => recursive = !is_on(),
            "bind-recursive" if value == Some("disabled") => recursive = false,
            "bind-recursive" if value == Some("enabled") => {}
            "volume-nocopy" => copies = !is_on(),
            "tmpfs-size" => options.push(format!("size={}", needed()?)),
            "tmpfs-mode" => options.push(format!("mode={}", needed()?)),
            "consistency" => {}
            _ => {
                return Err(bad(format!("has the key {key:?}")).hint(
                    "there are type, source, target, readonly, bind-propagation, bind-nonrecursive, volume-nocopy, tmpfs-size, tmpfs-mode",
                ));
            }
        }
    }
    let target = target.ok_or_else(|| bad("has no target".to_owned()))?;
    let source_needed = || source.ok_or_else(|| bad("has no source".to_owned()));
    let mount = match kind {
        "bind" => Mount::bind(absolute(source_needed()?)?, target).recursive(recursive),
        "volume" => Mount::volume(source_needed()?, target).copy_up(copies),
        "tmpfs" => Mount::tmpfs(target),
        other => return Err(bad(format!("has the type {other:?}")).hint("it is one of bind, volume, tmpfs")),
    };
    let mount = mount.with_options(options.iter().map(String::as_str))?;
    Ok(if read_only { mount.read_only(true) } else { mount })
}

/// `TARGET[:size=64m,mode=700,exec]`; without set-user-id, devices and programs unless it says so.
fn tmpfs(text: &str) -> Result<Mount> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let given: Vec<&str> = options.split(',').filter(|option| !option.is_empty()).collect();
    let usual = [("noexec", "exec"), ("nosuid", "suid"), ("nodev", "dev")];
    let usual = usual.into_iter().filter(|(_, other)| !given.contains(other)).map(|(option, _)| option);
    let options: Vec<&str> = usual.chain(given.iter().copied()).collect();
    Ok(Mount::tmpfs(target).with_options(options)?)
}

/// `/etc/resolv.conf` and `/etc/hosts`, where something is asked for them.
fn files(spec: &mut Spec, given: &ArgMatches) -> Result<()> {
    let (servers, search, options) = (given.texts("dns"), given.texts("dns-search"), given.texts("dns-option"));
    // `fe80::1%eth0` has a scope.
    let is_address = |text: &&str| text.split('%').next().is_some_and(|address| address.parse::<IpAddr>().is_ok());
    if let Some(server) = servers.iter().find(|server| !is_address(server)) {
        return Err(
            Failure::new(format!("--dns: {server:?} is no address")).hint("write it as 192.0.2.1 or 2001:db8::1")
        );
    }
    if !servers.is_empty() || !search.is_empty() || !options.is_empty() {
        let mut text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
        let line = |name: &str, words: &[&str]| {
            if words.is_empty() { String::new() } else { format!("{name} {}\n", words.join(" ")) }
        };
        text += &line("search", &search);
        text += &line("options", &options);
        if text.chars().any(|char| char.is_control() && char != '\n') || text.lines().count() > servers.len() + 2 {
            return Err(Failure::new("--dns: a name or address has control characters"));
        }
        spec.mounts.push(Mount::file("/etc/resolv.conf", text, 0o644));
    }
    let hosts = given.texts("add-host");
    if !hosts.is_empty() {
        let own = spec.hostname.clone().map(|name| format!("127.0.1.1\t{name}\n")).unwrap_or_default();
        let mut text = format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{own}");
        for host in hosts {
            let mark = host.find(['=', ':']).unwrap_or(host.len());
            let (name, address) = (&host[..mark], host.get(mark + 1..).unwrap_or_default());
            let address = address.trim_start_matches('[').trim_end_matches(']');
            if name.is_empty() || name.contains(char::is_whitespace) || address.parse::<IpAddr>().is_err() {
                return Err(Failure::new(format!("--add-host: {host:?} is not NAME:ADDRESS")));
            }
            text += &format!("{address}\t{name}\n");
        }
        spec.mounts.push(Mount::file("/etc/hosts", text, 0o644));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_paths_or_names() {
        assert_eq!(volume("/a:/b").unwrap().kind(), "bind");
        assert_eq!(volume("./a:/b:ro").unwrap().kind(), "bind");
        assert!(volume("/a:/b:ro").unwrap().is_read_only());
        assert_eq!(volume("data:/b").unwrap().kind(), "volume");
        for bad in ["/a", ":/b", "/a:/b:ro:x", "/a:/b:z"] {
            assert!(volume(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mounts_are_read_by_key() {
        let bind = mount("type=bind,src=/a,dst=/b,readonly").unwrap();
        assert_eq!((bind.kind(), bind.is_read_only()), ("bind", true));
        assert_eq!(mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=700").unwrap().kind(), "tmpfs");
        assert_eq!(mount("source=data,target=/b").unwrap().kind(), "volume");
        for bad in
            ["type=bind,target=/b", "type=bind,source=/a", "type=nfs,target=/a", "x=y", "type=bind,source,target=/a"]
        {
            assert!(mount(bad).is_err(), "{bad}");
        }
        assert!(tmpfs("/run:size=64k,exec").is_ok() && tmpfs("/run").is_ok());
    }
}
