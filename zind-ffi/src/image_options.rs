//! Options of images as JSON: every field is known, or it is an error that names it.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};
use zind_core::{
    Auth, Builder, CapSet, Command, CommitOptions, Compression, Error, Kind, Limits, Mirror, Platform, Progress,
    PullOptions, PullPolicy, PushOptions, RegistryOptions, Result, RunConfig, Source, Spec, Store, User,
    parse_duration,
};

/// The fields of an object that are still to be read.
pub(crate) struct Fields {
    name: &'static str,
    map: Map<String, Value>,
}

pub(crate) fn parse(name: &'static str, text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| Error::spec(name, format!("is no JSON: {error}")))
}

impl Fields {
    /// `None` is an object without fields.
    pub(crate) fn new(name: &'static str, text: Option<&str>) -> Result<Fields> {
        match text.map(|text| parse(name, text)).transpose()? {
            None => Ok(Fields { name, map: Map::new() }),
            Some(value) => Fields::of(name, value),
        }
    }

    fn of(name: &'static str, value: Value) -> Result<Fields> {
        match value {
            Value::Object(map) => Ok(Fields { name, map }),
            _ => Err(Error::spec(name, "is no object")),
        }
    }

    fn wrong(&self, field: &str, wanted: &str) -> Error {
        Error::spec(self.name, format!("{field} is not {wanted}"))
    }

    fn take(&mut self, field: &str) -> Option<Value> {
        self.map.remove(field).filter(|value| !value.is_null())
    }

    fn text(&mut self, field: &str) -> Result<Option<String>> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(field, "text")),
        }
    }

    fn path(&mut self, field: &str) -> Result<Option<PathBuf>> {
        self.text(field).map(|text| text.map(PathBuf::from))
    }

    fn flag(&mut self, field: &str) -> Result<Option<bool>> {
        self.take(field).map(|value| value.as_bool().ok_or_else(|| self.wrong(field, "true or false"))).transpose()
    }

    fn number(&mut self, field: &str) -> Result<Option<u64>> {
        self.take(field).map(|value| value.as_u64().ok_or_else(|| self.wrong(field, "a number"))).transpose()
    }

    fn seconds(&mut self, field: &'static str) -> Result<Option<Duration>> {
        let Some(value) = self.take(field) else { return Ok(None) };
        let seconds = value.as_f64().ok_or_else(|| self.wrong(field, "a number of seconds"))?;
        parse_duration(field, seconds).map(Some)
    }

    fn texts(&mut self, field: &str) -> Result<Option<Vec<String>>> {
        let Some(value) = self.take(field) else { return Ok(None) };
        let list = value.as_array().map(|list| list.iter().map(|item| item.as_str().map(str::to_owned)).collect());
        list.flatten().map(Some).ok_or_else(|| self.wrong(field, "an array of texts"))
    }

    fn pairs(&mut self, field: &str) -> Result<Vec<(String, String)>> {
        let Some(value) = self.take(field) else { return Ok(Vec::new()) };
        let pair = |(name, value): (&String, &Value)| value.as_str().map(|value| (name.clone(), value.to_owned()));
        let pairs = value.as_object().map(|map| map.iter().map(pair).collect::<Option<Vec<_>>>());
        pairs.flatten().ok_or_else(|| self.wrong(field, "an object of texts"))
    }

    /// An error for the first field that nobody has read.
    pub(crate) fn end(self) -> Result<()> {
        match self.map.keys().next() {
            None => Ok(()),
            Some(field) => Err(Error::spec(self.name, format!("has {field:?}, which nothing knows"))),
        }
    }
}

/// Bounds of a store; NULL: the usual ones.
pub(crate) fn limits(text: Option<&str>) -> Result<Limits> {
    let mut limits = Limits::default();
    let mut fields = Fields::new("limits", text)?;
    for (name, _) in Limits::default().pairs() {
        if let Some(value) = fields.number(name)? {
            limits.set(name, value)?;
        }
    }
    fields.end()?;
    Ok(limits)
}

fn auth(fields: &mut Fields) -> Result<Auth> {
    let wrong = "\"anonymous\", [user, password], {\"bearer\": token} or {\"identity\": token}";
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let found = match fields.take("auth") {
        None => return Ok(Auth::Files),
        Some(Value::String(word)) if word == "anonymous" => Some(Auth::Anonymous),
        Some(Value::Array(pair)) if pair.len() == 2 => {
            text(pair.first()).zip(text(pair.get(1))).map(|(user, password)| Auth::Basic { user, password })
        }
        Some(Value::Object(map)) if map.len() == 1 => {
            text(map.get("bearer")).map(Auth::Bearer).or(text(map.get("identity")).map(Auth::Identity))
        }
        Some(_) => None,
    };
    found.ok_or_else(|| fields.wrong("auth", wrong))
}

