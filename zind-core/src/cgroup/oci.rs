//! [`Resources`] from and to OCI's `linux.resources`.
//!
//! Source: <https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#control-groups>
#![forbid(unsafe_code)]

use serde_json::{Map, Value, json};

use super::limits::{blkio_to_weight, weight_to_blkio};
use super::resources::{DeviceKind, DeviceRule, IoLimit, RdmaLimit, Resources};
use crate::error::{Error, Result};

/// Files of version 2 that have a field of their own.
const LIFTED: [&str; 7] =
    ["memory.high", "memory.min", "memory.low", "memory.swap.max", "memory.oom.group", "cpu.weight", "io.weight"];

fn refuse<T>(rule: impl Into<String>) -> Result<T> {
    Err(Error::spec("resources", rule))
}

/// An object whose keys are taken one by one; what is left at the end is unknown.
struct Object<'a> {
    name: &'a str,
    map: Map<String, Value>,
}

impl<'a> Object<'a> {
    fn of(name: &'a str, value: Value) -> Result<Object<'a>> {
        match value {
            Value::Object(map) => Ok(Object { name, map }),
            Value::Null => Ok(Object { name, map: Map::new() }),
            other => refuse(format!("{name}: {other} is no object")),
        }
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key).filter(|value| !value.is_null())
    }

    fn object<'b>(&mut self, key: &'b str) -> Result<Object<'b>> {
        Object::of(key, self.take(key).unwrap_or(Value::Null))
    }

    fn bad<T>(&self, key: &str, value: &Value, wanted: &str) -> Result<T> {
        refuse(format!("{}.{key}: {value} is no {wanted}", self.name))
    }

    fn number(&mut self, key: &str) -> Result<Option<i64>> {
        match self.take(key) {
            None => Ok(None),
            Some(value) => match value.as_i64() {
                Some(number) => Ok(Some(number)),
                // Runtimes write the greatest number of 64 bits for "no limit".
                None if value.as_u64().is_some() => Ok(Some(-1)),
                None => self.bad(key, &value, "whole number"),
            },
        }
    }

    /// A number that cannot be negative.
    fn count(&mut self, key: &str) -> Result<Option<u64>> {
        match self.number(key)? {
            Some(number) => match u64::try_from(number) {
                Ok(number) => Ok(Some(number)),
                Err(_) => refuse(format!("{}.{key}: {number} is negative", self.name)),
            },
            None => Ok(None),
        }
    }

    /// A number of 32 bits.
    fn small(&mut self, key: &str) -> Result<Option<u32>> {
        match self.count(key)?.map(|number| (number, u32::try_from(number))) {
            None => Ok(None),
            Some((_, Ok(small))) => Ok(Some(small)),
            Some((number, Err(_))) => refuse(format!("{}.{key}: {number} is not within 0 to {}", self.name, u32::MAX)),
        }
    }

    /// A limit: -1 is none.
    fn limit(&mut self, key: &str) -> Result<Option<u64>> {
        Ok(self.number(key)?.map(|number| u64::try_from(number).unwrap_or(u64::MAX)))
    }

    fn flag(&mut self, key: &str) -> Result<Option<bool>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Bool(is)) => Ok(Some(is)),
            Some(value) => self.bad(key, &value, "true or false"),
        }
    }

    fn text(&mut self, key: &str) -> Result<Option<String>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
            Some(value) => self.bad(key, &value, "text"),
        }
    }

    fn list(&mut self, key: &str) -> Result<Vec<Value>> {
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => Ok(list),
            Some(value) => self.bad(key, &value, "list"),
        }
    }

    fn end(self) -> Result<()> {
        match self.map.iter().find(|(_, value)| !value.is_null()) {
            Some((key, _)) => refuse(format!("{}: {key:?} is unknown", self.name)),
            None => Ok(()),
        }
    }
}

