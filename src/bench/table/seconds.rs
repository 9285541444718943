//! Tables of seconds over links.

use super::{Table, count, seconds, unknown};
use crate::case::Case;
use crate::race::{Judgement, Transfer, WHIT};
use crate::report::Report;

/// The titles of [`links`].
pub const TITLES: [&str; 3] = [
    "Seconds of the command / to the complete, synced copy",
    "Bytes both ways",
    "Processor seconds of both sides for each GB of the release",
];

/// Returns a table for each of [`TITLES`], and sentences on tools without figures.
pub fn links(report: &Report) -> ([Table; 3], Vec<String>) {
    let heads = ["LINK", "TOOL", "FIRST", "FRESH", "KEPT", "PULL", "UPDATE"];
    let mut tables = [(); 3].map(|()| vec![heads.map(str::to_owned).to_vec()]);
    let mut words = Vec::new();
    for over in &report.links {
        let line = |title: &str, cell: &dyn Fn(Case) -> Option<String>| {
            let begin = vec![over.link.to_string(), title.to_owned()];
            [begin, Case::ALL.map(|case| cell(case).unwrap_or_else(unknown)).to_vec()].concat()
        };
        for row in &over.tools {
            if let Some(reason) = row.outcome.reason() {
                let sentence = format!("{}: {reason}", row.tool);
                if !words.contains(&sentence) {
                    words.push(sentence);
                }
                continue;
            }
            let run = |case| over.transfer(&row.tool, case);
            let times = |run: &Transfer| format!("{} / {}", seconds(run.seconds), seconds(run.copy_seconds));
            let load = |case, run: &Transfer| run.cpu_seconds_per_gb(report.logical_bytes(case));
            tables[0].push(line(&row.tool, &|case| run(case).map(times)));
            tables[1].push(line(&row.tool, &|case| Some(count(run(case)?.bytes()))));
            tables[2].push(line(&row.tool, &|case| Some(format!("{:.1}", load(case, run(case)?)))));
        }
        let judged = |case| over.judged.get(&case);
        let times = |judged: &Judgement| format!("{:.2} / {:.2}", judged.ratio, judged.copy_ratio);
        if !over.judged.is_empty() {
            tables[0].push(line("best peer", &|case| judged(case).map(best)));
            tables[0].push(line("whit : best peer", &|case| judged(case).map(times)));
            tables[1].push(line("whit saved", &|case| Some(signed(judged(case)?.saved.bytes))));
            tables[1].push(line("of the best peer", &|case| judged(case)?.saved.beside_best.map(signed)));
        }
    }
    (tables, words)
}

/// Formats the best peers' seconds with their names.
fn best(judged: &Judgement) -> String {
    let Judgement { best, best_copy, .. } = judged;
    let [times, copy] = [best, best_copy].map(|best| seconds(best.value));
    if best.tool == best_copy.tool {
        format!("{times} / {copy} {}", best.tool)
    } else {
        format!("{times} {} / {copy} {}", best.tool, best_copy.tool)
    }
}

/// The titles of [`summary`].
pub const SUMMARY_TITLES: [&str; 3] = [
    "Seconds of the command (as a multiple of the best peer's)",
    "Seconds to the complete, synced copy (as a multiple of the best peer's)",
    "Processor seconds for each GB (as a multiple of the best peer's)",
];

/// Returns a table for each of [`SUMMARY_TITLES`], with a line for each report and link.
pub fn summary(reports: &[Report]) -> [Table; 3] {
    let heads = ["case", "link", "first", "fresh", "kept", "pull", "update"].map(str::to_owned).to_vec();
    let mut tables = [(); 3].map(|()| vec![heads.clone()]);
    for report in reports {
        for over in report.links.iter().filter(|over| !over.judged.is_empty()) {
            let load = |case: Case, run: &Transfer| run.cpu_seconds_per_gb(report.logical_bytes(case));
            let cell = |table: usize, case: Case| {
                let (whit, judged) = (over.transfer(WHIT, case)?, over.judged.get(&case)?);
                let least = || over.peers(case).map(|(_, run)| load(case, run)).min_by(f64::total_cmp);
                Some(match table {
                    0 => format!("{} ({:.2})", seconds(whit.seconds), judged.ratio),
                    1 => format!("{} ({:.2})", seconds(whit.copy_seconds), judged.copy_ratio),
                    _ => format!("{:.1} ({:.1})", load(case, whit), load(case, whit) / least()?.max(0.01)),
                })
            };
            for (number, table) in tables.iter_mut().enumerate() {
                let cells = Case::ALL.map(|case| cell(number, case).unwrap_or_else(unknown));
                table.push([vec![report.name.clone(), over.link.to_string()], cells.to_vec()].concat());
            }
        }
    }
    tables
}

