//! A picture of seconds by link: a panel for each case, a line for each tool, and in words over which links whit pays.

use std::path::Path;

use plotters::element::{Circle, PathElement};
use plotters::style::text_anchor::HPos;
use plotters::style::{Color, RGBColor};

use super::{Area, GRID, OURS, drawn, write, write_in};
use crate::case::Case;
use crate::error::Result;
use crate::race::{LinkReport, WHIT};
use crate::report::Report;

/// The size of one panel with the room around it, pixels.
const PANEL: (i32, i32) = (400, 330);
/// Panels in a row.
const COLUMNS: i32 = 3;
/// The picture's title.
const TITLE: i32 = 70;
/// Room in a panel: for figures at its left, names of tools at its right, words above and below.
const LEFT: i32 = 56;
const RIGHT: i32 = 84;
const ABOVE: i32 = 56;
const BELOW: i32 = 34;
/// The colours of peers, in the order of tables.
const COLORS: [RGBColor; 5] = [
    RGBColor(0x2f, 0x5d, 0x8c),
    RGBColor(0x6b, 0x8e, 0xb5),
    RGBColor(0x4f, 0x9d, 0x69),
    RGBColor(0x8a, 0x6f, 0xb0),
    RGBColor(0x99, 0x99, 0x99),
];

/// Draws the seconds to the complete, synced copy into an SVG file.
///
/// # Errors
/// The file cannot be written.
pub fn draw(report: &Report, path: &Path) -> Result<()> {
    let rows = (i32::try_from(Case::ALL.len()).expect("few cases") + COLUMNS - 1) / COLUMNS;
    let size = (PANEL.0 * COLUMNS, TITLE + PANEL.1 * rows);
    drawn(path, size, |area| picture(report, area))
}

fn picture(report: &Report, area: &Area<'_>) -> Result<(), String> {
    let title = format!("{}: seconds to a complete, synced copy, by link", report.name);
    write(area, &title, (20, 14), 22, HPos::Left)?;
    let below = format!(
        "OLD: {} bytes, NEW: {} bytes in {} files. Logarithmic scale.",
        report.old.bytes, report.new.bytes, report.new.files
    );
    write(area, &below, (20, 44), 14, HPos::Left)?;
    let scale = Scale::over(&report.links);
    for (number, case) in (0..).zip(Case::ALL) {
        let corner = (number % COLUMNS * PANEL.0, TITLE + number / COLUMNS * PANEL.1);
        let panel = Panel { links: &report.links, case, corner, scale: &scale };
        panel.draw(area)?;
    }
    Ok(())
}

/// Returns over which links whit takes no longer than the best peer.
fn pays(links: &[LinkReport], case: Case) -> String {
    let judged: Vec<_> = links.iter().filter_map(|over| Some((over.link, over.judged.get(&case)?))).collect();
    let paying = judged.iter().filter(|(_, judged)| judged.copy_ratio <= 1.0);
    let paying: Vec<String> = paying.map(|(link, _)| link.to_string()).collect();
    match (judged.len(), paying.len()) {
        (0, _) => "not measured beside a peer".to_owned(),
        (_, 0) => "whit pays over none of these links".to_owned(),
        (all, some) if all == some => "whit pays over all of these links".to_owned(),
        _ => format!("whit pays over {}", paying.join(", ")),
    }
}

struct Panel<'a> {
    links: &'a [LinkReport],
    case: Case,
    corner: (i32, i32),
    scale: &'a Scale,
}

