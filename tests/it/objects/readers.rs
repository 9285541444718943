//! What was written, read by another program: `rclone` knows nothing of whit.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::servers::nginx;
use super::{assert_same_files, deliver, destination, files, site};
use crate::trees::{noise, write};
use crate::world::{World, web, within};

/// Returns the output of a program; none, and says so, where it is not installed.
pub fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    // Whoever runs the test may have settings for another service.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
        command.env_remove(name);
    }
    let found = command.args(arguments).output();
    let Ok(output) = found else {
        println!("skipped: {program} is not installed");
        return None;
    };
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Copies what a remote has into a new folder by `rclone`, and returns it; none where that is not installed.
pub fn copied_by_rclone(remote: &str, to: &Path) -> Option<BTreeMap<String, Vec<u8>>> {
    fs::create_dir_all(to).expect("a folder");
    let shown = to.display().to_string();
    // Without a configuration of its user's.
    output("rclone", &["--config", "", "copy", "--retries", "1", remote, &shown])?;
    Some(files(to))
}

#[tokio::test(flavor = "multi_thread")]
async fn rclone_reads_from_nginx_what_was_delivered_there() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(server) = nginx(folder.path()) else { return };
    let world = World::start_with(|options| {
        options.destinations.insert(web(), destination(&server, ""));
    });
    within(async {
        let tree = world.path("tree");
        site(&tree);
        for (number, name) in ["a b", "ü/ö", "plus+"].into_iter().enumerate() {
            write(&tree, name, name);
            write(&tree, &format!("app.{number}.css"), noise(10, 20_000));
            deliver(&world).await;
            fs::remove_file(tree.join("app.0.css")).unwrap_or_default();
        }
        deliver(&world).await;
        let (url, _) = server.keys.split_once("{app}").expect("an address");
        let url = url.rsplit_once('"').expect("in quotes").1;
        let copy = copied_by_rclone(&format!(":http,url='{url}':web"), &folder.path().join("copy"));
        if let Some(copy) = copy {
            assert_same_files(&copy, &files(&tree));
        }
    })
    .await;
}
