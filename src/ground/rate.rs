//! Rates of links, as people write them.

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
        for text in ["", "20", "mbit", "-1mbit", "0kbit", "infmbit", "20mb"] {
            assert_eq!(bytes_a_second(text), None, "{text}");
        }
    }
}
