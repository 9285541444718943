//! `kill -9` of the proxy while a hook runs: the hooks run again, and are told the same.

use std::fs;

use crate::site;
use crate::trees::Shape;
use crate::world::World;

/// Writes what it was told; the second hook of a delivery goes on once `go` is there.
const HOOKS: &str = r#"
[hooks.first]
command = ["/bin/sh", "-c", "echo first $WHIT_DELIVERY $WHIT_RELEASE $WHIT_PREVIOUS >> OUT/told"]
always = true
[hooks.second]
command = ["/bin/sh", "-c", "cat > OUT/body.$$; echo second $WHIT_DELIVERY $WHIT_RELEASE $WHIT_PREVIOUS >> OUT/told; while [ ! -e OUT/go ]; do sleep 0.05; done; echo done $WHIT_DELIVERY >> OUT/told"]
always = true
"#;

/// Returns the lines that hooks wrote.
fn told(world: &World) -> Vec<String> {
    let told = fs::read_to_string(world.path("told")).unwrap_or_default();
    told.lines().map(str::to_owned).collect()
}

/// Returns the paths that changed, as each run of the second hook was told.
fn changed(world: &World) -> Vec<serde_json::Value> {
    let entries = fs::read_dir(&world.folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let bodies = entries
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("body.")));
    let body =
        |path| serde_json::from_slice::<serde_json::Value>(&fs::read(path).expect("a body")).expect("JSON");
    bodies.map(|path| body(path)["data"]["changed"].clone()).collect()
}

#[test]
fn a_proxy_killed_during_a_hook_runs_the_hooks_again_with_the_same_delivery_and_previous_release() {
    // A directory keeps the copy before; a bucket that keeps one release has nothing of it any more.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path().join("s3");
    fs::create_dir(&root).expect("a folder");
    let server = crate::servers::s3(&root);
    for destination in ["d", "s"] {
        let mut world = World::new(Shape::SMALL, 1);
        let out = world.folder.display().to_string();
        world.configure_more(&HOOKS.replace("OUT", &out));
        world.configure_more(&site::definition(&server, "s", 1));
        let mut served = world.serve(None);
        fs::write(world.path("go"), "").expect("written");
        let first = site::write(world.path("site-1"), 1);
        let second = site::write(world.path("site-2"), 2);
        let pushed = |tree| world.begin_push_to(tree, destination);
        assert!(pushed(&first).done(crate::world::PATIENCE).is_good());
        let [one, two, three] = &told(&world)[..] else { panic!("{:?}", told(&world)) };
        assert!(one.starts_with("first ") && two.starts_with("second ") && three.starts_with("done "));
        fs::remove_file(world.path("go")).expect("removed");
        for path in fs::read_dir(&world.folder).expect("a folder") {
            let path = path.expect("an entry").path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("body.")) {
                fs::remove_file(path).expect("removed");
            }
        }
        let mut push = pushed(&second);
        site::wait("no hook", || told(&world).len() == 5);
        served.kill();
        push.kill();
        let marks = (site::marks(&server.root), site::marks(&world.path("dest")));
        served = world.serve(None);
        site::wait("the hooks do not run again", || told(&world).len() == 7);
        // The first run of the second hook outlives the proxy: both end now.
        fs::write(world.path("go"), "").expect("written");
        world.settle();
        site::wait("a hook never ends", || told(&world).len() == 9);
        let told = told(&world);
        assert_eq!((&told[3], &told[4]), (&told[5], &told[6]), "{told:?}");
        let releases = world.releases();
        let words: Vec<&str> = told[5].split(' ').collect();
        assert_eq!(words[2..], [&releases[1], &releases[0]], "{told:?}");
        let changed = changed(&world);
        assert!(changed.len() == 2 && changed[0] == changed[1], "{changed:?}");
        assert!(!changed[0].as_array().expect("paths").contains(&"images/1.png".into()), "{changed:?}");
        // The copy was there: nothing of it is made again.
        assert_eq!(marks, (site::marks(&server.root), site::marks(&world.path("dest"))));
        served.kill();
    }
}
