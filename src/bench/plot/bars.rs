//! A picture of a report: a bar for each tool on a logarithmic scale of bytes, one panel for a sender that
//! has NEW alone, one for a sender that has OLD too.

use std::path::Path;

use plotters::element::{PathElement, Rectangle};
use plotters::style::text_anchor::HPos;
use plotters::style::{Color, RGBColor};

use super::{Area, GRID, OURS, drawn, write};
use crate::error::Result;
use crate::measurement::{Measurement, Situations};
use crate::outcome::Outcome;
use crate::report::Report;

/// The picture's width, pixels.
const WIDTH: i32 = 1200;
/// One bar with the room around it.
const BAR: i32 = 30;
/// Above a panel's bars: its title. Below: the scale.
const HEAD: i32 = 40;
const FOOT: i32 = 40;
/// The picture's title.
const TITLE: i32 = 64;
/// Room for the tools' names, and for the last figure.
const NAMES: i32 = 120;
const FIGURES: i32 = 110;
const PEERS: RGBColor = RGBColor(0x6b, 0x8e, 0xb5);

/// A tool's name and bytes in both directions.
type Bar = (String, u64);

/// Draws the report into an SVG file.
///
/// # Errors
/// The file cannot be written.
pub fn draw(report: &Report, path: &Path) -> Result<()> {
    let panels = [
        ("the sender has NEW alone", bars(report, |found| found.fresh)),
        ("the sender has OLD too, or remembers it", bars(report, |found| found.kept)),
    ];
    let bars_in_all: usize = panels.iter().map(|(_, bars)| bars.len()).sum();
    let bars_in_all = i32::try_from(bars_in_all).expect("there are few tools");
    let height = TITLE + 2 * (HEAD + FOOT) + bars_in_all * BAR;
    drawn(path, (WIDTH, height), |area| picture(report, &panels, area))
}

/// Returns a situation's bars, the shortest first.
fn bars(report: &Report, pick: fn(&Situations) -> Option<Measurement>) -> Vec<Bar> {
    let mut bars: Vec<Bar> = Vec::new();
    for row in &report.tools {
        if let Outcome::Measured(found) = &row.outcome {
            bars.extend(pick(found).map(|run| (row.tool.clone(), run.bytes())));
        }
    }
    bars.sort_by_key(|(_, bytes)| *bytes);
    bars
}

fn picture(report: &Report, panels: &[(&str, Vec<Bar>)], area: &Area<'_>) -> Result<(), String> {
    let title = format!("{}: bytes to bring a receiver from OLD to NEW", report.name);
    write(area, &title, (20, 14), 22, HPos::Left)?;
    let below = format!(
        "NEW: {} bytes in {} files. Both directions, logarithmic scale.",
        report.new.bytes, report.new.files
    );
    write(area, &below, (20, 42), 14, HPos::Left)?;
    let all = || panels.iter().flat_map(|(_, bars)| bars.iter().map(|(_, bytes)| *bytes));
    let scale = Scale::over(all().min().unwrap_or(1), all().max().unwrap_or(1));
    let mut top = TITLE;
    for (title, bars) in panels {
        top = panel(area, title, bars, &scale, top)?;
    }
    Ok(())
}

/// Draws one panel; returns the top of the next.
fn panel(area: &Area<'_>, title: &str, bars: &[Bar], scale: &Scale, top: i32) -> Result<i32, String> {
    write(area, title, (20, top + 14), 17, HPos::Left)?;
    let (begin, end) = (top + HEAD, top + HEAD + BAR * i32::try_from(bars.len()).unwrap_or(i32::MAX));
    for (power, place) in scale.marks() {
        let line = PathElement::new(vec![(place, begin), (place, end)], GRID.stroke_width(1));
        area.draw(&line).map_err(|error| error.to_string())?;
        write(area, power, (place, end + 6), 12, HPos::Center)?;
    }
    for (number, (tool, bytes)) in (0..).zip(bars) {
        let (upper, lower) = (begin + number * BAR + 5, begin + (number + 1) * BAR - 5);
        let color = if tool == "whit" { OURS } else { PEERS };
        let bar = Rectangle::new([(NAMES, upper), (scale.place(*bytes), lower)], color.filled());
        area.draw(&bar).map_err(|error| error.to_string())?;
        write(area, tool, (NAMES - 8, upper + 3), 14, HPos::Right)?;
        write(area, &figure(*bytes), (scale.place(*bytes) + 6, upper + 3), 14, HPos::Left)?;
    }
    Ok(end + FOOT)
}

/// Formats bytes as `1.23 MB`, in the decimal units of links.
#[expect(clippy::cast_precision_loss, reason = "for people")]
fn figure(bytes: u64) -> String {
    let units = [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    let bytes_f = bytes as f64;
    match units.into_iter().find(|(_, size)| bytes_f >= *size) {
        Some((unit, size)) => {
            format!("{:.*} {unit}", if bytes_f / size < 10.0 { 2 } else { 1 }, bytes_f / size)
        }
        None => format!("{bytes} B"),
    }
}

/// Whole powers of ten around all bars.
struct Scale {
    from: u32,
    to: u32,
}

impl Scale {
    fn over(least: u64, most: u64) -> Self {
        // The shortest bar must be visible too.
        let from = least.max(1).ilog10();
        Self {
            from: if 10u64.pow(from) == least { from.saturating_sub(1) } else { from },
            to: most.max(1).ilog10() + 1,
        }
    }

    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "pixels")]
    fn place(&self, bytes: u64) -> i32 {
        let share = ((bytes.max(1) as f64).log10() - f64::from(self.from)) / f64::from(self.to - self.from);
        let room = f64::from(WIDTH) - f64::from(NAMES + FIGURES);
        NAMES + (share.max(0.0) * room).round() as i32
    }

    fn marks(&self) -> Vec<(&'static str, i32)> {
        const POWERS: [&str; 13] = [
            "1 B", "10 B", "100 B", "1 kB", "10 kB", "100 kB", "1 MB", "10 MB", "100 MB", "1 GB", "10 GB",
            "100 GB", "1 TB",
        ];
        let powers = (0u32..).zip(POWERS).filter(|(power, _)| (self.from..=self.to).contains(power));
        powers.map(|(power, text)| (text, self.place(10u64.pow(power)))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Scale, draw, figure};
    use crate::report::sample;

    #[test]
    fn the_picture_has_a_bar_and_a_figure_for_each_measured_tool() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("plot.svg");
        draw(&sample::report(), &path).expect("drawn");
        let svg = std::fs::read_to_string(&path).expect("text");
        for word in ["whit", "rsync-acz", "zstd-3", "42.0 kB", "1.00 kB", "50.0 kB", "3.00 kB", "app: bytes"]
        {
            assert!(svg.contains(word), "{word}: {svg}");
        }
        assert!(!svg.contains("bsdiff"));
        // The ground and four bars.
        assert_eq!(svg.matches("<rect").count(), 5, "{svg}");
    }

    #[test]
    fn a_scale_spans_whole_powers_and_rises() {
        let scale = Scale::over(1000, 99_999);
        assert_eq!((scale.from, scale.to), (2, 5));
        assert!(scale.place(1000) > super::NAMES && scale.place(1000) < scale.place(1001 * 3));
        assert_eq!(scale.marks().len(), 4);
        assert_eq!(Scale::over(0, 0).to, 1);
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(
            [0, 999, 1000, 45_678, 1_500_000].map(figure),
            ["0 B", "999 B", "1.00 kB", "45.7 kB", "1.50 MB"]
        );
    }
}
