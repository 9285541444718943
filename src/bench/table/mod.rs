//! Reports as tables: for one input's tools and links, and over many inputs in Markdown.

mod seconds;

pub use self::seconds::{TITLES, links};

use self::seconds::{SUMMARY_TITLES, summary};

use super::measurement::{Measurement, Situations};
use super::outcome::{Outcome, Row};
use super::report::Report;

/// Columns of cells, the first row their heads.
pub type Table = Vec<Vec<String>>;

/// The heads of [`tools`].
const HEADS: [&str; 11] =
    ["TOOL", "SENDER HAS", "UP", "DOWN", "BYTES", "TRIPS", "SECONDS", "CPU S", "CPU R", "PEAK S", "PEAK R"];
/// Tools that docs/BENCHMARKS.md compares with whit where the sender has only NEW.
const FRESH_PEERS: [&str; 8] =
    ["rsync-az", "rsync-acz", "rsync-fuzzy", "casync", "casync-16k", "zsync", "bita", "rdiff"];
/// Tools that it compares where the sender has OLD too.
const KEPT_PEERS: [&str; 6] = ["zstd-3", "zstd-19", "xdelta3", "bsdiff", "restic", "borg"];

/// Returns a line for each tool and situation, and sentences on tools without figures.
pub fn tools(report: &Report) -> (Table, Vec<String>) {
    let mut table = vec![HEADS.map(str::to_owned).to_vec()];
    let mut words = Vec::new();
    for row in &report.tools {
        let note = match row.outcome.figures() {
            Some(found) => {
                let situations =
                    [("OLD, first", found.first), ("NEW", found.fresh), ("NEW, OLD", found.kept)];
                for (has, run) in situations {
                    table.extend(run.map(|run| line(&row.tool, has, &run)));
                }
                found.note.clone()
            }
            None => row.outcome.reason(),
        };
        words.extend(note.map(|note| format!("{}: {note}", row.tool)));
    }
    (table, words)
}

fn line(tool: &str, has: &str, run: &Measurement) -> Vec<String> {
    let receiver = |pick: fn(super::measurement::Load) -> String| run.receiver.map_or_else(unknown, pick);
    vec![
        tool.to_owned(),
        has.to_owned(),
        count(run.up_bytes),
        count(run.down_bytes),
        count(run.bytes()),
        run.round_trips.map_or_else(unknown, |trips| trips.to_string()),
        seconds(run.wall_seconds),
        seconds(run.sender.cpu_seconds),
        receiver(|load| seconds(load.cpu_seconds)),
        mebibytes(run.sender.peak_bytes),
        receiver(|load| mebibytes(load.peak_bytes)),
    ]
}

/// Returns the tables of docs/BENCHMARKS.md over several inputs.
pub fn markdown(reports: &[Report]) -> String {
    let title = |heads: &[&str]| heads.iter().map(|head| (*head).to_owned()).collect::<Vec<_>>();
    let mut fresh = vec![title(&["case", "new bytes", "whit up", "whit down", "whit", "tar+zstd -3"])];
    let mut kept = vec![title(&["case", "new bytes", "whit up", "whit down", "whit"])];
    fresh[0].extend(title(&FRESH_PEERS));
    kept[0].extend(title(&KEPT_PEERS));
    let mut cost = vec![title(&[
        "case",
        "situation",
        "round trips",
        "seconds",
        "CPU agent",
        "CPU proxy",
        "peak agent",
        "peak proxy",
        "rsync -az seconds",
        "CPU client",
        "CPU daemon",
    ])];
    for report in reports {
        let whit = report.measured("whit");
        let of = |tool: &str, is_kept: bool| {
            let found = report.measured(tool);
            let run = found.and_then(|found| if is_kept { found.kept } else { found.fresh });
            run.map_or_else(|| reason(report, tool), |run| count(run.bytes()))
        };
        for (table, run, is_kept) in [
            (&mut fresh, whit.and_then(|whit| whit.fresh), false),
            (&mut kept, whit.and_then(|whit| whit.kept), true),
        ] {
            let mut cells = vec![report.name.clone(), count(report.new.bytes)];
            cells.extend(match run {
                Some(run) => [run.up_bytes, run.down_bytes, run.bytes()].map(count).to_vec(),
                None => vec![unknown(); 3],
            });
            let peers = if is_kept { KEPT_PEERS.as_slice() } else { FRESH_PEERS.as_slice() };
            cells.extend((!is_kept).then(|| of("tar", false)));
            cells.extend(peers.iter().map(|tool| of(tool, is_kept)));
            table.push(cells);
        }
        let rsync = report.measured("rsync-az");
        let situations = [
            ("OLD, first", whit.and_then(|whit| whit.first), rsync.and_then(|rsync| rsync.first)),
            ("fresh", whit.and_then(|whit| whit.fresh), rsync.and_then(|rsync| rsync.fresh)),
            ("kept", whit.and_then(|whit| whit.kept), None),
        ];
        for (situation, run, peer) in situations {
            cost.extend(run.map(|run| cost_line(&report.name, situation, &run, peer.as_ref())));
        }
    }
    let parts = [
        ("The sender has NEW alone", fresh),
        ("The sender has OLD, or remembers it", kept),
        ("Time, processors, memory", cost),
    ];
    let parts = parts.map(|(title, table)| format!("### {title}\n\n{}", in_markdown(&table)));
    let over_links = SUMMARY_TITLES.into_iter().zip(summary(reports)).filter(|(_, table)| table.len() > 1);
    let over_links = over_links.map(|(title, table)| format!("### {title}\n\n{}", in_markdown(&table)));
    parts.into_iter().chain(over_links).collect::<Vec<_>>().join("\n")
}