impl Resources {
    /// From the `linux.resources` object of OCI, as text.
    ///
    /// `memory.swap`, which is memory and swap together, becomes [`Resources::swap`], which is swap alone; -1 is no limit;
    /// files of `unified` that have a field of their own come to stand there.
    /// Errors: [`Error::Spec`] for text that is no such object, unknown or contradictory fields; [`Error::Unsupported`] for
    /// what no kernel has any more (`memory.kernel`, `blockIO.leafWeight`).
    pub fn from_oci_json(text: &str) -> Result<Resources> {
        let value = serde_json::from_str(text)
            .map_err(|error| Error::spec("resources", format!("this is no JSON: {error}")))?;
        Resources::from_oci(value)
    }

    /// The same from a value.
    pub fn from_oci(value: Value) -> Result<Resources> {
        let mut all = Object::of("resources", value)?;
        let mut r = Resources::default();
        memory_from(&mut r, all.object("memory")?)?;
        cpu_from(&mut r, all.object("cpu")?)?;
        let mut pids = all.object("pids")?;
        // 0 was "no limit" before version 1.3 of the specification, and no container can run with none.
        r.pids =
            pids.number("limit")?.map(|most| u64::try_from(most).ok().filter(|most| *most > 0).unwrap_or(u64::MAX));
        pids.end()?;
        block_io_from(&mut r, all.object("blockIO")?)?;
        for page in all.list("hugepageLimits")? {
            let mut page = Object::of("hugepageLimits", page)?;
            let (size, limit) = (page.text("pageSize")?, page.limit("limit")?);
            match (size, limit) {
                (Some(size), Some(limit)) => r.hugetlb.insert(size, limit),
                _ => return refuse("hugepageLimits: needs pageSize and limit"),
            };
            page.end()?;
        }
        for (name, limit) in all.object("rdma")?.map {
            let mut limit = Object::of("rdma", limit)?;
            let hca_handles = limit.small("hcaHandles")?;
            let hca_objects = limit.small("hcaObjects")?;
            limit.end()?;
            r.rdma.insert(name, RdmaLimit { hca_handles, hca_objects });
        }
        let mut network = all.object("network")?;
        r.net_classid = network.small("classID")?;
        for entry in network.list("priorities")? {
            let mut entry = Object::of("priorities", entry)?;
            match (entry.text("name")?, entry.small("priority")?) {
                (Some(name), Some(priority)) => {
                    r.net_priorities.insert(name, priority);
                }
                _ => return refuse("network.priorities: needs name and priority"),
            }
            entry.end()?;
        }
        network.end()?;
        for rule in all.list("devices")? {
            r.devices.push(rule_from(rule)?);
        }
        for (file, text) in all.object("unified")?.map {
            let Value::String(text) = text else { return refuse(format!("unified: {file:?} needs text")) };
            lift(&mut r, file, text)?;
        }
        all.end()?;
        r.check()?;
        Ok(r)
    }

