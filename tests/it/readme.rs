//! README's console sessions run as written, with a crate that Cargo has unpacked for this build as `./build`, and with
//! `--effort bytes`, so that no machine's speed decides how hard is compressed.
//!
//! The outputs are compared: words, ids and counts exactly, bytes within a tenth, times not at all: those in README are of
//! the release build on an idle machine, and stay. `WHIT_README=write` writes the outputs into README instead.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::process::Signal;

use crate::documents::project;
use crate::program::{Home, Served, finish};

/// Returns the unpacked release of `name` that Cargo.lock names and whose version begins with `major`.
fn unpacked(name: &str, major: &str) -> Option<PathBuf> {
    let lock = fs::read_to_string(project("Cargo.lock")).expect("the lock file");
    let named = format!("name = \"{name}\"\nversion = \"");
    let mut versions = lock.split(&named).skip(1).filter_map(|rest| rest.split_once('"'));
    let (version, _) = versions.find(|(version, _)| version.split('.').next() == Some(major))?;
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
    let registries = fs::read_dir(home.join("registry/src")).ok()?.flatten();
    let folder = format!("{name}-{version}");
    registries.map(|registry| registry.path().join(&folder)).find(|path| path.is_dir())
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("created");
    for entry in fs::read_dir(from).expect("listed").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().expect("a kind").is_dir() {
            copy_tree(&from, &to);
        } else {
            fs::copy(&from, &to).expect("copied");
        }
    }
}

/// More than the two seconds after which a file counts as settled.
const SETTLED: Duration = Duration::from_millis(2500);

/// README's folders and host, and where they are here.
struct Session {
    home: Home,
    proxy: Served,
    renamed: Vec<(String, String)>,
}

