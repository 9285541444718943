//! The proxy's configuration file.

use std::path::Path;

use whit::config::Config;
use whit::delivery::destination::Template;

pub fn run(bytes: &[u8]) {
    match Config::parse(bytes, Path::new("whit.toml")) {
        Ok(config) => {
            let absolute = |folder: &Template| folder.as_path().is_absolute();
            assert!(config.destinations().values().all(|place| place.folders().iter().all(absolute)));
            assert_eq!(config.destinations().len(), config.destinations.len());
            drop(config.maintenance());
        }
        Err(error) => drop(error.to_string()),
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let whole = r#"data = "/var/lib/whit"
listen = "[::]:4433"
public_host = "proxy.example.com"
reserve_mib = 1024
rebuilt_mib = 4096
size_max_mib = 100000
collect_minutes = 60
verify_days = 7

[[keep]]
app = "web-*"
last = 5
days = 30
labels = ["v*"]

[destinations.edge]
kind = "dir"
path = "/srv/{app}"
keep = 3
reuse = "hardlink"
"#;
    let huge = "collect_minutes = 9223372036854775807\n[[keep]]\napp = \"*\"\ndays = 9223372036854775807\n";
    let wrong = "[destinations.edge]\nkind = \"dir\"\npath = \"srv\"\n";
    [whole, huge, wrong, ""].map(|text| text.as_bytes().to_vec()).to_vec()
}