    /// The `linux.resources` object of OCI. What OCI has no field for is in `unified`.
    ///
    /// Errors: [`Error::Spec`] for a disk of `io` that is none; [`Error::Sys`] if it is not there.
    pub fn to_oci(&self) -> Result<Value> {
        let signed = |value: Option<u64>| value.map(|value| i64::try_from(value).unwrap_or(-1));
        let mut unified = self.unified.clone();
        let mut raw = |file: &str, value: Option<u64>| {
            if let Some(value) = value {
                let text = if value == u64::MAX { "max".to_owned() } else { value.to_string() };
                unified.insert(file.to_owned(), text);
            }
        };
        raw("memory.high", self.memory_high);
        raw("memory.min", self.memory_min);
        raw("memory.oom.group", self.oom_group.map(u64::from));
        raw("cpu.weight", self.cpu_weight);
        let weight = self.io_weight.map(weight_to_blkio);
        let is_exact = weight.map(blkio_to_weight) == self.io_weight;
        raw("io.weight", self.io_weight.filter(|_| !is_exact));
        // Together they are one limit; swap alone has no field.
        let both = match (self.memory, self.swap) {
            (_, Some(u64::MAX)) => Some(-1),
            (Some(memory), Some(swap)) if memory != u64::MAX => {
                i64::try_from(memory.saturating_add(swap)).ok().or(Some(-1))
            }
            // Without a limit of memory there is none of both together.
            (_, Some(swap)) => {
                raw("memory.swap.max", Some(swap));
                None
            }
            (_, None) => None,
        };
        let misc: Vec<String> = self.misc.iter().map(|(name, most)| format!("{name} {most}")).collect();
        if !misc.is_empty() {
            unified.insert("misc.max".to_owned(), misc.join("\n"));
        }
        let mut latency = Vec::new();
        for limit in &self.io {
            if let Some(us) = limit.latency_us {
                latency.push(format!("{} target={us}", super::limits::device(limit)?));
            }
        }
        if !latency.is_empty() {
            unified.insert("io.latency".to_owned(), latency.join("\n"));
        }
        let (quota, period) = self.cpu_time();
        let rules = self.devices.iter().map(|rule| {
            without_nulls(json!({
                "allow": rule.allow,
                "type": rule.kind.letter().to_string(),
                "major": rule.major,
                "minor": rule.minor,
                "access": rule.access,
            }))
        });
        let value = json!({
            "memory": {
                "limit": signed(self.memory),
                "reservation": signed(self.memory_low),
                "swap": both,
                "swappiness": self.swappiness,
                "disableOOMKiller": self.oom_kill_disable,
            },
            "cpu": {
                "shares": self.cpu_shares,
                "quota": quota,
                "period": period,
                "burst": self.cpu_burst_us,
                "realtimeRuntime": self.cpu_rt_runtime_us,
                "realtimePeriod": self.cpu_rt_period_us,
                "cpus": self.cpuset_cpus,
                "mems": self.cpuset_mems,
                "idle": self.cpu_idle.map(u64::from),
            },
            "pids": {"limit": signed(self.pids)},
            "blockIO": block_io_to(self, weight.filter(|_| is_exact))?,
            "hugepageLimits": self.hugetlb.iter().map(|(size, limit)| json!({"pageSize": size, "limit": limit})).collect::<Vec<_>>(),
            "rdma": self.rdma.iter().map(|(name, limit)| {
                (name.clone(), without_nulls(json!({"hcaHandles": limit.hca_handles, "hcaObjects": limit.hca_objects})))
            }).collect::<Map<_, _>>(),
            "network": {
                "classID": self.net_classid,
                "priorities": self.net_priorities.iter().map(|(name, priority)| json!({"name": name, "priority": priority})).collect::<Vec<_>>(),
            },
            "devices": rules.collect::<Vec<_>>(),
            "unified": unified,
        });
        Ok(without_nulls(value))
    }
}

/// Takes out what says nothing: nulls, empty lists and objects, at the two upper levels.
fn without_nulls(value: Value) -> Value {
    let Value::Object(map) = value else { return value };
    let says = |value: &Value| match value {
        Value::Null => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    };
    map.into_iter().map(|(key, value)| (key, without_nulls(value))).filter(|(_, value)| says(value)).collect()
}

fn memory_from(r: &mut Resources, mut memory: Object<'_>) -> Result<()> {
    r.memory = memory.limit("limit")?;
    r.memory_low = memory.limit("reservation")?;
    r.swappiness = memory.count("swappiness")?;
    r.oom_kill_disable = memory.flag("disableOOMKiller")?;
    r.swap = match (memory.number("swap")?, r.memory) {
        (None, _) => None,
        (Some(both), _) if both < 0 => Some(u64::MAX),
        (Some(both), Some(memory)) if memory != u64::MAX => match (both as u64).checked_sub(memory) {
            Some(swap) => Some(swap),
            None => {
                return refuse(format!(
                    "memory.swap: {both} is memory and swap together, and less than memory, {memory}"
                ));
            }
        },
        (Some(_), _) => return refuse("memory.swap: is memory and swap together, and needs memory.limit"),
    };
    for (key, is_harmless) in
        [("kernel", false), ("kernelTCP", false), ("useHierarchy", true), ("checkBeforeUpdate", true)]
    {
        match memory.take(key) {
            // The kernel has nothing else any more; before an update it is always checked.
            Some(Value::Bool(true)) if is_harmless => {}
            Some(Value::Bool(false)) if key == "checkBeforeUpdate" => {}
            Some(Value::Number(number)) if !is_harmless && number.as_i64().is_some_and(|limit| limit <= 0) => {}
            Some(_) => {
                return Err(Error::unsupported(
                    format!("memory.{key}"),
                    "the kernel has no such limit of its own any more",
                ));
            }
            None => {}
        }
    }
    memory.end()
}

