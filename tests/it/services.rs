//! Services under systemd: the units that `whit systemd` prints, and what a service tells its manager.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::program::{Home, finish};
use crate::world::patience;

/// Tenths of systemd's points for what a service may do: 0 is nothing, 100 all …
const EXPOSURE_MAX: u32 = 20;
/// … and for one that runs as root.
const EXPOSURE_OF_ROOT_MAX: u32 = 26;

/// Checks a unit by systemd's own judgement, where that is installed.
fn judge(home: &Home, name: &str, unit: &str, exposure: u32) {
    let path = home.path(name);
    fs::write(&path, unit).expect("written");
    let exposure = format!("--threshold={exposure}");
    for arguments in [&["verify"][..], &["security", "--offline=true", &exposure]] {
        let ran = Command::new("systemd-analyze").args(arguments).arg(&path).output();
        let Ok(ran) = ran else {
            println!("systemd-analyze is not there: {name} was not judged");
            return;
        };
        let told = String::from_utf8_lossy(&ran.stderr).into_owned();
        let out = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert!(ran.status.success(), "{arguments:?} of {name}: {told}{out}\n{unit}");
        // It warns of what it does not know.
        assert!(arguments[0] != "verify" || !told.contains(name), "{told}");
    }
}

#[test]
fn units_are_sound_and_leave_little_exposed() {
    let home = Home::new();
    let target = |more: &[&str]| {
        let start = ["systemd", "--target", "web@stable", "/srv/my web", "--proxy", "whit://h:9448#00"];
        home.run(&[&start[..], more].concat()).good()
    };
    let hooks = ["--on-release", "systemctl restart \"$UNIT\"", "--confirm", "curl -f 'localhost/50%'"];
    let unit = target(&hooks);
    assert!(unit.contains("ReadWritePaths=\"/srv/my web\"") && unit.contains("Type=notify"), "{unit}");
    assert!(unit.contains("$$UNIT") && unit.contains("50%%") && unit.contains("%d/token"), "{unit}");
    judge(&home, "whit-web.service", &unit, EXPOSURE_MAX);
    let plain = target(&["--layout", "plain", "--user", "root"]);
    assert!(plain.contains("ReadWritePaths=/srv\n") && plain.contains("User=root"), "{plain}");
    judge(&home, "whit-web-root.service", &plain, EXPOSURE_OF_ROOT_MAX);
    let proxy = home.run(&["systemd", "--serve"]).good();
    assert!(proxy.contains("DynamicUser=yes") && proxy.contains("StateDirectory=whit"), "{proxy}");
    judge(&home, "whit.service", &proxy, EXPOSURE_MAX);
    let config = "[destinations.web]\nkind = \"dir\"\npath = \"/srv/web/{app}\"\n";
    fs::write(home.path("whit.toml"), config).expect("written");
    let proxy = home.run(&["systemd", "--serve", "--config", "whit.toml"]).good();
    assert!(!proxy.contains("DynamicUser") && proxy.contains("ReadWritePaths=-/srv/web\n"), "{proxy}");
    judge(&home, "whit-delivering.service", &proxy, EXPOSURE_MAX);
    fs::write(home.path("whit.toml"), "data = \"/srv/whit\"\n").expect("written");
    let proxy = home.run(&["systemd", "--serve", "--config", "whit.toml"]).good();
    assert!(proxy.contains("--data /srv/whit ") && proxy.contains("ReadWritePaths=/srv/whit\n"), "{proxy}");
    assert!(!proxy.contains("/var/lib/whit") && proxy.contains("User=whit"), "{proxy}");
    judge(&home, "whit-elsewhere.service", &proxy, EXPOSURE_MAX);
    home.run(&["systemd", "--target", "web", "/srv/web"]).failed(2, "the proxy's address");
    home.run(&["systemd"]).failed(2, "");
}

#[test]
fn a_proxy_tells_its_manager_that_it_is_ready_alive_and_stopping() {
    let home = Home::new();
    let socket = home.path("notify");
    let manager = UnixDatagram::bind(&socket).expect("a socket");
    manager.set_read_timeout(Some(Duration::from_millis(100))).expect("a time");
    let mut serve = home.command(&["serve", "--listen", "127.0.0.1:0", "--data", "data"]);
    serve.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "60000");
    let child = serve.spawn().expect("it starts");
    let mut heard: Vec<String> = Vec::new();
    let deadline = Instant::now() + patience();
    let mut wait_for = |word: &str, times: usize| {
        while heard.iter().filter(|told| *told == word).count() < times {
            assert!(Instant::now() < deadline, "no {word}: {heard:?}");
            let mut buffer = [0; 1024];
            if let Ok(length) = manager.recv(&mut buffer) {
                heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            }
        }
    };
    wait_for("READY=1", 1);
    wait_for("WATCHDOG=1", 3);
    kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
    wait_for("STOPPING=1", 1);
    finish(child).good();
}

#[test]
fn the_first_token_is_not_for_the_journal() {
    let home = Home::new();
    for (stream, has_token) in [(None, true), (Some("8:1234"), false)] {
        let data = if has_token { "seen" } else { "journal" };
        let mut serve = home.command(&["serve", "--listen", "127.0.0.1:0", "--data", data]);
        serve.envs(stream.map(|stream| ("JOURNAL_STREAM", stream)));
        let mut child = serve.spawn().expect("it starts");
        let told = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
        let told =
            told.skip_while(|line| !line.contains("first start")).find(|line| line.contains("whit login"));
        let told = told.expect("it says how to log in");
        kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
        assert!(child.wait().expect("it ends").success());
        assert_eq!(told.contains("--token TOKEN"), !has_token, "{told}");
        let create = [
            "token",
            "--data",
            data,
            "create",
            "--user",
            "admin",
            "--allow",
            "push,pull,read,deliver,admin",
            "--then",
            "*",
        ];
        assert!(has_token || told.contains(&format!("whit {}", create[..8].join(" "))), "{told}");
        home.run(&create).good();
    }
}
