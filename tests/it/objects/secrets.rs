//! Secrets of destinations and actions show nowhere, whatever fails and whoever logs.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ground::pattern::Pattern;
use protocol::wire::{DeliveriesWanted, Operation};
use whit::agent::push::PushOptions;
use whit::config::Config;

use super::faulty::{Do, Faulty};
use super::servers::{Trouble, s3};
use crate::trees::{some_tree, walk_files};
use crate::world::{World, ask_as, push_as, push_options, within};

/// A part of each secret.
const MARKER: &str = "x7SeCrEtMaRkEr";
/// Set for the run of the test whose output is searched.
const CHILD: &str = "WHIT_TEST_TRACED";

/// Runs this test once more by itself, with all that any crate logs, and searches what it printed.
#[test]
fn nothing_that_fails_is_logged_reported_or_written_down_with_a_secret() {
    if std::env::var_os(CHILD).is_some() {
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(std::io::stdout).init();
        let runtime = tokio::runtime::Runtime::new().expect("threads");
        return runtime.block_on(fail_everywhere());
    }
    let name = "objects::secrets::nothing_that_fails_is_logged_reported_or_written_down_with_a_secret";
    let program = std::env::current_exe().expect("this program");
    let mut again = Command::new(program);
    again.args([name, "--exact", "--nocapture"]).env(CHILD, "1").env("MARKED", format!("{MARKER}-env"));
    let output = again.output().expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("TRACE") && said.contains("DEBUG"), "everything is logged");
    for failure in ["the server answered 401", "the service answered 403", "ended with status 3", "you sent"]
    {
        assert!(said.contains(failure), "it fails as planned: {failure}");
    }
    let encoded = STANDARD.encode(format!("me:{MARKER}-password"));
    for secret in [MARKER, encoded.as_str()] {
        let leak = said.lines().find(|line| line.contains(secret));
        assert_eq!(leak, None, "a secret is shown");
    }
}

/// Delivers to places that all refuse, and prints whatever can be known of it.
async fn fail_everywhere() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("id"), "not secret").expect("written");
    for name in ["token", "password", "key"] {
        fs::write(folder.path().join(name), format!("{MARKER}-{name}")).expect("written");
    }
    let key = STANDARD.encode(format!("{MARKER}-webhook"));
    fs::write(folder.path().join("webhook"), format!("whsec_{key}")).expect("written");
    let http = Faulty::start(|_| Do::Repeat("401 Unauthorized"));
    let below = folder.path().join("s3");
    fs::create_dir(&below).expect("a folder");
    let bucket = s3(&below);
    bucket.trouble(|_, _| Some(Trouble::Answer(403, &[], "<Code>InvalidAccessKeyId</Code>")));
    let (at, server) = (folder.path().display(), format!("http://127.0.0.1:{}", http.port));
    let text = format!(
        "[destinations.bearer]\nkind = 'http'\nurl = '{server}/{{app}}'\ntoken = {{ file = '{at}/token' }}\n\
         [destinations.basic]\nkind = 'http'\nurl = '{server}/{{app}}'\nuser = 'me'\npassword = {{ file = '{at}/password' }}\n\
         [destinations.variable]\nkind = 'http'\nurl = '{server}/it'\nbundle = 'zip'\ntoken = {{ env = 'MARKED' }}\n\
         [destinations.bucket]\nkind = 's3'\nbucket = 'site'\nendpoint = '{}'\n\
         access_key = {{ file = '{at}/id' }}\nsecret_key = {{ file = '{at}/key' }}\n\
         [destinations.command]\nkind = 'exec'\ncommand = ['/bin/sh', '-c', 'cat >/dev/null; exit 3']\n\
         env = {{ TOKEN = '{MARKER}-exec' }}\npass_env = ['MARKED']\n\
         [webhooks.chat]\nurl = '{server}/{MARKER}-url'\nsecret_files = ['{at}/webhook']\nalways = true\non = ['failed', 'given_up']\n\
         [hooks.fails]\ncommand = ['/bin/false']\nenv = {{ TOKEN = '{MARKER}-hook' }}\nalways = true\non = ['failed']\n",
        bucket.address
    );
    let config = Config::parse(text.as_bytes(), "whit.toml".as_ref()).expect("a configuration");
    let mut seen = format!("{:?} {:?}", config.destinations(), config.actions());
    let mut world = World::start_with(|options| {
        (options.destinations, options.actions) = (config.destinations(), config.actions());
    });
    some_tree(&world.path("tree"), 1);
    let names: Vec<_> = config.destinations().into_keys().collect();
    let access = world.access_with(|grant| grant.then = vec![Pattern::any()]);
    within(async {
        for name in &names {
            let options =
                PushOptions { destinations: vec![name.clone()], ..push_options("web", &world.path("tree")) };
            let receipt = push_as(&access, &options).await.expect("the push itself succeeds");
            write!(seen, "\n{receipt:?}\n{}", serde_json::to_string(&receipt).expect("JSON")).expect("text");
        }
        let wanted = DeliveriesWanted { app: None, destination: None, watch: false };
        let questions =
            [Operation::Deliveries(wanted), Operation::Destinations, Operation::CheckDestinations(None)];
        for question in questions {
            write!(seen, "\n{:?}", ask_as(&access, &question).await).expect("text");
        }
        world.stop().await;
    })
    .await;
    for path in walk_files(&world.path("data")) {
        // A pack holds what was pushed.
        if path.extension().is_none_or(|end| end != "pack" && end != "part") {
            let bytes = fs::read(&path).expect("read");
            writeln!(seen, "\n{}: {}", path.display(), String::from_utf8_lossy(&bytes)).expect("text");
        }
    }
    println!("{seen}");
}