fn cpu_from(r: &mut Resources, mut cpu: Object<'_>) -> Result<()> {
    // Runtimes take 0 for "not set".
    r.cpu_shares = cpu.count("shares")?.filter(|shares| *shares > 0).map(|shares| shares.clamp(2, 262_144));
    r.cpu_quota_us = cpu.number("quota")?.filter(|quota| *quota != 0);
    r.cpu_period_us = cpu.count("period")?.filter(|period| *period > 0);
    r.cpu_burst_us = cpu.count("burst")?;
    r.cpu_rt_runtime_us = cpu.number("realtimeRuntime")?;
    r.cpu_rt_period_us = cpu.count("realtimePeriod")?;
    r.cpuset_cpus = cpu.text("cpus")?;
    r.cpuset_mems = cpu.text("mems")?;
    r.cpu_idle = match cpu.number("idle")? {
        None => None,
        Some(idle @ 0..=1) => Some(idle == 1),
        Some(other) => return refuse(format!("cpu.idle: {other} is neither 0 nor 1")),
    };
    cpu.end()
}

const RATES: [&str; 4] =
    ["throttleReadBpsDevice", "throttleWriteBpsDevice", "throttleReadIOPSDevice", "throttleWriteIOPSDevice"];

fn block_io_from(r: &mut Resources, mut io: Object<'_>) -> Result<()> {
    let weight = |weight: Option<u64>| match weight {
        None | Some(0) => Ok(None),
        Some(weight @ 10..=1000) => Ok(Some(blkio_to_weight(weight))),
        Some(weight) => refuse(format!("blockIO: weight {weight} is not within 10 to 1000")),
    };
    r.io_weight = weight(io.count("weight")?)?;
    if io.count("leafWeight")?.is_some_and(|weight| weight > 0) {
        return Err(Error::unsupported("blockIO.leafWeight", "it went with the CFQ scheduler, in Linux 5.0"));
    }
    for entry in io.list("weightDevice")? {
        let mut entry = Object::of("weightDevice", entry)?;
        let device = device_from(&mut entry)?;
        let own = weight(entry.count("weight")?)?;
        if entry.count("leafWeight")?.is_some_and(|weight| weight > 0) {
            return Err(Error::unsupported("blockIO.leafWeight", "it went with the CFQ scheduler, in Linux 5.0"));
        }
        entry.end()?;
        limit_of(r, device).weight = own;
    }
    for (number, name) in RATES.into_iter().enumerate() {
        for entry in io.list(name)? {
            let mut entry = Object::of(name, entry)?;
            let device = device_from(&mut entry)?;
            // 0 takes a limit away.
            let rate = entry.limit("rate")?.map(|rate| if rate == 0 { u64::MAX } else { rate });
            entry.end()?;
            let limit = limit_of(r, device);
            *[&mut limit.rbps, &mut limit.wbps, &mut limit.riops, &mut limit.wiops][number] = rate;
        }
    }
    io.end()
}

fn device_from(entry: &mut Object<'_>) -> Result<String> {
    match (entry.count("major")?, entry.count("minor")?) {
        (Some(major), Some(minor)) => Ok(format!("{major}:{minor}")),
        _ => refuse(format!("{}: needs major and minor", entry.name)),
    }
}

fn limit_of(r: &mut Resources, device: String) -> &mut IoLimit {
    let at = r.io.iter().position(|limit| limit.device.as_os_str() == device.as_str());
    let at = at.unwrap_or_else(|| {
        r.io.push(IoLimit::of(device));
        r.io.len() - 1
    });
    &mut r.io[at]
}