fn cost_line(name: &str, situation: &str, run: &Measurement, peer: Option<&Measurement>) -> Vec<String> {
    let receiver = run.receiver.unwrap_or_default();
    vec![
        name.to_owned(),
        situation.to_owned(),
        run.round_trips.map_or_else(unknown, |trips| trips.to_string()),
        seconds(run.wall_seconds),
        seconds(run.sender.cpu_seconds),
        seconds(receiver.cpu_seconds),
        mebibytes(run.sender.peak_bytes),
        mebibytes(receiver.peak_bytes),
        peer.map_or_else(unknown, |peer| seconds(peer.wall_seconds)),
        peer.map_or_else(unknown, |peer| seconds(peer.sender.cpu_seconds)),
        peer.and_then(|peer| peer.receiver).map_or_else(unknown, |load| seconds(load.cpu_seconds)),
    ]
}

/// Returns in a word why a tool has no figure.
fn reason(report: &Report, tool: &str) -> String {
    let outcome = report.tools.iter().find(|row: &&Row<Situations>| row.tool == tool).map(|row| &row.outcome);
    match outcome {
        Some(Outcome::PassedOver { .. }) => "too large".to_owned(),
        Some(Outcome::Failed { .. }) => "failed".to_owned(),
        Some(Outcome::Missing { .. }) => "missing".to_owned(),
        _ => unknown(),
    }
}

/// Returns a table in Markdown, words to the left and numbers to the right.
fn in_markdown(table: &[Vec<String>]) -> String {
    let Some((heads, rows)) = table.split_first() else { return String::new() };
    let is_word = |place: usize| {
        let mut cells = rows.iter().filter_map(|row| row.get(place));
        cells.any(|cell| cell.starts_with(char::is_alphabetic) && !NO_FIGURE.contains(&cell.as_str()))
    };
    let rules = (0..heads.len()).map(|place| if place == 0 || is_word(place) { "---" } else { "--:" });
    let rules = format!("|{}|\n", rules.collect::<Vec<_>>().join("|"));
    let line = |row: &Vec<String>| format!("| {} |\n", row.join(" | "));
    let rows: String = rows.iter().map(line).collect();
    format!("{}{rules}{rows}", line(heads))
}

/// The words in place of a figure.
const NO_FIGURE: [&str; 3] = ["too large", "failed", "missing"];

fn unknown() -> String {
    "-".to_owned()
}

/// Formats a number as `1,234,567`.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.2}")
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1024 * 1024))
}

#[cfg(test)]
mod tests {
    use super::{count, markdown, tools};
    use crate::report::sample;

    #[test]
    fn counts_are_grouped_by_three() {
        assert_eq!([0, 7, 999, 1000, 1_234_567].map(count), ["0", "7", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn each_situation_has_a_line_and_what_has_no_figures_is_said() {
        let (table, words) = tools(&sample::report());
        assert!(table.iter().all(|row| row.len() == 11), "{table:?}");
        let begins: Vec<String> = table.iter().skip(1).map(|row| row[..3].join(" ")).collect();
        assert_eq!(
            begins,
            ["whit NEW 40,000", "whit NEW, OLD 900", "rsync-acz NEW 45,000", "zstd-3 NEW, OLD 3,000"]
        );
        assert_eq!(
            words,
            [
                "borg: missing: borg is not installed",
                "bsdiff: passed over: the input is larger than 1 MiB",
                "zsync: failed: it broke",
            ]
        );
    }

    #[test]
    fn markdown_has_a_line_for_each_case_and_says_why_a_figure_is_not_there() {
        let text = markdown(&[sample::report(), sample::report()]);
        let fresh =
            "| app | 1,234,567 | 40,000 | 2,000 | 42,000 | - | - | 50,000 | - | - | - | failed | - | - |";
        assert_eq!(text.lines().filter(|line| *line == fresh).count(), 2, "{text}");
        let kept = "| app | 1,234,567 | 900 | 100 | 1,000 | 3,000 | - | - | too large | - | missing |";
        assert_eq!(text.lines().filter(|line| *line == kept).count(), 2, "{text}");
        assert_eq!(text.matches("\n|---|--:|--:|--:|--:|--:|--:|--:|").count(), 2, "{text}");
    }
}