/// `"mirror:5000/hub"`, or `["mirror:5000/hub", true]` for one whose certificate is not checked.
fn mirror(value: &Value) -> Option<Mirror> {
    let (location, insecure) = match value {
        Value::Array(pair) if pair.len() == 2 => (&pair[0], pair[1].as_bool()?),
        other => (other, false),
    };
    Some(Mirror { location: location.as_str()?.to_owned(), insecure })
}

fn registry(fields: &mut Fields) -> Result<RegistryOptions> {
    let mut options = RegistryOptions::default();
    options.auth = auth(fields)?;
    (options.auth_file, options.cert_dir) = (fields.path("auth_file")?, fields.path("cert_dir")?);
    options.tls_verify = fields.flag("tls_verify")?.unwrap_or(true);
    options.proxy = fields.text("proxy")?;
    if let Some(timeout) = fields.seconds("timeout")? {
        options.timeout = timeout;
    }
    let small =
        |number: Option<u64>, usual: u32| number.map_or(usual, |number| u32::try_from(number).unwrap_or(u32::MAX));
    options.retries = small(fields.number("retries")?, options.retries);
    options.parallel = small(fields.number("parallel")?, u32::try_from(options.parallel).unwrap_or(1)) as usize;
    if let Some(mirrors) = fields.take("mirrors") {
        let mut mirrors = Fields::of("mirrors", mirrors)?;
        let hosts: Vec<String> = mirrors.map.keys().cloned().collect();
        for host in hosts {
            let places: Option<Vec<Mirror>> = match mirrors.take(&host) {
                None => Some(Vec::new()),
                Some(Value::Array(list)) => list.iter().map(mirror).collect(),
                Some(_) => None,
            };
            let places =
                places.ok_or_else(|| mirrors.wrong(&host, "an array of places, each text or [text, true or false]"))?;
            options.mirrors.insert(host, places);
        }
    }
    Ok(options)
}

fn policy(name: &str) -> Result<PullPolicy> {
    PullPolicy::from_name(name)
        .ok_or_else(|| Error::spec("policy", format!("{name:?} is none of \"missing\", \"always\", \"never\"")))
}

/// Options of a pull.
pub(crate) fn pull(text: Option<&str>, usual: &str) -> Result<PullOptions> {
    let mut fields = Fields::new("options", text)?;
    let mut options = PullOptions::default();
    options.policy = policy(fields.text("policy")?.as_deref().unwrap_or(usual))?;
    options.platform = fields.text("platform")?.as_deref().map(Platform::parse).transpose()?;
    options.unpack = fields.flag("unpack")?.unwrap_or(true);
    options.foreign_layers = fields.flag("foreign_layers")?.unwrap_or(false);
    options.registry = registry(&mut fields)?;
    fields.end()?;
    Ok(options)
}

/// Options of a push.
pub(crate) fn push(text: Option<&str>) -> Result<PushOptions> {
    let mut fields = Fields::new("options", text)?;
    let mut options = PushOptions::default();
    (options.chunk_size, options.mount_from) = (fields.number("chunk_size")?, fields.text("mount_from")?);
    options.extra_tags = fields.texts("extra_tags")?.unwrap_or_default();
    options.registry = registry(&mut fields)?;
    fields.end()?;
    Ok(options)
}

/// Options of a commit; other fields are left.
pub(crate) fn commit(fields: &mut Fields) -> Result<CommitOptions> {
    let mut options = CommitOptions::new();
    options.tags = fields.texts("tags")?.unwrap_or_default();
    options.config = fields.take("config").map(|config| RunConfig::of_json(&config)).transpose()?;
    (options.author, options.message) = (fields.text("author")?, fields.text("message")?);
    options.created = fields.text("created")?;
    if let Some(name) = fields.text("compression")? {
        options.compression =
            Compression::from_name(&name).ok_or_else(|| fields.wrong("compression", "gzip, zstd or none"))?;
    }
    Ok(options)
}

/// What a build makes, and how.
pub(crate) fn build(
    store: &Store,
    description: Value,
    progress: &mut dyn Progress,
) -> Result<(Builder, CommitOptions)> {
    let mut fields = Fields::of("description", description)?;
    let mut builder = Builder::new(store);
    let mut how = PullOptions::default();
    how.policy = policy(fields.text("pull")?.as_deref().unwrap_or("missing"))?;
    if let Some(name) = fields.text("from")? {
        builder.from(&store.get(&name, &how, progress)?);
    }
    builder.cache(fields.flag("cache")?.unwrap_or(true));
    let options = commit(&mut fields)?;
    let steps = match fields.take("steps") {
        None => Vec::new(),
        Some(Value::Array(steps)) => steps,
        Some(_) => return Err(fields.wrong("steps", "an array")),
    };
    fields.end()?;
    for value in steps {
        let mut fields = Fields::of("steps", value)?;
        step(&mut builder, &mut fields)?;
        fields.end()?;
    }
    Ok((builder, options))
}