fn block_io_to(r: &Resources, weight: Option<u64>) -> Result<Value> {
    let mut io = Map::new();
    if let Some(weight) = weight {
        io.insert("weight".to_owned(), json!(weight));
    }
    let mut add = |name: &str, limit: &IoLimit, key: &str, value: u64| -> Result<()> {
        let text = super::limits::device(limit)?;
        let (major, minor) = super::limits::numbers(&text).unwrap_or_default();
        let mut entry = json!({"major": major, "minor": minor});
        entry[key] = json!(value);
        if let Some(list) = io.entry(name).or_insert_with(|| json!([])).as_array_mut() {
            list.push(entry);
        }
        Ok(())
    };
    for limit in &r.io {
        if let Some(weight) = limit.weight {
            add("weightDevice", limit, "weight", weight_to_blkio(weight))?;
        }
        for ((_, rate), name) in limit.rates().into_iter().zip(RATES) {
            if let Some(rate) = rate {
                add(name, limit, "rate", if rate == u64::MAX { 0 } else { rate })?;
            }
        }
    }
    Ok(Value::Object(io))
}

fn rule_from(rule: Value) -> Result<DeviceRule> {
    let mut rule = Object::of("devices", rule)?;
    let number = |number: Option<i64>| match number {
        None => Ok(None),
        // Docker writes -1 for "any".
        Some(-1) => Ok(None),
        Some(number) => match u32::try_from(number) {
            Ok(number) => Ok(Some(number)),
            Err(_) => refuse(format!("devices: {number} is no device number")),
        },
    };
    let allow = rule.flag("allow")?.unwrap_or(false);
    let kind = match rule.text("type")?.as_deref() {
        None | Some("a") => DeviceKind::All,
        Some("b") => DeviceKind::Block,
        Some("c" | "u") => DeviceKind::Char,
        Some(other) => return refuse(format!("devices: type {other:?} is none of a, b, c")),
    };
    let (major, minor) = (number(rule.number("major")?)?, number(rule.number("minor")?)?);
    let access = rule.text("access")?.unwrap_or_else(|| "rwm".to_owned());
    rule.end()?;
    Ok(DeviceRule { allow, kind, major, minor, access })
}

