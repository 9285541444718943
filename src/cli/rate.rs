//! Rates of links on the command line.

use super::error::Error;
use ground::rate::bytes_a_second;

/// Parses a rate in bits, like `20mbit`, `1gbit` or `500kbit`; returns bytes a second.
pub fn link_rate(text: &str) -> Result<f64, Error> {
    bytes_a_second(text)
        .ok_or_else(|| Error::input(format!("`{text}` is not a rate"), "write it like 20mbit"))
}
