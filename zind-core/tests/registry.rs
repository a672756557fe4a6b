//! Pull and push against a registry of our own on loopback, which breaks the rules in every way that we could think of.
//! Run as root, the whole file is run once more as an ordinary user.

#[path = "support/fake.rs"]
mod fake;
#[path = "support/points.rs"]
mod points;
#[path = "support/server.rs"]
mod server;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fake::{Fake, INDEX, MANIFEST, Made};
use server::{Reply, Seen, Server};
use zind_core::{
    Auth, Digest, Error, Image, Limits, Mirror, Platform, Progress, ProgressEvent, PullOptions, PullPolicy,
    PushOptions, Store,
};

/// A store in a directory of its own, which is gone with it.
struct Place {
    store: Store,
    dir: PathBuf,
}

impl Place {
    fn new() -> Place {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Place::at(std::env::temp_dir().join(format!("zind-test-registry-{}-{number}", std::process::id())))
    }

    /// In memory, where there is such a place: for what is done a hundred times.
    fn fast() -> Place {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = PathBuf::from(format!("/dev/shm/zind-test-registry-{}-{number}", std::process::id()));
        let flags = rustix::fs::XattrFlags::empty();
        let is_fit = std::fs::create_dir(&dir).is_ok() && rustix::fs::setxattr(&dir, "user.zind", b"", flags).is_ok();
        if is_fit {
            return Place::at(dir);
        }
        let _ = std::fs::remove_dir(&dir);
        Place::new()
    }

    fn at(dir: PathBuf) -> Place {
        std::fs::create_dir_all(&dir).unwrap();
        Place { store: Store::open(Some(dir.join("store"))).unwrap(), dir }
    }

    fn pull(&self, server: &Server, options: &PullOptions) -> Result<Image, Error> {
        self.store.pull(&name(server), options, &mut ())
    }