/// A file of version 2 becomes a field, if there is one for it, so that it holds on version 1 too.
fn lift(r: &mut Resources, file: String, text: String) -> Result<()> {
    let number = match text.trim() {
        "max" => Some(u64::MAX),
        digits => digits.strip_prefix("default ").unwrap_or(digits).parse().ok(),
    };
    if let (Some(number), true) = (number, LIFTED.contains(&file.as_str())) {
        match file.as_str() {
            "memory.high" => r.memory_high = Some(number),
            "memory.min" => r.memory_min = Some(number),
            "memory.low" if r.memory_low.is_none() => r.memory_low = Some(number),
            "memory.swap.max" if r.swap.is_none() => r.swap = Some(number),
            "memory.oom.group" if number < 2 => r.oom_group = Some(number == 1),
            "cpu.weight" if r.cpu_shares.is_none() => r.cpu_weight = Some(number),
            "io.weight" if r.io_weight.is_none() => r.io_weight = Some(number),
            _ => drop(r.unified.insert(file, text)),
        }
        return Ok(());
    }
    r.unified.insert(file, text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: Value) -> Resources {
        Resources::from_oci(value).unwrap()
    }

    #[test]
    fn a_document_comes_and_goes() {
        let document = json!({
            "memory": {"limit": 67108864, "reservation": 1048576, "swap": 134217728, "swappiness": 0, "disableOOMKiller": false},
            "cpu": {"shares": 512, "quota": 50000, "period": 100000, "burst": 1000, "cpus": "0-1", "mems": "0", "idle": 0,
                    "realtimeRuntime": 950000, "realtimePeriod": 1000000},
            "pids": {"limit": 64},
            "blockIO": {
                "weight": 100,
                "weightDevice": [{"major": 8, "minor": 0, "weight": 500}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 10}],
            },
            "hugepageLimits": [{"pageSize": "2MB", "limit": 209715200}],
            "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "rxe3": {"hcaObjects": 10000}},
            "network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 500}]},
            "devices": [{"allow": false, "type": "a", "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}],
            "unified": {"memory.high": "33554432", "memory.zswap.max": "0", "cpu.pressure": "x"},
        });
        let r = of(document.clone());
        assert_eq!((r.memory, r.swap, r.memory_high), (Some(64 << 20), Some(64 << 20), Some(32 << 20)));
        assert_eq!((r.io.len(), r.io_weight), (2, Some(910)));
        assert_eq!(r.unified.len(), 2);
        assert_eq!(r.to_oci().unwrap(), document);
        assert_eq!(of(r.to_oci().unwrap()), r);
    }

    #[test]
    fn every_field_survives() {
        let mut r =
            Resources::new().memory(1 << 20).memory_high(1 << 19).swap(0).oom_group(true).cpus(0.5).cpu_weight(77);
        r = r
            .pids(u64::MAX)
            .io_weight(123)
            .io(IoLimit::of("8:0").bps(Some(1), Some(u64::MAX)).latency_us(50).weight(910));
        r.misc.insert("sev".to_owned(), 5);
        r.memory_min = Some(4096);
        let back = of(r.to_oci().unwrap());
        // cpus are quota and period there; latency and misc are files.
        assert_eq!((back.cpu_quota_us, back.cpu_period_us), (Some(50_000), Some(100_000)));
        assert_eq!(back.unified["io.latency"], "8:0 target=50");
        assert_eq!(back.unified["misc.max"], "sev 5");
        let same = Resources { cpus: None, cpu_quota_us: Some(50_000), cpu_period_us: Some(100_000), ..r.clone() };
        let mut io = same.io.clone();
        io[0].latency_us = None;
        assert_eq!(Resources { unified: [].into(), ..back.clone() }, Resources { io, misc: [].into(), ..same });
        assert_eq!(of(back.to_oci().unwrap()), back);
    }

    #[test]
    fn swap_without_a_limit_of_memory_stays_a_limit() {
        let r = Resources::new().memory(u64::MAX).swap(1 << 30);
        assert_eq!(r.to_oci().unwrap()["unified"]["memory.swap.max"], "1073741824");
        assert_eq!(of(r.to_oci().unwrap()), r);
    }

    #[test]
    fn disks_that_are_not_there_have_no_numbers() {
        for limit in [IoLimit::of("/no/such/disk").latency_us(5), IoLimit::of("/no/such/disk").weight(5)] {
            let refused = Resources::new().io(limit).to_oci().unwrap_err();
            assert_eq!(refused.errno(), Some(nix::errno::Errno::ENOENT));
        }
        assert!(Resources::new().io(IoLimit::of("/dev/null").weight(5)).to_oci().is_err());
    }

    #[test]
    fn what_is_unknown_or_contradictory_is_refused() {
        for bad in [
            json!([]),
            json!({"memry": {}}),
            json!({"memory": {"limt": 1}}),
            json!({"memory": {"limit": "64m"}}),
            json!({"memory": {"limit": 8192, "swap": 4096}}),
            json!({"memory": {"swap": 4096}}),
            json!({"cpu": {"idle": 2}}),
            json!({"cpu": {"shares": -1}}),
            json!({"blockIO": {"weight": 5}}),
            json!({"blockIO": {"throttleReadBpsDevice": [{"major": 8}]}}),
            json!({"devices": [{"type": "x"}]}),
            json!({"devices": [{"access": "q"}]}),
            json!({"unified": {"memory.max": 5}}),
            json!({"unified": {"cgroup.procs": "5"}}),
            json!({"hugepageLimits": [{"limit": 5}]}),
            json!({"network": {"classID": 1u64 << 32}}),
            json!({"network": {"priorities": [{"name": "lo", "priority": 1u64 << 32}]}}),
            json!({"rdma": {"mlx5_1": {"hcaHandles": 1u64 << 32}}}),
        ] {
            assert_eq!(Resources::from_oci(bad.clone()).unwrap_err().field(), Some("resources"), "{bad}");
        }
        let kernel = Resources::from_oci(json!({"memory": {"kernel": 4096}}));
        assert!(matches!(kernel, Err(Error::Unsupported { .. })));
        assert_eq!(
            of(json!({"memory": {"kernel": -1, "checkBeforeUpdate": true}, "cpu": {"shares": 0, "quota": 0}})),
            Resources::new()
        );
        assert_eq!(
            of(json!({"memory": {"limit": -1}, "pids": {"limit": 0}})),
            Resources::new().memory(u64::MAX).pids(u64::MAX)
        );
        assert_eq!(Resources::from_oci_json("{").unwrap_err().field(), Some("resources"));
    }
}