impl Session {
    fn start(build: &Path) -> Self {
        let home = Home::new();
        let path = |name: &str| home.path(name).display().to_string();
        copy_tree(build, &home.path("build"));
        let copied = SystemTime::now();
        fs::write(
            home.path("whit.toml"),
            format!("[destinations.production]\nkind = \"dir\"\npath = \"{}/{{app}}\"\n", path("srv")),
        )
        .expect("written");
        let proxy = home.serve(&["--data", "data", "--config", "whit.toml"]);
        let url = proxy.first_line.clone();
        let login = proxy.line(|line| line.contains("whit login"));
        let token = login.split_whitespace().last().expect("a token").to_owned();
        let renamed = vec![
            (url, "whit://proxy.example.com:9448#5499220e…".to_owned()),
            (token, "whit1.ksQIJ8iB…".to_owned()),
            (path("srv"), "/srv".to_owned()),
            (path("target"), "/home/me/target".to_owned()),
        ];
        // A file that was changed just now is read again at the next push.
        while copied.elapsed().is_ok_and(|passed| passed < SETTLED) {
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { home, proxy, renamed }
    }

    /// Returns the output of a README command here, in README's words.
    fn answer(&self, command: &str) -> String {
        let here =
            self.renamed.iter().fold(command.to_owned(), |text, (here, there)| text.replace(there, here));
        let mut words = here.split_whitespace();
        assert_eq!(words.next(), Some("whit"), "{command}");
        let mut arguments: Vec<&str> = words.collect();
        if arguments[0] == "push" {
            arguments.extend(["--effort", "bytes"]);
        }
        let out = finish(self.home.command(&arguments).spawn().expect("it starts")).good();
        let out = self.renamed.iter().fold(out, |text, (here, there)| text.replace(here, there));
        out.lines().map(|line| shortened(line) + "\n").collect()
    }
}

/// Shortens a whole release id in a line, as README does.
fn shortened(line: &str) -> String {
    let is_id = |word: &str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = line.split(|letter: char| !letter.is_ascii_alphanumeric()).find(|word| is_id(word));
    id.map_or_else(|| line.to_owned(), |id| line.replace(id, &format!("{}…", &id[..8])))
}

/// Returns whether two outputs agree: bytes may differ by the fraction `slack`, times by anything; `…` stands for any
/// lines.
fn same(said: &str, found: &str, slack: f64) -> bool {
    let same_line = |said: &str, found: &str| same_line(said, found, slack);
    let (said, found): (Vec<&str>, Vec<&str>) = (said.lines().collect(), found.lines().collect());
    let Some(gap) = said.iter().position(|line| line.trim() == "…") else {
        return said.len() == found.len()
            && said.iter().zip(&found).all(|(said, found)| same_line(said, found));
    };
    let (before, after) = (&said[..gap], &said[gap + 1..]);
    found.len() >= before.len() + after.len()
        && before.iter().zip(&found).all(|(said, found)| same_line(said, found))
        && after.iter().rev().zip(found.iter().rev()).all(|(said, found)| same_line(said, found))
}

fn same_line(said: &str, found: &str, slack: f64) -> bool {
    let (said, found) = (words(said), words(found));
    said.len() == found.len()
        && said.iter().zip(&found).enumerate().all(|(place, (one, other))| {
            let unit = said.get(place + 1).map_or("", |unit| unit.trim_matches([',', ':', ')']));
            let number =
                |text: &str| text.trim_start_matches("1/").trim_matches(['(', ',']).parse::<f64>().ok();
            match (number(one), number(other), unit) {
                (Some(_), Some(_), "s") => true,
                // Slower reading may save a round trip.
                (Some(one), Some(other), "round") => (one - other).abs() <= 1.0,
                (Some(one), Some(other), "B" | "kB" | "MB" | "x" | "of") => {
                    (one - other).abs() <= slack * one.max(other) + 0.3
                }
                _ => one == other,
            }
        })
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// Returns README's `console` blocks, as ranges of its text.
fn console_blocks(text: &str) -> Vec<std::ops::Range<usize>> {
    const BEGIN: &str = "```console\n";
    let starts = text.match_indices(BEGIN).map(|(place, _)| place + BEGIN.len());
    starts.map(|start| start..start + text[start..].find("```").expect("a block ends")).collect()
}

#[test]
fn readmes_session_runs_as_it_stands() {
    let (Some(build), Some(later)) = (unpacked("syn", "2"), unpacked("syn", "3")) else {
        println!("skipped: Cargo has not unpacked syn 2 and 3, which README pushes");
        return;
    };
    let is_writing = std::env::var_os("WHIT_README").is_some_and(|value| value == "write");
    let path = project("README.md");
    let text = fs::read_to_string(&path).expect("it is there");
    let session = Session::start(&build);
    let (mut written, mut end, mut differing) = (String::new(), 0, Vec::new());
    for block in console_blocks(&text) {
        written.push_str(&text[end..block.start]);
        end = block.end;
        for part in text[block].split_inclusive("\n\n$ ") {
            let (part, next) = part.strip_suffix("\n\n$ ").map_or((part, ""), |part| (part, "\n$ "));
            let (command, said) =
                part.trim_start_matches("$ ").split_once('\n').expect("a command has an answer");
            // The file was written and the proxy started above.
            let answer = if command.starts_with("cat ") || command.starts_with("whit serve") {
                said.to_owned()
            } else {
                if command.ends_with("--to production") && command.contains("push") {
                    change_a_line(&session.home.path("build/src/lib.rs"));
                }
                session.answer(command)
            };
            if !same(said.trim_end(), answer.trim_end(), 0.1) {
                differing.push(format!("$ {command}\n{}\nis now\n{answer}", said.trim_end()));
            }
            let answer = with_times_of(said, &answer);
            let told =
                if said.lines().any(|line| line.trim() == "…") { with_gap(said, &answer) } else { answer };
            let prompt = if part.starts_with("$ ") { "$ " } else { "" };
            written = format!("{written}{prompt}{command}\n{}\n{next}", told.trim_end());
        }
    }
    written.push_str(&text[end..]);
    session.proxy.stop(Signal::TERM);
    let (written, of_demo) = with_demo(&written, &build, &later);
    differing.extend(of_demo);
    if is_writing {
        fs::write(&path, written).expect("written");
    } else {
        let hint = "WHIT_README=write writes what is so";
        assert!(differing.is_empty(), "README.md: {hint}\n{}", differing.join("\n"));
    }
}

/// Returns the output with README's times.
fn with_times_of(said: &str, answer: &str) -> String {
    let is_time = |line: &&str| line.trim_start().starts_with("time ");
    let mut times = said.lines().filter(is_time);
    let lines = answer.lines().map(|line| if is_time(&line) { times.next().unwrap_or(line) } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

/// Replaces README's block by the output of the demo of two releases; also returns how the two differ.
fn with_demo(text: &str, old: &Path, new: &Path) -> (String, Option<String>) {
    const BEGIN: &str = "```text\n";
    let block = text.find(BEGIN).expect("a block") + BEGIN.len();
    // Standard error names what is pushed.
    let start = block + text[block..].find("\n\n").expect("what is pushed, and how it went") + 2;
    let end = start + text[start..].find("```").expect("a block ends");
    let said = &text[start..end];
    let home = Home::new();
    let (old, new) = (old.to_str().expect("text"), new.to_str().expect("text"));
    let told = home.run(&["demo", old, new, "--dir", "work"]).good();
    let told = told.replace(&home.path("work").display().to_string(), "…");
    let told: String = told.lines().map(|line| shortened(line) + "\n").collect();
    let told = with_times_of(said, &told) + "\n";
    let differs = !same(said.trim_end(), told.trim_end(), 0.1);
    let differing = differs.then(|| format!("the demo\n{said}is now\n{told}"));
    (format!("{}{told}{}", &text[..start], &text[end..]), differing)
}

/// Returns the output without the lines that README leaves out.
fn with_gap(said: &str, answer: &str) -> String {
    let (said, answer): (Vec<&str>, Vec<&str>) =
        (said.trim_end().lines().collect(), answer.lines().collect());
    let gap = said.iter().position(|line| line.trim() == "…").expect("it has one");
    let after = said.len() - gap - 1;
    let mut lines = answer[..gap].to_vec();
    lines.push(said[gap]);
    lines.extend(&answer[answer.len() - after..]);
    lines.join("\n")
}

/// Changes a line in the middle of a file.
fn change_a_line(path: &Path) {
    let text = fs::read_to_string(path).expect("text");
    let place = text.len() / 2 + text[text.len() / 2..].find('\n').expect("it has lines");
    fs::write(path, format!("{}\n// Changed.{}", &text[..place], &text[place..])).expect("written");
}