    /// Nothing half done is in the store, and nothing has the name.
    fn assert_nothing(&self, server: &Server) {
        assert!(matches!(self.store.image(&name(server)), Err(Error::NotFound { .. })));
        assert_eq!(verified(&self.store), []);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// What is wrong in a store.
fn verified(store: &Store) -> Vec<zind_core::Fault> {
    store.verify(&mut ()).unwrap()
}

fn name(server: &Server) -> String {
    format!("{}/team/app:1", server.host())
}

/// Nobody's credentials, and not much patience.
fn options() -> PullOptions {
    let mut options = PullOptions::default();
    options.registry.auth = Auth::Anonymous;
    options.registry.timeout = Duration::from_secs(20);
    options
}

fn short(patience: u64) -> PullOptions {
    let mut options = options();
    options.registry.timeout = Duration::from_millis(patience);
    options.registry.retries = 1;
    options
}

/// Status and code of an error of a registry.
fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> (Option<u16>, String) {
    match result.unwrap_err() {
        Error::Registry { status, code, .. } => (status, code),
        other => panic!("another error: {other}"),
    }
}

fn is_blob(seen: &Seen, blob: &[u8]) -> bool {
    seen.path.ends_with(&Digest::of(blob).to_string())
}

#[test]
fn a_pull_takes_manifest_config_and_layers_once() {
    let made = Made::of(&[3000, 200_000, 10]);
    let fake = Fake::new(&made, "1");
    let server = Server::start(move |seen| fake.answer(seen));
    let place = Place::new();
    let image = place.pull(&server, &options()).unwrap();
    assert_eq!(image.digest(), &Digest::of(&made.manifest));
    assert_eq!(image.id(), &Digest::of(&made.config));
    assert_eq!(image.tags(), [name(&server)]);
    assert_eq!(image.layers().unwrap().len(), 3);
    for layer in &made.layers {
        assert!(place.store.has_blob(&Digest::of(layer)));
    }
    assert_eq!(server.seen().len(), 5);
    // Missing: nobody is asked. Always, which is what a pull does if nothing else is said: only the manifest is.
    let mut missing = options();
    missing.policy = PullPolicy::Missing;
    place.pull(&server, &missing).unwrap();
    assert_eq!(server.seen().len(), 5);
    assert_eq!((options().policy, PullPolicy::default()), (PullPolicy::Always, PullPolicy::Always));
    assert_eq!(place.pull(&server, &options()).unwrap(), image);
    assert_eq!(server.seen().len(), 6);
    assert_eq!(verified(&place.store), []);
}

#[test]
fn never_means_never() {
    let server = Server::start(|_| Reply::status(500));
    let mut never = options();
    never.policy = PullPolicy::Never;
    assert!(matches!(Place::new().pull(&server, &never), Err(Error::NotFound { .. })));
    assert_eq!(server.seen().len(), 0);
}

#[test]
fn many_layers_come_in_parallel_and_equal_ones_once() {
    let tars: Vec<Vec<u8>> =
        (0..24).map(|n| fake::tar(&format!("f{}", n % 12), &fake::noise(n % 12, 40_000))).collect();
    let made = Made::of_tars(&tars, "amd64");
    let fake = Fake::new(&made, "1");
    let server = Server::start(move |seen| fake.answer(seen));
    let place = Place::new();
    let image = place.pull(&server, &options()).unwrap();
    assert_eq!(image.layers().unwrap().len(), 24);
    assert_eq!(server.count("GET", "/v2/team/app/blobs/"), 13);
    assert_eq!(verified(&place.store), []);
}

#[test]
fn the_platform_is_chosen_from_an_index() {
    let arm = Made::of_tars(&[fake::tar("arm", b"1")], "arm64");
    let amd = Made::of_tars(&[fake::tar("amd", b"1")], "amd64");
    let fake = Fake::new(&arm, "arm");
    fake.add(&amd, "amd");
    let entry = |made: &Made, architecture: &str| {
        let platform = format!(r#","platform":{{"os":"linux","architecture":"{architecture}"}}"#);
        fake::descriptor(MANIFEST, &made.manifest, &platform)
    };
    let list = format!(r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#, entry(&arm, "arm64"), entry(&amd, "amd64"));
    fake.put("manifests/1", INDEX, list.as_bytes());
    let by_digest = Digest::of(list.as_bytes());
    fake.put(&format!("manifests/{by_digest}"), INDEX, list.as_bytes());
    let server = Server::start(move |seen| fake.answer(seen));
    let place = Place::new();
    let mut wanted = options();
    for (architecture, made) in [("linux/amd64", &amd), ("linux/arm64", &arm)] {
        wanted.platform = Some(Platform::parse(architecture).unwrap());
        assert_eq!(place.pull(&server, &wanted).unwrap().digest(), &Digest::of(&made.manifest));
    }
    wanted.platform = Some(Platform::parse("linux/s390x").unwrap());
    let error = place.pull(&server, &wanted).unwrap_err().to_string();
    assert!(error.contains("linux/s390x") && error.contains("linux/arm64"), "{error}");
    // By the digest of the index, and found again without asking.
    wanted.platform = Some(Platform::parse("linux/amd64").unwrap());
    let exact = format!("{}/team/app@{by_digest}", server.host());
    let image = place.store.pull(&exact, &wanted, &mut ()).unwrap();
    assert_eq!(image.digest(), &Digest::of(&amd.manifest));
    let before = server.seen().len();
    wanted.policy = PullPolicy::Missing;
    assert_eq!(place.store.pull(&exact, &wanted, &mut ()).unwrap(), image);
    assert_eq!(server.seen().len(), before);
}

#[test]
fn a_manifest_that_is_not_its_digest_is_refused() {
    let made = Made::of(&[10]);
    let other = Made::of(&[11]);
    let fake = Fake::new(&made, "1");
    let wanted = Digest::of(&made.manifest);
    fake.put(&format!("manifests/{wanted}"), MANIFEST, &other.manifest);
    let header = Digest::of(&other.manifest).to_string();
    let server = Server::start(move |seen| {
        let reply = fake.answer(seen);
        if seen.path.ends_with("/1") { reply.with("Docker-Content-Digest", header.clone()) } else { reply }
    });
    let place = Place::new();
    let result = place.store.pull(&format!("{}/team/app@{wanted}", server.host()), &options(), &mut ());
    assert!(matches!(result, Err(Error::Image { .. })), "{result:?}");
    assert_eq!(refusal(place.pull(&server, &options())), (None, "content".into()));
    place.assert_nothing(&server);
}

/// A registry that wants tokens of a server beside it.
struct Guarded {
    server: Server,
    tokens: Server,
}

impl Guarded {
    /// `lives`: after so many requests a token is over.
    fn new(fake: Fake, lives: usize) -> Guarded {
        let good = Arc::new(Mutex::new((0, 0)));
        let giving = good.clone();
        let tokens = Server::start(move |seen| {
            let user = seen.header("authorization") == "Basic dXNlcjpwYTpzcw==";
            let refresh = String::from_utf8_lossy(&seen.body).contains("refresh_token=IDENT");
            if !user && !refresh {
                return Reply::Answer(401, Vec::new(), br#"{"details":"incorrect username or password"}"#.to_vec());
            }
            let mut good = giving.lock().unwrap();
            good.0 += 1;
            good.1 = 0;
            let name = if refresh { "access_token" } else { "token" };
            Reply::ok("application/json", format!(r#"{{"{name}":"T{}","expires_in":300}}"#, good.0))
        });
        let realm = format!("http://{}/token?x=1", tokens.host());
        let server = Server::start(move |seen| {
            let mut good = good.lock().unwrap();
            good.1 += 1;
            if seen.header("authorization") == format!("Bearer T{}", good.0) && good.1 <= lives {
                return fake.answer(seen);
            }
            let challenge = format!(r#"Bearer realm="{realm}",service="reg istry",scope="repository:team/app:pull""#);
            Reply::status(401).with("WWW-Authenticate", challenge)
        });
        Guarded { server, tokens }
    }
}

fn user() -> Auth {
    Auth::Basic { user: "user".into(), password: "pa:ss".into() }
}

#[test]
fn a_token_is_got_once_for_the_right_scope() {
    let made = Made::of(&[10, 20, 30, 40, 50, 60]);
    let guarded = Guarded::new(Fake::new(&made, "1"), usize::MAX);
    let mut options = options();
    options.registry.auth = user();
    Place::new().pull(&guarded.server, &options).unwrap();
    let asked = guarded.tokens.seen();
    assert_eq!(asked.len(), 1, "{asked:#?}");
    assert_eq!(asked[0].path, "/token?x=1&service=reg%20istry&scope=repository:team/app:pull&account=user");
    assert_eq!(guarded.server.seen().len(), 1 + 8);
}

#[test]
fn a_token_that_is_over_is_renewed() {
    let made = Made::of(&[10, 20, 30, 40, 50, 60]);
    let guarded = Guarded::new(Fake::new(&made, "1"), 3);
    let mut options = options();
    options.registry.auth = user();
    Place::new().pull(&guarded.server, &options).unwrap();
    let asked = guarded.tokens.seen().len();
    assert!((3..=8).contains(&asked), "{asked}");
}

#[test]
fn an_identity_token_is_exchanged_by_post() {
    let made = Made::of(&[10]);
    let guarded = Guarded::new(Fake::new(&made, "1"), usize::MAX);
    let mut options = options();
    options.registry.auth = Auth::Identity("IDENT".into());
    Place::new().pull(&guarded.server, &options).unwrap();
    let asked = guarded.tokens.seen();
    assert_eq!((asked.len(), asked[0].method.as_str(), asked[0].header("authorization")), (1, "POST", ""));
    let form = String::from_utf8_lossy(&asked[0].body).into_owned();
    assert!(form.contains("grant_type=refresh_token") && form.contains("scope=repository:team/app:pull"), "{form}");
}

#[test]
fn who_is_not_let_in_is_told_what_to_do() {
    let made = Made::of(&[10]);
    let guarded = Guarded::new(Fake::new(&made, "1"), usize::MAX);
    let place = Place::new();
    let error = place.pull(&guarded.server, &options()).unwrap_err();
    assert!(error.to_string().contains("skopeo login"), "{error}");
    let mut wrong = options();
    wrong.registry.auth = Auth::Basic { user: "user".into(), password: "wrong".into() };
    let error = place.pull(&guarded.server, &wrong).unwrap_err();
    assert!(error.to_string().contains("incorrect username or password"), "{error}");
    assert!(!error.to_string().contains("wrong\""), "{error}");
    assert_eq!(refusal(Err::<(), _>(error)), (Some(401), "UNAUTHORIZED".into()));
    // A registry that wants Basic, and files without a word about it.
    let basic = Server::start(|_| Reply::status(401).with("WWW-Authenticate", "Basic realm=\"x\""));
    let file = place.dir.join("auth.json");
    std::fs::write(&file, r#"{"auths": {"elsewhere.test": {"auth": "dTpw"}}}"#).unwrap();
    let mut files = PullOptions::default();
    files.registry.auth_file = Some(file.clone());
    let error = place.pull(&basic, &files).unwrap_err().to_string();
    assert!(error.contains(&format!("no credentials for {} in {}", basic.host(), file.display())), "{error}");
    assert_eq!(basic.seen().len(), 1);
}

#[test]
fn credentials_of_a_file_are_shown_as_basic() {
    let made = Made::of(&[10]);
    let fake = Fake::new(&made, "1");
    let server = Server::start(move |seen| match seen.header("authorization") {
        "Basic dTpw" => fake.answer(seen),
        _ => Reply::status(401).with("WWW-Authenticate", "Basic realm=\"x\""),
    });
    let place = Place::new();
    let file = place.dir.join("auth.json");
    std::fs::write(&file, format!(r#"{{"auths": {{"{}/team": {{"auth": "dTpw"}}}}}}"#, server.host())).unwrap();
    let mut files = PullOptions::default();
    files.registry.auth_file = Some(file);
    place.pull(&server, &files).unwrap();
    assert_eq!(server.seen().len(), 1 + 3);
}

#[test]
fn a_401_without_end_ends() {
    let tokens = Server::start(|_| Reply::ok("application/json", r#"{"token":"T"}"#));
    let realm = format!("http://{}/token", tokens.host());
    let server =
        Server::start(move |_| Reply::status(401).with("WWW-Authenticate", format!("Bearer realm=\"{realm}\"")));
    let mut options = options();
    options.registry.auth = user();
    assert_eq!(refusal(Place::new().pull(&server, &options)), (Some(401), "UNAUTHORIZED".into()));
    assert!(server.seen().len() <= 4 && tokens.seen().len() <= 4);
    // Each token another one.
    let number = AtomicUsize::new(0);
    let tokens = Server::start(move |_| {
        Reply::ok("application/json", format!(r#"{{"token":"T{}"}}"#, number.fetch_add(1, Ordering::Relaxed)))
    });
    let realm = format!("http://{}/token", tokens.host());
    let server =
        Server::start(move |_| Reply::status(401).with("WWW-Authenticate", format!("Bearer realm=\"{realm}\"")));
    assert_eq!(refusal(Place::new().pull(&server, &options)), (Some(401), "UNAUTHORIZED".into()));
    assert!(server.seen().len() <= 5 && tokens.seen().len() <= 5);
}

#[test]
fn token_servers_that_lie_are_errors() {
    for (answer, realm) in [
        (Reply::ok("application/json", "{}"), None),
        (Reply::ok("application/json", "no json"), None),
        (Reply::ok("application/json", "{\"token\":\"a\\r\\nX-Evil: 1\"}"), None),
        (Reply::ok("application/json", "[".repeat(100_000)), None),
        (Reply::ok("application/json", " ".repeat(2 << 20)), None),
        (Reply::status(204), None),
        (Reply::status(200), Some("http://evil.test/token")),
        (Reply::status(200), Some("file:///etc/passwd")),
        (Reply::status(200), Some("https://user:pass@evil.test/")),
        (Reply::status(200), Some("no url at all")),
    ] {
        let tokens = Server::start({
            let answer = answer.clone();
            move |_| answer.clone()
        });
        let realm = realm.map_or_else(|| format!("http://{}/token", tokens.host()), str::to_owned);
        let server = Server::start({
            let realm = realm.clone();
            move |_| Reply::status(401).with("WWW-Authenticate", format!("Bearer realm=\"{realm}\""))
        });
        let mut options = options();
        options.registry.auth = user();
        let result = Place::new().pull(&server, &options);
        assert!(matches!(&result, Err(Error::Registry { .. })), "{realm} {answer:?}: {result:?}");
    }
}

#[test]
fn credentials_do_not_follow_a_redirect_to_another_host() {
    let made = Made::of(&[5000]);
    let fake = Fake::new(&made, "1");
    let elsewhere = Server::start({
        let fake = fake.clone();
        move |seen| fake.answer(&Seen { path: seen.path.replace("/cdn/", "/v2/team/app/"), ..seen.clone() })
    });
    let cdn = format!("http://{}/cdn/", elsewhere.host());
    let server = Server::start(move |seen| match seen.header("authorization") {
        "Basic dXNlcjpwYTpzcw==" if seen.path.contains("/blobs/") => {
            Reply::redirect(seen.path.replace("/v2/team/app/", &cdn))
        }
        "Basic dXNlcjpwYTpzcw==" => fake.answer(seen),
        _ => Reply::status(401).with("WWW-Authenticate", "Basic realm=\"x\""),
    });
    let mut options = options();
    options.registry.auth = user();
    Place::new().pull(&server, &options).unwrap();
    assert_eq!(elsewhere.seen().len(), 2);
    assert!(elsewhere.seen().iter().all(|seen| seen.header("authorization").is_empty()));
}

#[test]
fn redirects_end_somewhere_and_lead_only_to_the_web() {
    let target: Arc<Mutex<String>> = Arc::default();
    let server = Server::start({
        let target = target.clone();
        move |_| Reply::redirect(target.lock().unwrap().clone())
    });
    let own = format!("http://{}/v2/", server.host());
    for to in [
        own.as_str(),
        "file:///etc/passwd",
        "ftp://x.test/",
        "/loop",
        "",
        "http://",
        "http://u:p@127.0.0.1/",
        "gopher:x",
    ] {
        *target.lock().unwrap() = to.to_owned();
        assert_eq!(refusal(Place::new().pull(&server, &options())), (None, "redirect".into()), "{to}");
    }
    assert!(server.seen().len() < 40);
}

#[test]
fn a_blob_that_breaks_off_is_gone_on_with() {
    let made = Made::of(&[3_000_000]);
    let layer = made.layers[0].clone();
    let fake = Fake::new(&made, "1");
    let tries = AtomicUsize::new(0);
    let server = Server::start({
        let layer = layer.clone();
        move |seen| match fake.answer(seen) {
            Reply::Answer(status, headers, body)
                if is_blob(seen, &layer) && tries.fetch_add(1, Ordering::Relaxed) < 4 =>
            {
                Reply::Cut(status, headers, body, 500_000)
            }
            reply => reply,
        }
    });
    Place::new().pull(&server, &options()).unwrap();
    let ranges: Vec<String> =
        server.seen().iter().filter(|seen| is_blob(seen, &layer)).map(|seen| seen.header("range").to_owned()).collect();
    assert_eq!(ranges, ["", "bytes=500000-", "bytes=1000000-", "bytes=1500000-", "bytes=2000000-"]);
}

#[test]
fn a_server_that_ignores_ranges_or_sends_others_is_understood() {
    for mode in ["ignored", "wrong range", "not satisfiable", "no content-range"] {
        let made = Made::of(&[1_000_000]);
        let layer = made.layers[0].clone();
        let fake = Fake::new(&made, "1");
        let tries = AtomicUsize::new(0);
        let server = Server::start(move |seen| {
            let whole = fake.answer(&Seen { headers: Default::default(), ..seen.clone() });
            let Reply::Answer(status, headers, body) = whole else { return whole };
            if !is_blob(seen, &layer) {
                return Reply::Answer(status, headers, body);
            }
            if tries.fetch_add(1, Ordering::Relaxed) == 0 {
                return Reply::Cut(status, headers, body, 400_000);
            }
            match (mode, seen.header("range")) {
                (_, "") | ("ignored", _) => Reply::Answer(status, headers, body),
                ("wrong range", _) => {
                    let range = format!("bytes 0-{}/{}", body.len() - 1, body.len());
                    Reply::Answer(206, vec![("Content-Range".into(), range)], body)
                }
                ("no content-range", _) => Reply::Answer(206, Vec::new(), body[400_000..].to_vec()),
                _ => Reply::status(416),
            }
        });
        let place = Place::new();
        place.pull(&server, &options()).unwrap_or_else(|error| panic!("{mode}: {error}"));
        assert_eq!(verified(&place.store), [], "{mode}");
    }
}

#[test]
fn content_that_is_not_what_was_promised_is_never_kept() {
    let made = Made::of(&[100_000]);
    let right = made.layers[0].clone();
    let mut flipped = right.clone();
    flipped[50_000] ^= 1;
    let longer = [right.clone(), vec![0; 10]].concat();
    let endless = b"HTTP/1.1 200 OK\r\nContent-Type: x\r\n\r\n".to_vec();
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let cases: Vec<(&str, Reply)> = vec![
        ("flipped", Reply::ok("x", flipped)),
        ("longer", Reply::ok("x", longer)),
        ("shorter", Reply::ok("x", &right[..99_000])),
        ("empty", Reply::ok("x", "")),
        ("endless", Reply::Endless(endless, vec![0; 65536])),
        ("endless chunks", Reply::Endless(chunked, b"5\r\nhello\r\n".repeat(1000))),
        ("chunks of nonsense", Reply::Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc".to_vec())),
        ("other", Reply::status(206)),
        ("no content", Reply::status(204)),
        ("multiple choices", Reply::status(300)),
    ];
    for (case, reply) in cases {
        let fake = Fake::new(&made, "1");
        let right = right.clone();
        let server = Server::start(move |seen| if is_blob(seen, &right) { reply.clone() } else { fake.answer(seen) });
        let place = Place::new();
        let error = place.pull(&server, &short(5000)).expect_err(case);
        assert!(matches!(error, Error::Registry { .. } | Error::Image { .. }), "{case}: {error}");
        place.assert_nothing(&server);
        assert!(!place.store.has_blob(&Digest::of(&made.layers[0])), "{case}");
    }
}

#[test]
fn a_wrong_config_is_refused() {
    let made = Made::of(&[10]);
    for config in [b"{}".to_vec(), vec![b' '; made.config.len()], vec![b' '; 5 << 20]] {
        let fake = Fake::new(&made, "1");
        fake.put(&format!("blobs/{}", Digest::of(&made.config)), "x", &config);
        let server = Server::start(move |seen| fake.answer(seen));
        let place = Place::new();
        assert!(place.pull(&server, &short(5000)).is_err());
        place.assert_nothing(&server);
    }
    // Too few diff_ids, and something that is no image.
    let empty = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#.to_vec();
    let unequal = Made::of_blobs(empty, made.layers.clone(), fake::LAYER, "");
    let artifact =
        String::from_utf8(made.manifest.clone()).unwrap().replace(fake::CONFIG, "application/vnd.oci.empty.v1+json");
    for manifest in [unequal.manifest.clone(), artifact.into_bytes()] {
        let fake = Fake::new(&unequal, "1");
        fake.add(&made, "2");
        fake.put("manifests/1", MANIFEST, &manifest);
        let server = Server::start(move |seen| fake.answer(seen));
        let place = Place::new();
        assert!(matches!(place.pull(&server, &options()), Err(Error::Image { .. })));
        place.assert_nothing(&server);
    }
}

#[test]
fn documents_beyond_the_limits_are_refused() {
    let made = Made::of(&[10]);
    let text = String::from_utf8(made.manifest.clone()).unwrap();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("five megabytes", [made.manifest.clone(), vec![b' '; 5 << 20]].concat()),
        ("deep", "[".repeat(200_000).into_bytes()),
        ("deep objects", "{\"a\":".repeat(200_000).into_bytes()),
        ("no json", b"<html>".to_vec()),
        ("empty", Vec::new()),
        ("a list", b"[]".to_vec()),
        ("schema 1", br#"{"schemaVersion":1,"name":"x","fsLayers":[]}"#.to_vec()),
        ("both", text.replacen('{', "{\"manifests\":[],", 1).into_bytes()),
        ("negative size", text.replacen("\"size\":", "\"size\":-", 1).into_bytes()),
        ("path digest", text.replacen("sha256:", "sha256:../../", 1).into_bytes()),
        ("unknown type", text.replacen(MANIFEST, "application/x-evil\\u001b[31m", 1).into_bytes()),
    ];
    for (case, manifest) in cases {
        let fake = Fake::new(&made, "2");
        fake.put("manifests/1", MANIFEST, &manifest);
        let server = Server::start(move |seen| fake.answer(seen));
        let place = Place::new();
        let error = place.pull(&server, &options()).expect_err(case);
        assert!(matches!(error, Error::Registry { .. } | Error::Image { .. }), "{case}: {error}");
        assert!(!error.to_string().contains('\x1b') && error.to_string().len() < 1000, "{case}: {error}");
        place.assert_nothing(&server);
    }
    // An index that says it is a manifest, by its header.
    let fake = Fake::new(&made, "2");
    fake.put(
        "manifests/1",
        MANIFEST,
        format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[]}}"#).as_bytes(),
    );
    let server = Server::start(move |seen| fake.answer(seen));
    assert!(matches!(Place::new().pull(&server, &options()), Err(Error::Image { .. })));
}

#[test]
fn a_store_with_a_smaller_limit_of_documents_fetches_no_larger_ones() {
    let layer = fake::tar("file", b"x");
    let config = Made::of_tars(std::slice::from_ref(&layer), "amd64").config;
    let config = [config, vec![b' '; 4000]].concat();
    let made = Made::of_blobs(config, vec![fake::gzip(&layer)], "application/vnd.oci.image.layer.v1.tar+gzip", "");
    for (limit, requests) in [(100, 1), (made.manifest.len() as u64 + 100, 1), (8000, 3)] {
        let fake = Fake::new(&made, "1");
        let server = Server::start(move |seen| fake.answer(seen));
        let mut place = Place::new();
        let mut limits = Limits::default();
        limits.document = limit;
        place.store = Store::open_with(Some(place.dir.join("limited")), limits).unwrap();
        let result = place.pull(&server, &options());
        assert_eq!(result.is_ok(), limit == 8000, "{limit}: {result:?}");
        assert_eq!(server.seen().len(), requests, "{limit}");
        if let Err(error) = result {
            assert!(error.to_string().contains(&limit.to_string()), "{limit}: {error}");
            place.assert_nothing(&server);
        }
    }
}

#[test]
fn indexes_in_indexes_end() {
    let fake = Fake::default();
    let mut inner = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[]}}"#);
    for _ in 0..10 {
        fake.put(&format!("manifests/{}", Digest::of(inner.as_bytes())), INDEX, inner.as_bytes());
        let entry = fake::descriptor(INDEX, inner.as_bytes(), "");
        inner = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{entry}]}}"#);
    }
    fake.put("manifests/1", INDEX, inner.as_bytes());
    let server = Server::start(move |seen| fake.answer(seen));
    assert!(matches!(Place::new().pull(&server, &options()), Err(Error::Image { .. })));
    assert!(server.seen().len() < 8);
}

#[test]
fn answers_that_are_no_http_are_errors() {
    let header =
        |line: &str| [b"HTTP/1.1 200 OK\r\n".to_vec(), line.as_bytes().to_vec(), b"\r\n\r\n".to_vec()].concat();
    let cases: Vec<(&str, Reply)> = vec![
        ("nothing", Reply::Raw(Vec::new())),
        ("noise", Reply::Raw(fake::noise(7, 10_000))),
        ("half a line", Reply::Raw(b"HTTP/1.1 20".to_vec())),
        (
            "endless header",
            Reply::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), b"X-A: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n".to_vec()),
        ),
        ("endless line", Reply::Endless(b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'a'; 8192])),
        ("large header", Reply::Raw(header(&format!("X: {}", "a".repeat(100_000))))),
        ("negative length", Reply::Raw(header("Content-Length: -1"))),
        ("two lengths", Reply::Raw(header("Content-Length: 1\r\nContent-Length: 2"))),
        ("huge length", Reply::Raw(header("Content-Length: 99999999999999999999999"))),
        ("endless 100", Reply::Endless(Vec::new(), b"HTTP/1.1 100 Continue\r\n\r\n".to_vec())),
    ];
    for (case, reply) in cases {
        let server = Server::start(move |_| reply.clone());
        let began = Instant::now();
        let result = Place::new().pull(&server, &short(2000));
        assert!(matches!(result, Err(Error::Registry { .. })), "{case}: {result:?}");
        assert!(began.elapsed() < Duration::from_secs(60), "{case}");
    }
}

#[test]
fn what_may_pass_is_tried_again_and_the_server_says_when() {
    for status in [429, 500, 502, 503, 504, 408] {
        let made = Made::of(&[1000]);
        let fake = Fake::new(&made, "1");
        let requests = AtomicUsize::new(0);
        let server = Server::start(move |seen| match requests.fetch_add(1, Ordering::Relaxed) % 2 {
            0 => Reply::status(status).with("Retry-After", "0"),
            _ => fake.answer(seen),
        });
        Place::new().pull(&server, &options()).unwrap();
        assert_eq!(server.seen().len(), 6, "{status}");
    }
    let server = Server::start(|_| {
        let body = br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#;
        Reply::Answer(429, vec![("Retry-After".into(), "0".into())], body.to_vec())
    });
    let mut options = options();
    options.registry.retries = 3;
    let error = Place::new().pull(&server, &options).unwrap_err();
    assert!(
        error.to_string().contains("slow down") && error.hint().is_some_and(|hint| hint.contains("log in")),
        "{error}"
    );
    assert_eq!(refusal(Err::<(), _>(error)), (Some(429), "TOOMANYREQUESTS".into()));
    assert_eq!(server.seen().len(), 4);
}

#[test]
fn a_refusal_is_final_and_has_the_registrys_words() {
    let server = Server::start(|_| fake::not_found());
    let error = Place::new().pull(&server, &options()).unwrap_err();
    assert!(error.to_string().contains("manifest team/app:1: manifest unknown"), "{error}");
    assert_eq!(refusal(Err::<(), _>(error)), (Some(404), "MANIFEST_UNKNOWN".into()));
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn silence_is_not_waited_for_without_end() {
    let made = Made::of(&[100_000]);
    let layer = made.layers[0].clone();
    for stalls in ["header", "body"] {
        let fake = Fake::new(&made, "1");
        let layer = layer.clone();
        let server = Server::start(move |seen| match fake.answer(seen) {
            Reply::Answer(status, headers, body) if stalls == "body" && is_blob(seen, &layer) => {
                Reply::Stall(status, headers, body, 1000)
            }
            Reply::Answer(..) if stalls == "header" => {
                Reply::Stall(200, vec![("Content-Length".into(), "10".into())], Vec::new(), 0)
            }
            reply => reply,
        });
        let place = Place::new();
        assert_eq!(refusal(place.pull(&server, &short(300))), (None, "timeout".into()), "{stalls}");
        place.assert_nothing(&server);
    }
}

/// Asks for an end after so many bytes.
struct Until {
    bytes: u64,
    seen: u64,
    events: Vec<Heard>,
}

/// Kind, layer, bytes done and in all.
type Heard = (&'static str, Option<(usize, usize)>, u64, Option<u64>);

impl Until {
    fn bytes(bytes: u64) -> Until {
        Until { bytes, seen: 0, events: Vec::new() }
    }
}

impl Progress for Until {
    fn step(&mut self, event: &ProgressEvent<'_>) {
        self.seen = self.seen.max(event.done);
        self.events.push((event.kind.name(), event.layer, event.done, event.total));
    }

    fn interrupted(&mut self) -> bool {
        self.seen >= self.bytes
    }
}

#[test]
fn an_interrupted_pull_leaves_nothing_half_done_and_is_gone_on_with() {
    let made = Made::of(&[4_000_000]);
    let layer = made.layers[0].clone();
    let fake = Fake::new(&made, "1");
    let stalled = AtomicUsize::new(0);
    let server = Server::start({
        let layer = layer.clone();
        move |seen| match fake.answer(seen) {
            Reply::Answer(status, headers, body)
                if is_blob(seen, &layer) && stalled.fetch_add(1, Ordering::Relaxed) == 0 =>
            {
                Reply::Stall(status, headers, body, 2_000_000)
            }
            reply => reply,
        }
    });
    let place = Place::new();
    let mut patient = options();
    patient.registry.timeout = Duration::from_secs(600);
    let began = Instant::now();
    let result = place.store.pull(&name(&server), &patient, &mut Until::bytes(1_000_000));
    assert!(matches!(result, Err(Error::Interrupted)), "{result:?}");
    assert!(began.elapsed() < Duration::from_secs(60));
    place.assert_nothing(&server);
    place.pull(&server, &options()).unwrap();
    let ranges: Vec<String> =
        server.seen().iter().filter(|seen| is_blob(seen, &layer)).map(|seen| seen.header("range").to_owned()).collect();
    assert_eq!(ranges.len(), 2);
    let from: u64 = ranges[1].trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
    assert!((1_000_000..=2_000_000).contains(&from), "{from}");
    assert_eq!(verified(&place.store), []);
}

#[test]
fn progress_tells_of_every_layer_to_its_end() {
    let made = Made::of(&[2_000_000, 10]);
    let fake = Fake::new(&made, "1");
    let server = Server::start(move |seen| fake.answer(seen));
    let mut progress = Until::bytes(u64::MAX);
    Place::new().store.pull(&name(&server), &options(), &mut progress).unwrap();
    for (layer, blob) in made.layers.iter().enumerate() {
        let size = blob.len() as u64;
        let of: Vec<_> =
            progress.events.iter().filter(|event| event.0 == "download" && event.1 == Some((layer, 2))).collect();
        assert_eq!(of.first().map(|event| (event.2, event.3)), Some((0, Some(size))));
        assert_eq!(of.last().map(|event| event.2), Some(size));
    }
}

#[test]
fn mirrors_are_asked_first_and_the_registry_last() {
    let made = Made::of(&[1000, 2000]);
    let fake = Fake::new(&made, "1");
    let origin = Server::start({
        let fake = fake.clone();
        move |seen| fake.answer(seen)
    });
    let dead = Server::start(|_| Reply::status(404));
    // Has the manifest, but not the layers, below a path of its own.
    let half = Server::start({
        let layers = made.layers.clone();
        move |seen| {
            let path = seen.path.replace("/v2/hub/cache/", "/v2/");
            let missing = layers.iter().any(|layer| is_blob(seen, layer));
            if missing { fake::not_found() } else { fake.answer(&Seen { path, ..seen.clone() }) }
        }
    });
    let mut options = options();
    let mirror = |location: String| Mirror { location, insecure: false };
    let mirrors = vec![mirror(dead.host()), mirror(format!("{}/hub/cache", half.host()))];
    options.registry.mirrors.insert(origin.host(), mirrors);
    let image = Place::new().pull(&origin, &options).unwrap();
    assert_eq!(image.tags(), [name(&origin)]);
    assert_eq!((dead.seen().len(), half.seen().len(), origin.seen().len()), (1, 4, 2));
    assert!(half.seen().iter().all(|seen| seen.path.starts_with("/v2/hub/cache/team/app/")));
}

/// What is given for the registry is the registry's, whatever a mirror asks for.
#[test]
fn mirrors_are_not_shown_the_credentials_of_the_registry() {
    let made = Made::of(&[1000]);
    for auth in [user(), Auth::Identity("IDENT".into()), Auth::Bearer("T1".into())] {
        let guarded = Guarded::new(Fake::new(&made, "1"), usize::MAX);
        // As if somebody had got the registry's token before.
        if auth == Auth::Bearer("T1".into()) {
            let mut before = options();
            before.registry.auth = user();
            Place::new().pull(&guarded.server, &before).unwrap();
        }
        let tokens = Server::start(|_| Reply::status(401));
        let realm = format!("http://{}/token", tokens.host());
        let bearer =
            Server::start(move |_| Reply::status(401).with("WWW-Authenticate", format!("Bearer realm=\"{realm}\"")));
        let basic = Server::start(|_| Reply::status(401).with("WWW-Authenticate", "Basic realm=\"x\""));
        let known = Server::start(|seen| match seen.header("authorization") {
            "Basic dTpw" => Reply::status(404),
            _ => Reply::status(401).with("WWW-Authenticate", "Basic realm=\"x\""),
        });
        let place = Place::new();
        let file = place.dir.join("auth.json");
        std::fs::write(&file, format!(r#"{{"auths": {{"{}": {{"auth": "dTpw"}}}}}}"#, known.host())).unwrap();
        let mut options = options();
        options.registry.auth = auth.clone();
        options.registry.auth_file = Some(file);
        let mirror = |(server, insecure): (&Server, bool)| Mirror { location: server.host(), insecure };
        let mirrors = [(&basic, false), (&basic, true), (&bearer, false), (&bearer, true), (&known, false)];
        options.registry.mirrors.insert(guarded.server.host(), mirrors.map(mirror).into());
        place.pull(&guarded.server, &options).unwrap();
        for server in [&basic, &bearer, &tokens] {
            let seen = server.seen();
            assert_eq!(seen.len(), 2, "{auth:?}: {seen:#?}");
            for one in seen {
                let text = format!("{} {}", one.path, String::from_utf8_lossy(&one.body));
                assert_eq!(one.header("authorization"), "", "{auth:?}");
                assert!(!["user", "IDENT", "T1"].iter().any(|secret| text.contains(secret)), "{auth:?}: {text}");
            }
        }
        // Its own ones, of the file.
        let shown: Vec<String> = known.seen().iter().map(|seen| seen.header("authorization").to_owned()).collect();
        assert_eq!(shown, ["", "Basic dTpw"], "{auth:?}");
    }
}

#[test]
fn who_wants_to_be_nobody_is_nobody_for_mirrors_too() {
    let basic = Server::start(|_| Reply::status(401).with("WWW-Authenticate", "Basic realm=\"x\""));
    let origin = Server::start(|_| fake::not_found());
    let place = Place::new();
    let file = place.dir.join("auth.json");
    std::fs::write(&file, format!(r#"{{"auths": {{"{}": {{"auth": "dTpw"}}}}}}"#, basic.host())).unwrap();
    let mut options = options();
    options.registry.auth_file = Some(file);
    options.registry.mirrors.insert(origin.host(), vec![Mirror { location: basic.host(), insecure: false }]);
    place.pull(&origin, &options).unwrap_err();
    assert!(basic.seen().iter().all(|seen| seen.header("authorization").is_empty()));
}

#[test]
fn what_mirrors_said_is_told_when_nobody_has_it() {
    let gone = Server::start(|_| Reply::Answer(404, Vec::new(), b"not on this mirror".to_vec()));
    let shut = Server::start(|_| Reply::status(401).with("WWW-Authenticate", "Basic realm=\"x\""));
    let origin = Server::start(|_| fake::not_found());
    let mut options = options();
    let mirror = |server: &Server| Mirror { location: format!("{}/hub", server.host()), insecure: false };
    options.registry.mirrors.insert(origin.host(), vec![mirror(&gone), mirror(&shut)]);
    let error = Place::new().pull(&origin, &options).unwrap_err();
    let hint = error.hint().unwrap_or_default().to_owned();
    for part in ["check repository", &gone.host(), "not on this mirror", &shut.host(), "HTTP 401", "skopeo login"] {
        assert!(hint.contains(part), "{part}: {hint}");
    }
    // The credentials of a mirror are not given with the call.
    assert!(!hint.contains("give auth"), "{hint}");
    assert_eq!(refusal(Err::<(), _>(error)).0, Some(404));
}

#[test]
fn foreign_layers_are_fetched_only_on_request_and_anonymously() {
    let tar = fake::tar("file", b"foreign");
    let layer = fake::gzip(&tar);
    let elsewhere = Server::start({
        let layer = layer.clone();
        move |_| Reply::ok("x", layer.clone())
    });
    let urls = format!(r#","urls":["http://{}/layer"]"#, elsewhere.host());
    let foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    let config = Made::of_tars(std::slice::from_ref(&tar), "amd64").config;
    let made = Made::of_blobs(config, vec![layer.clone()], foreign, &urls);
    let fake = Fake::new(&made, "1");
    fake.things.lock().unwrap().remove(&format!("blobs/{}", Digest::of(&layer)));
    let server = Server::start(move |seen| match seen.header("authorization") {
        "Basic dXNlcjpwYTpzcw==" => fake.answer(seen),
        _ => Reply::status(401).with("WWW-Authenticate", "Basic realm=\"x\""),
    });
    let mut options = options();
    options.registry.auth = user();
    // Plain HTTP, like everything in these tests.
    options.registry.tls_verify = false;
    let place = Place::new();
    let error = place.pull(&server, &options).unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains("foreign_layers")), "{error}");
    assert_eq!(elsewhere.seen().len(), 0);
    options.foreign_layers = true;
    place.pull(&server, &options).unwrap();
    assert_eq!(elsewhere.seen().len(), 1);
    assert_eq!(elsewhere.seen()[0].header("authorization"), "");
}

#[test]
fn who_is_not_there_is_named_with_the_reason() {
    let place = Place::new();
    let began = Instant::now();
    let result = place.store.pull("registry.invalid/a:1", &options(), &mut ());
    assert!(matches!(&result, Err(Error::Registry { code, .. }) if code == "dns"), "{result:?}");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let result = place.store.pull(&format!("127.0.0.1:{port}/a:1"), &options(), &mut ());
    assert!(matches!(&result, Err(Error::Registry { code, .. }) if code == "connect"), "{result:?}");
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[test]
fn options_have_rules() {
    let mut wrong = options();
    wrong.registry.parallel = 0;
    let error = Place::new().store.pull("127.0.0.1:1/a", &wrong, &mut ()).unwrap_err();
    assert_eq!(error.field(), Some("parallel"));
    for bad in [
        "https://m:5000",
        "http://m/hub",
        "user:secret@m:5000",
        "https://user:secret@m",
        "",
        "/hub",
        "m:5000/",
        "m:x",
        "m:0",
        "m:5000/a//b",
        "m/../a",
        "m/a?x=1",
        "m/a:1",
        "m?x",
        "m#x",
        "m /a",
        "m\r\nX: 1/a",
    ] {
        let mut wrong = options();
        let location = bad.to_owned();
        wrong.registry.mirrors.insert("127.0.0.1:1".into(), vec![Mirror { location, insecure: false }]);
        let error = Place::new().store.pull("127.0.0.1:1/a", &wrong, &mut ()).unwrap_err();
        assert_eq!(error.field(), Some("mirrors"), "{bad}: {error}");
        assert!(!error.to_string().contains("secret"), "{error}");
        assert!(bad.contains('@') || error.to_string().contains("HOST[:PORT][/PATH]"), "{error}");
    }
    let mut wrong = options();
    wrong.registry.mirrors.insert("https://docker.io".into(), Vec::new());
    let error = Place::new().store.pull("127.0.0.1:1/a", &wrong, &mut ()).unwrap_err();
    assert_eq!(error.field(), Some("mirrors"), "{error}");
    let mut nowhere = options();
    nowhere.registry.cert_dir = Some("/nonexistent/certificates".into());
    let error = Place::new().store.pull("127.0.0.1:1/a", &nowhere, &mut ()).unwrap_err();
    assert_eq!(error.step().map(|step| step.name()), Some("ReadCertificates"), "{error}");
    let mut socks = options();
    socks.registry.proxy = Some("socks5://proxy.invalid:1".into());
    let error = Place::new().store.pull("registry.invalid/a", &socks, &mut ()).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
}

#[test]
fn a_proxy_is_asked_to_connect() {
    let proxy = Server::start(|_| Reply::status(403));
    let mut options = short(5000);
    options.registry.proxy = Some(format!("http://user:secret@{}", proxy.host()));
    let result = Place::new().store.pull("registry.invalid/a:1", &options, &mut ());
    assert!(matches!(&result, Err(Error::Registry { code, .. }) if code == "proxy"), "{result:?}");
    let seen = proxy.seen();
    assert_eq!((seen[0].method.as_str(), seen[0].path.as_str()), ("CONNECT", "registry.invalid:443"));
    assert_eq!(seen[0].header("proxy-authorization"), "Basic dXNlcjpzZWNyZXQ=");
}

/// What a registry was given, and an upload under way.
#[derive(Default)]
struct Given {
    blobs: Vec<Vec<u8>>,
    upload: Vec<u8>,
    manifests: Vec<(String, Vec<u8>)>,
}

/// A registry that takes things. `twist` may answer in its place.
fn taker(twist: impl Fn(&Seen, &mut Given) -> Option<Reply> + Send + Sync + 'static) -> (Server, Arc<Mutex<Given>>) {
    let given: Arc<Mutex<Given>> = Arc::default();
    let shared = given.clone();
    let server = Server::start(move |seen| {
        let mut given = shared.lock().unwrap();
        if let Some(reply) = twist(seen, &mut given) {
            return reply;
        }
        let path = seen.path.strip_prefix("/v2/team/app/").unwrap_or_default();
        let range = |given: &Given| format!("0-{}", given.upload.len().saturating_sub(1));
        match (seen.method.as_str(), path) {
            ("HEAD", _) => match given.blobs.iter().any(|blob| is_blob(seen, blob)) {
                true => Reply::status(200),
                false => Reply::status(404),
            },
            ("POST", _) => {
                given.upload.clear();
                Reply::status(202).with("Location", "/v2/team/app/up?state=a:b")
            }
            ("GET", path) if path.starts_with("up") => Reply::status(204).with("Range", range(&given)),
            ("PATCH", _) => {
                let from: usize = seen.header("content-range").split('-').next().unwrap().parse().unwrap();
                if from != given.upload.len() {
                    return Reply::status(416);
                }
                given.upload.extend_from_slice(&seen.body);
                Reply::status(202).with("Location", "/v2/team/app/up?state=c").with("Range", range(&given))
            }
            ("PUT", path) if path.starts_with("up") => {
                let mut blob = std::mem::take(&mut given.upload);
                blob.extend_from_slice(&seen.body);
                match path.ends_with(&format!("&digest={}", Digest::of(&blob))) {
                    true => given.blobs.push(blob),
                    false => {
                        return Reply::Answer(400, Vec::new(), br#"{"errors":[{"code":"DIGEST_INVALID"}]}"#.to_vec());
                    }
                }
                Reply::status(201)
            }
            ("PUT", path) => {
                given.manifests.push((path.to_owned(), seen.body.clone()));
                Reply::status(201).with("Docker-Content-Digest", Digest::of(&seen.body).to_string())
            }
            _ => Reply::status(405),
        }
    });
    (server, given)
}

/// An image of the fake registry in a store, and itself.
fn pulled(sizes: &[usize]) -> (Place, Image, Made) {
    let made = Made::of(sizes);
    let fake = Fake::new(&made, "1");
    let server = Server::start(move |seen| fake.answer(seen));
    let place = Place::new();
    let image = place.pull(&server, &options()).unwrap();
    (place, image, made)
}

fn push_options() -> PushOptions {
    let mut options = PushOptions::default();
    options.registry = self::options().registry;
    options.registry.parallel = 1;
    options
}

#[test]
fn a_push_gives_what_is_missing_and_then_the_manifest() {
    let (place, image, made) = pulled(&[100_000, 50, 50_000]);
    let (server, given) = taker(|_, _| None);
    given.lock().unwrap().blobs.push(made.layers[1].clone());
    let mut options = push_options();
    options.extra_tags = vec!["2".into(), "latest".into()];
    let mut progress = Until::bytes(u64::MAX);
    place.store.push(&image, &name(&server), &options, &mut progress).unwrap();
    let given = given.lock().unwrap();
    assert_eq!(given.blobs.len(), 4);
    for blob in [&made.config].into_iter().chain(&made.layers) {
        assert!(given.blobs.contains(blob));
    }
    let tags: Vec<&str> = given.manifests.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(tags, ["manifests/1", "manifests/2", "manifests/latest"]);
    assert!(given.manifests.iter().all(|(_, bytes)| *bytes == made.manifest));
    let last = server.seen().last().cloned().unwrap();
    assert_eq!(last.header("content-type"), MANIFEST);
    assert!(progress.events.iter().any(
        |event| *event == ("upload", Some((0, 3)), made.layers[0].len() as u64, Some(made.layers[0].len() as u64))
    ));
    drop(given);
    // Everything is there.
    let before = server.count("POST", "");
    place.store.push(&image, &name(&server), &push_options(), &mut ()).unwrap();
    assert_eq!(server.count("POST", ""), before);
}

#[test]
fn a_push_in_pieces_goes_on_where_the_connection_broke() {
    let (place, image, made) = pulled(&[1_000_000]);
    let layer = made.layers[0].clone();
    let patches = AtomicUsize::new(0);
    let (server, given) = taker(move |seen, given| {
        if seen.method != "PATCH" {
            return None;
        }
        match patches.fetch_add(1, Ordering::Relaxed) {
            // Arrives, but nobody hears of it.
            2 => {
                given.upload.extend_from_slice(&seen.body);
                Some(Reply::Raw(Vec::new()))
            }
            // Half of it arrives.
            4 => {
                given.upload.extend_from_slice(&seen.body[..1000]);
                Some(Reply::Raw(b"HTTP/1.1 200".to_vec()))
            }
            5 => Some(Reply::status(503).with("Retry-After", "0")),
            _ => None,
        }
    });
    let mut options = push_options();
    options.chunk_size = Some(100_000);
    place.store.push(&image, &name(&server), &options, &mut ()).unwrap();
    assert!(given.lock().unwrap().blobs.contains(&layer));
    let sent: usize = server.seen().iter().filter(|seen| seen.method == "PATCH").map(|seen| seen.body.len()).sum();
    assert!(sent < layer.len() + 250_000, "{sent} for {}", layer.len());
}

#[test]
fn an_upload_that_the_registry_forgets_begins_anew() {
    let (place, image, made) = pulled(&[300_000]);
    let puts = AtomicUsize::new(0);
    let (server, given) = taker(move |seen, _| match seen.method.as_str() {
        "PUT" if seen.path.contains("/up") && puts.fetch_add(1, Ordering::Relaxed) == 0 => Some(Reply::Raw(Vec::new())),
        "GET" => Some(Reply::status(404)),
        _ => None,
    });
    place.store.push(&image, &name(&server), &push_options(), &mut ()).unwrap();
    assert!(given.lock().unwrap().blobs.contains(&made.layers[0]));
}

#[test]
fn blobs_are_mounted_from_a_repository_that_has_them() {
    let (place, image, made) = pulled(&[1000, 2000]);
    let (server, given) = taker(|seen, given| {
        let mount =
            seen.method == "POST" && seen.path.contains("?mount=sha256:") && seen.path.ends_with("&from=team/base");
        (mount && given.manifests.is_empty()).then(|| Reply::status(201))
    });
    place.store.tag(&image, &format!("{}/team/base:1", server.host())).unwrap();
    let image = place.store.image(image.tags()[0].as_str()).unwrap();
    let mut options = push_options();
    options.mount_from = Some("team/base".into());
    place.store.push(&image, &name(&server), &options, &mut ()).unwrap();
    assert_eq!(given.lock().unwrap().blobs.len(), 0);
    assert_eq!(given.lock().unwrap().manifests[0].1, made.manifest);
    assert_eq!(server.count("POST", ""), 3);
    options.mount_from = Some("../evil".into());
    let error = place.store.push(&image, &name(&server), &options, &mut ()).unwrap_err();
    assert_eq!(error.field(), Some("mount_from"));
}

#[test]
fn a_push_that_is_refused_says_why() {
    let (place, image, _) = pulled(&[1000]);
    let denied = br#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
    let (server, _) =
        taker(move |seen, _| (seen.method == "POST").then(|| Reply::Answer(403, Vec::new(), denied.to_vec())));
    let error = place.store.push(&image, &name(&server), &push_options(), &mut ()).unwrap_err();
    assert!(error.to_string().contains("requested access"), "{error}");
    assert_eq!(refusal(Err::<(), _>(error)), (Some(403), "DENIED".into()));
    // A registry that makes something else of the manifest, and one that never believes what was sent.
    let other = Digest::of(b"other").to_string();
    let (server, _) = taker(move |seen, _| {
        let manifest = seen.method == "PUT" && seen.path.contains("/manifests/");
        manifest.then(|| Reply::status(201).with("Docker-Content-Digest", other.clone()))
    });
    assert_eq!(refusal(place.store.push(&image, &name(&server), &push_options(), &mut ())), (None, "content".into()));
    let (server, _) = taker(|seen, given| {
        given.upload.clear();
        (seen.method == "PATCH").then(|| Reply::status(202).with("Location", "/v2/team/app/up").with("Range", "0-0"))
    });
    let mut options = push_options();
    options.chunk_size = Some(1);
    options.registry.retries = 1;
    let large = pulled(&[200_000]);
    let result = large.0.store.push(&large.1, &name(&server), &options, &mut ());
    assert!(matches!(result, Err(Error::Registry { .. })), "{result:?}");
    let wrong = format!("{}/team/app@{}", server.host(), Digest::of(b"x"));
    assert_eq!(place.store.push(&image, &wrong, &push_options(), &mut ()).unwrap_err().field(), Some("reference"));
}

#[test]
fn a_push_asks_for_a_token_to_push() {
    let (place, image, _) = pulled(&[1000]);
    let tokens = Server::start(|_| Reply::ok("application/json", r#"{"token":"T"}"#));
    let realm = format!("http://{}/token", tokens.host());
    let (server, _) = taker(move |seen, _| {
        let challenge = format!("Bearer realm=\"{realm}\",service=\"s\"");
        (seen.header("authorization") != "Bearer T").then(|| Reply::status(401).with("WWW-Authenticate", challenge))
    });
    place.store.push(&image, &name(&server), &push_options(), &mut ()).unwrap();
    assert_eq!(tokens.seen()[0].path, "/token?service=s&scope=repository:team/app:pull,push");
}

/// In a child of this program, does what `of` wants with a store in `ZIND_TEST_STORE`; elsewhere nothing.
fn as_child(of: impl FnOnce(&str, PathBuf)) -> bool {
    let variable = |name: &str| std::env::var(name).ok();
    let (Some(name), Some(place)) = (variable("ZIND_TEST_PULL"), variable("ZIND_TEST_STORE")) else { return false };
    of(&name, place.into());
    true
}

/// This program once more, to pull a name into a store.
fn child(test: &str, name: &str, place: &Place) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]);
    command.env("ZIND_TEST_PULL", name).env("ZIND_TEST_STORE", place.dir.join("store"));
    command
}

/// Pulls between two marks, and says what was wrong.
fn pull_as_child(name: &str, place: PathBuf) {
    let store = Store::open(Some(place)).unwrap();
    let mut options = options();
    // Each thread does the same each time.
    options.registry.parallel = 1;
    points::say(points::BEGIN);
    let result = store.pull(name, &options, &mut ());
    points::say(points::END);
    if let Err(error) = result {
        println!("refused: {error}");
    }
}

/// After a pull that came to an end of any kind: the store is valid, the pull can be done, and everything can be removed.
fn assert_pulls(place: &Place, server: &Server, context: &str) {
    let store = Store::open(Some(place.dir.join("store"))).unwrap();
    assert_eq!(verified(&store), [], "after {context}");
    let image = place.pull(server, &options()).unwrap_or_else(|error| panic!("after {context}: {error}"));
    assert_eq!(image.layers().unwrap().len(), 3);
    assert_eq!(verified(&store), [], "at the end of {context}");
    store.remove(&name(server)).unwrap();
    store.gc().unwrap();
    let usage = store.usage().unwrap();
    assert_eq!((usage.blobs, usage.snapshots, usage.partial), (0, 0, 0), "{context}");
}

/// A registry with an image of layers of several files.
fn registry_of_files() -> Server {
    let layer = |seed: u64, files: usize| {
        let one = |file| fake::tar(&format!("d{seed}-{file}"), &fake::noise(seed * 100 + file as u64, 9000));
        let tars: Vec<Vec<u8>> = (0..files).map(one).collect();
        let ends = tars.len() - 1;
        tars.into_iter()
            .enumerate()
            .flat_map(|(at, tar)| tar[..tar.len() - if at < ends { 1024 } else { 0 }].to_vec())
            .collect()
    };
    let made = Made::of_tars(&[layer(1, 20), layer(2, 1), layer(3, 60)], "amd64");
    let fake = Fake::new(&made, "1");
    Server::start(move |seen| fake.answer(seen))
}

#[test]
fn a_pull_that_is_killed_leaves_a_good_store() {
    const SELF: &str = "a_pull_that_is_killed_leaves_a_good_store";
    if as_child(pull_as_child) {
        return;
    }
    let server = registry_of_files();
    let place = Place::fast();
    assert_pulls(&place, &server, "nothing");
    let child = child(SELF, &name(&server), &place);
    let points = points::of(&child, 100, &place.dir);
    assert_pulls(&place, &server, "a whole pull");
    for point in points {
        point.kill(&child);
        assert_pulls(&place, &server, &format!("{point:?}"));
    }
}

#[test]
fn a_disk_that_fails_in_the_middle_leaves_a_good_store() {
    const SELF: &str = "a_disk_that_fails_in_the_middle_leaves_a_good_store";
    if as_child(pull_as_child) {
        return;
    }
    let server = registry_of_files();
    let place = Place::fast();
    assert_pulls(&place, &server, "nothing");
    let child = child(SELF, &name(&server), &place);
    let points = points::of(&child, 100, &place.dir);
    assert_pulls(&place, &server, "a whole pull");
    let mut refused = 0;
    for (number, point) in points.iter().enumerate() {
        let errno = ["ENOSPC", "EIO"][number % 2];
        let said = point.fail(&child, errno);
        refused += usize::from(said.contains("refused: "));
        assert_pulls(&place, &server, &format!("{point:?} {errno}: {said}"));
    }
    // Some calls are tried once more, and some do not matter.
    assert!((20..100).contains(&refused), "{refused}");
}

/// The promises hold for an ordinary user, too.
#[test]
fn all_of_it_as_an_ordinary_user() {
    if !rustix::process::geteuid().is_root() || std::env::var_os("ZIND_TEST_INNER").is_some() {
        return;
    }
    let dir = std::env::temp_dir().join(format!("zind-test-registry-user-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("tmp")).unwrap();
    let binary = dir.join("registry");
    std::fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    for (path, mode) in [(&dir, 0o755), (&binary, 0o755), (&dir.join("tmp"), 0o1777)] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
    let output = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"])
        .arg(&binary)
        .arg("--test-threads=2")
        .env("ZIND_TEST_INNER", "1")
        .envs([("TMPDIR", dir.join("tmp")), ("HOME", dir.join("tmp")), ("XDG_RUNTIME_DIR", dir.join("tmp"))])
        .current_dir("/")
        .output()
        .unwrap();
    let all = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let left: Vec<_> = std::fs::read_dir(dir.join("tmp")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(output.status.success(), "{all}");
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with("zind")), "{left:?}");
}