/// Formats a number as `-1,234`.
fn signed(number: i64) -> String {
    format!("{}{}", if number < 0 { "-" } else { "" }, count(number.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::{links, summary};
    use crate::outcome::{Outcome, Row};
    use crate::race;
    use crate::report::{Report, sample};

    #[test]
    fn each_link_has_a_line_for_each_tool_and_one_for_the_judgement() {
        let mut report = sample::report();
        report.links =
            vec![race::sample::report("loopback", 2.0, 1.0), race::sample::report("5mbit/100ms", 1.0, 4.0)];
        for over in &mut report.links {
            let outcome = Outcome::Missing { program: "zstd".to_owned() };
            over.tools.push(Row { tool: "tar".to_owned(), outcome });
        }
        let (tables, words) = links(&report);
        let [times, bytes, processors] =
            tables.map(|table| table.iter().map(|row| row.join(" | ")).collect::<Vec<_>>());
        assert_eq!(
            [times.len(), bytes.len(), processors.len()],
            [1 + 2 * 5, 1 + 2 * 5, 1 + 2 * 3],
            "{times:#?}"
        );
        assert_eq!(times[1], "loopback | whit | 4.00 / 4.40 | - | 2.00 / 2.20 | - | -");
        assert_eq!(times[4], "loopback | best peer | 1.00 / 1.10 rsync-a | - | 1.00 / 1.10 rsync-a | - | -");
        assert_eq!(times[5], "loopback | whit : best peer | 4.00 / 4.00 | - | 2.00 / 2.00 | - | -");
        assert_eq!(times[7], "5mbit/100ms | rsync-a | 4.00 / 4.40 | 4.00 / 4.40 | 4.00 / 4.40 | - | -");
        assert_eq!(bytes[1], "loopback | whit | 900,100 | - | 4,100 | - | -");
        assert_eq!(bytes[4], "loopback | whit saved | 99,900 | - | 995,900 | - | -");
        assert_eq!(bytes[5], "loopback | of the best peer | -500,000 | - | 46,000 | - | -");
        // Twice 1 s of processors for 1,000,000 and 1,234,567 bytes.
        assert_eq!(processors[1], "loopback | whit | 2000.0 | - | 810.0 | - | -");
        // Each once.
        assert_eq!(
            words,
            ["rsync-ssh: missing: sshd is not installed", "tar: missing: zstd is not installed"]
        );
    }

    #[test]
    fn a_summary_has_a_line_for_each_report_and_link() {
        let links =
            vec![race::sample::report("loopback", 2.0, 1.0), race::sample::report("5mbit/100ms", 1.0, 4.0)];
        let reports = [Report { links, ..sample::report() }, sample::report()];
        let [command, copy, processors] =
            summary(&reports).map(|table| table.iter().map(|row| row.join(" | ")).collect::<Vec<_>>());
        assert_eq!([command.len(), copy.len(), processors.len()], [3; 3], "{command:#?}");
        assert_eq!(command[1], "app | loopback | 4.00 (4.00) | - | 2.00 (2.00) | - | -");
        assert_eq!(copy[2], "app | 5mbit/100ms | 2.20 (0.50) | - | 1.10 (0.25) | - | -");
        assert_eq!(processors[1], "app | loopback | 2000.0 (4.0) | - | 810.0 (2.0) | - | -");
    }
}
