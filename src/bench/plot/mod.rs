//! Pictures of a report: bytes as bars, seconds as lines.

mod bars;
mod seconds;

use std::path::Path;

use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{EmptyElement, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{BLACK, IntoFont, RGBColor, TextStyle, WHITE};

pub use self::bars::draw as draw_bytes;
pub use self::seconds::draw as draw_seconds;

use super::error::{Error, Result};

/// whit's colour, and that of scales.
const OURS: RGBColor = RGBColor(0xd1, 0x49, 0x2e);
const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws a picture of this width and height into an SVG file.
fn drawn(
    path: &Path,
    (width, height): (i32, i32),
    picture: impl FnOnce(&Area<'_>) -> Result<(), String>,
) -> Result<()> {
    let area = SVGBackend::new(path, (width.unsigned_abs(), height.unsigned_abs())).into_drawing_area();
    let filled = area.fill(&WHITE).map_err(|error| error.to_string());
    let ended =
        filled.and_then(|()| picture(&area)).and_then(|()| area.present().map_err(|error| error.to_string()));
    ended.map_err(|reason| Error::Plot { path: path.display().to_string(), reason })
}

fn write(area: &Area<'_>, text: &str, place: (i32, i32), size: i32, side: HPos) -> Result<(), String> {
    write_in(area, text, place, (size, BLACK), side)
}

/// Writes a text of a size and colour.
fn write_in(
    area: &Area<'_>,
    text: &str,
    place: (i32, i32),
    (size, color): (i32, RGBColor),
    side: HPos,
) -> Result<(), String> {
    let style =
        TextStyle::from(("sans-serif", size).into_font()).color(&color).pos(Pos::new(side, VPos::Top));
    let element = EmptyElement::at(place) + Text::new(text.to_owned(), (0, 0), style);
    area.draw(&element).map_err(|error| error.to_string())
}
