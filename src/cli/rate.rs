//! Rates of links on the command line.

use super::error::Error;

/// Parses a rate in bits, like `20mbit`, `1gbit` or `500kbit`; returns bytes a second.
pub fn link_rate(text: &str) -> Result<f64, Error> {
    let units = [("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9)];
    let lower = text.to_ascii_lowercase();
    let parsed = units.iter().find_map(|(unit, factor)| {
        let number: f64 = lower.strip_suffix(unit)?.trim().parse().ok()?;
        Some(number * factor / 8.0)
    });
    parsed
        .filter(|rate| rate.is_finite() && *rate > 0.0)
        .ok_or_else(|| Error::input(format!("`{text}` is not a rate"), "write it like 20mbit"))
}
