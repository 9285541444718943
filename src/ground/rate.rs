//! Rates of links, as people write them.

use serde::Deserialize;

/// A rate, written as [`bytes_a_second`] parses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Rate {
    /// Whole bytes a second, at least one.
    pub bytes_a_second: u64,
}

impl TryFrom<String> for Rate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let rate = bytes_a_second(&text).filter(|rate| *rate < 1e18);
        let rate = rate.ok_or_else(|| format!("`{text}` is not a rate: write it like 100mbit"))?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is positive and was bounded"
        )]
        let whole = rate as u64;
        Ok(Self { bytes_a_second: whole.max(1) })
    }
}

/// Parses a rate in bits a second, like `20mbit`, `1gbit` or `500kbit`; returns bytes a second, none for what is no rate.
pub fn bytes_a_second(text: &str) -> Option<f64> {
    let units = [("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9)];
    let lower = text.to_ascii_lowercase();
    let parsed = units.iter().find_map(|(unit, factor)| {
        let number: f64 = lower.strip_suffix(unit)?.trim().parse().ok()?;
        Some(number * factor / 8.0)
    });
    parsed.filter(|rate| rate.is_finite() && *rate > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_of_bits() {
        assert_eq!(bytes_a_second("20mbit"), Some(2.5e6));
        assert_eq!(bytes_a_second("0.5 Gbit"), Some(62.5e6));
        assert_eq!(Rate::try_from("8mbit".to_owned()), Ok(Rate { bytes_a_second: 1_000_000 }));
        assert!(Rate::try_from("8mb".to_owned()).is_err());
        for text in ["", "20", "mbit", "-1mbit", "0kbit", "infmbit", "20mb"] {
            assert_eq!(bytes_a_second(text), None, "{text}");
        }
    }
}