fn step(builder: &mut Builder, fields: &mut Fields) -> Result<()> {
    if let Some(argv) = fields.texts("run")? {
        return run(builder, argv, fields);
    }
    if let Some(pair) = fields.texts("copy")? {
        let Ok([source, target]) = <[String; 2]>::try_from(pair) else {
            return Err(fields.wrong("copy", "[source, target]"));
        };
        builder.copy_as(source, target, fields.text("owner")?.unwrap_or_else(|| "0:0".to_owned()));
        return Ok(());
    }
    for (name, value) in fields.pairs("env")? {
        builder.env(name, value);
    }
    for (name, value) in fields.pairs("label")? {
        builder.label(name, value);
    }
    if let Some(argv) = fields.texts("entrypoint")? {
        builder.entrypoint(argv);
    }
    if let Some(argv) = fields.texts("cmd")? {
        builder.cmd(argv);
    }
    for name in ["workdir", "user", "expose", "volume", "stop_signal"] {
        let Some(text) = fields.text(name)? else { continue };
        match name {
            "workdir" => builder.workdir(text),
            "user" => builder.user(text),
            "expose" => builder.expose(text),
            "volume" => builder.volume(text),
            _ => builder.stop_signal(text),
        };
    }
    Ok(())
}

fn run(builder: &mut Builder, argv: Vec<String>, fields: &mut Fields) -> Result<()> {
    let mut spec = Spec::new(argv);
    for (name, value) in fields.pairs("env")? {
        spec.env.push((name.into(), value.into()));
    }
    match fields.text("network")?.as_deref() {
        None | Some("none") => {}
        Some("host") => {
            spec.namespaces.insert(Kind::Net, Source::Host);
        }
        Some(_) => return Err(fields.wrong("network", "\"none\" or \"host\"")),
    }
    if let Some(names) = fields.texts("capabilities")? {
        spec.capabilities = Some(CapSet::from_names(names)?);
    }
    spec.user = fields.text("user")?.map(User::Name);
    spec.cwd = fields.path("cwd")?;
    spec.timeout = fields.seconds("timeout")?;
    builder.run_command(&Command::from(spec));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_the_capabilities_that_it_names() {
        let place = std::env::temp_dir().join(format!("zind-test-steps-{}", std::process::id()));
        let store = Store::open(Some(place.clone())).unwrap();
        let parsed = |names: &str| {
            let text = format!(r#"{{"steps": [{{"run": ["make"], "capabilities": {names}}}]}}"#);
            build(&store, parse("description", &text).unwrap(), &mut ())
        };
        for good in ["[]", r#"["CHOWN", "net_raw"]"#] {
            parsed(good).unwrap();
        }
        for bad in [r#""CHOWN""#, r#"["NOPE"]"#] {
            assert_eq!(
                parsed(bad).unwrap_err().field(),
                Some(if bad.starts_with('[') { "capabilities" } else { "steps" })
            );
        }
        std::fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn options_are_read_and_unknown_ones_are_named() {
        let text = r#"{"policy": "never", "auth": ["u", "p"], "tls_verify": false, "timeout": 1.5, "mirrors": {"docker.io": ["m:1", ["m:2", true], ["m:3", false]]}}"#;
        let options = pull(Some(text), "always").unwrap();
        assert_eq!(options.policy, PullPolicy::Never);
        assert_eq!(options.registry.auth, Auth::Basic { user: "u".into(), password: "p".into() });
        assert_eq!(options.registry.timeout, Duration::from_millis(1500));
        let mirror = |location: &str, insecure| Mirror { location: location.into(), insecure };
        let wanted = [mirror("m:1", false), mirror("m:2", true), mirror("m:3", false)];
        assert_eq!(options.registry.mirrors["docker.io"], wanted);
        for bad in [r#""m""#, "[1]", r#"[["m"]]"#, r#"[["m", 1]]"#, r#"[["m", true, true]]"#, r#"[[true, "m"]]"#, "{}"]
        {
            let text = format!(r#"{{"mirrors": {{"docker.io": {bad}}}}}"#);
            assert_eq!(pull(Some(&text), "always").unwrap_err().field(), Some("mirrors"), "{bad}");
        }
        assert_eq!(pull(None, "always").unwrap().policy, PullPolicy::Always);
        for bad in
            ["[]", "{", r#"{"polcy": "never"}"#, r#"{"policy": "x"}"#, r#"{"auth": ["u"]}"#, r#"{"retries": -1}"#]
        {
            assert!(pull(Some(bad), "always").is_err(), "{bad}");
        }
        let error = push(Some(r#"{"chunk": 5}"#)).unwrap_err().to_string();
        assert!(error.contains("chunk"), "{error}");
    }
}