impl Panel<'_> {
    fn draw(&self, area: &Area<'_>) -> Result<(), String> {
        let (left, top) = self.corner;
        write(area, self.case.name(), (left + 20, top + 8), 17, HPos::Left)?;
        write(area, &pays(self.links, self.case), (left + 20, top + 30), 12, HPos::Left)?;
        for (text, height) in self.scale.marks() {
            let ends = vec![(left + LEFT, top + height), (left + PANEL.0 - RIGHT, top + height)];
            area.draw(&PathElement::new(ends, GRID.stroke_width(1))).map_err(|error| error.to_string())?;
            write(area, text, (left + LEFT - 8, top + height - 6), 12, HPos::Right)?;
        }
        for (number, over) in self.links.iter().enumerate() {
            let place = (self.across(number), top + PANEL.1 - BELOW + 8);
            write(area, &over.link.to_string(), place, 11, HPos::Center)?;
        }
        let mut taken = Vec::new();
        // whit comes last, above the others.
        let mut tools = self.tools();
        tools.sort_by_key(|(tool, _)| tool == WHIT);
        for (tool, color) in tools {
            self.line(area, &tool, color, &mut taken)?;
        }
        Ok(())
    }

    /// Returns the tools of all links, each with its colour.
    fn tools(&self) -> Vec<(String, RGBColor)> {
        let mut names: Vec<String> = Vec::new();
        for row in self.links.iter().flat_map(|over| &over.tools) {
            if !names.contains(&row.tool) {
                names.push(row.tool.clone());
            }
        }
        let mut peers = COLORS.into_iter().cycle();
        let color = |tool: String| {
            let color = if tool == WHIT { Some(OURS) } else { peers.next() };
            (tool, color.unwrap_or(GRID))
        };
        names.into_iter().map(color).collect()
    }

    /// Draws one tool's line, and its name where its last point leaves room.
    fn line(&self, area: &Area<'_>, tool: &str, color: RGBColor, taken: &mut Vec<i32>) -> Result<(), String> {
        let point = |(number, over): (usize, &LinkReport)| {
            let seconds = over.transfer(tool, self.case)?.copy_seconds;
            Some((self.across(number), self.corner.1 + self.scale.height(seconds)))
        };
        let points: Vec<(i32, i32)> = self.links.iter().enumerate().filter_map(point).collect();
        let Some(last) = points.last().copied() else { return Ok(()) };
        for point in &points {
            area.draw(&Circle::new(*point, 4, color.filled())).map_err(|error| error.to_string())?;
        }
        area.draw(&PathElement::new(points, color.stroke_width(2))).map_err(|error| error.to_string())?;
        // The nearest place that no other name has.
        let free = |height: &i32| taken.iter().all(|other: &i32| (other - height).abs() >= 13);
        let mut near = (0..200).flat_map(|away| [last.1 - away, last.1 + away]);
        let height = near.find(free).unwrap_or(last.1);
        taken.push(height);
        write_in(area, tool, (last.0 + 9, height - 6), (12, color), HPos::Left)
    }

    /// Returns the place of a link across the panel.
    fn across(&self, number: usize) -> i32 {
        let (links, number) = (self.links.len().max(1), i32::try_from(number).unwrap_or(i32::MAX));
        let room = PANEL.0 - LEFT - RIGHT;
        self.corner.0 + LEFT + room * (2 * number + 1) / (2 * i32::try_from(links).unwrap_or(i32::MAX))
    }
}

/// Whole powers of ten around all seconds, as places below a panel's top.
struct Scale {
    from: i32,
    to: i32,
}

/// Marks of the scale: each power and its text.
const POWERS: [(i32, &str); 8] = [
    (-3, "1 ms"),
    (-2, "10 ms"),
    (-1, "0.1 s"),
    (0, "1 s"),
    (1, "10 s"),
    (2, "100 s"),
    (3, "1000 s"),
    (4, "10000 s"),
];

impl Scale {
    fn over(links: &[LinkReport]) -> Self {
        let mut powers = Vec::new();
        for over in links {
            let races = over.tools.iter().filter_map(|row| row.outcome.figures());
            powers.extend(races.flat_map(|race| race.values()).map(|run| run.copy_seconds.max(1e-3).log10()));
        }
        let least = powers.iter().copied().fold(f64::INFINITY, f64::min);
        let most = powers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let bound = |power: f64, otherwise| if power.is_finite() { whole(power) } else { otherwise };
        let from = bound(least.floor(), -1);
        Self { from, to: bound(most.ceil(), 1).max(from + 1) }
    }

    fn height(&self, seconds: f64) -> i32 {
        let power = seconds.max(1e-3).log10() - f64::from(self.from);
        let room = f64::from(PANEL.1 - ABOVE - BELOW);
        PANEL.1 - BELOW - whole((power / f64::from(self.to - self.from) * room).round())
    }

    fn marks(&self) -> Vec<(&'static str, i32)> {
        let shown = POWERS.into_iter().filter(|(power, _)| (self.from..=self.to).contains(power));
        shown.map(|(power, text)| (text, self.height(10f64.powi(power)))).collect()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "pixels, and powers of ten of seconds")]
fn whole(number: f64) -> i32 {
    number as i32
}

#[cfg(test)]
mod tests {
    use super::{Scale, draw};
    use crate::race;
    use crate::report::sample;

    #[test]
    fn the_picture_has_a_line_for_each_tool_and_says_over_which_links_whit_pays() {
        let mut report = sample::report();
        report.links =
            vec![race::sample::report("loopback", 2.0, 1.0), race::sample::report("5mbit/100ms", 1.0, 4.0)];
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("plot.svg");
        draw(&report, &path).expect("drawn");
        let svg = std::fs::read_to_string(&path).expect("text");
        let words =
            ["rsync-a", "whit pays over 5mbit/100ms", "not measured beside a peer", "app: seconds", "1 s"];
        for word in words {
            assert!(svg.contains(word), "{word}: {svg}");
        }
        assert!(!svg.contains("rsync-ssh"), "it has no figures");
        // Over two links whit in two cases, both peers in three.
        assert_eq!(svg.matches("<circle").count(), 2 * (2 + 2 * 3), "{svg}");
    }

    #[test]
    fn a_scale_spans_whole_powers_and_rises() {
        let scale = Scale::over(&[race::sample::report("loopback", 0.2, 3.0)]);
        assert_eq!((scale.from, scale.to), (-1, 1));
        assert!(scale.height(2.0) < scale.height(0.5), "more is higher up");
        assert_eq!(Scale::over(&[]).marks().len(), 3);
    }
}
