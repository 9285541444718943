//! The links over which tools are measured: loopback, and emulated ones.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::Error;

/// A link between the two hosts of a measurement. In text and JSON as on the command line: `loopback`,
/// `20mbit/50ms`, `100mbit/50ms/0.5%`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Link {
    /// This machine's loopback, as fast as the machine.
    Loopback,
    /// An emulation; needs Linux and root.
    Emulated(LinkSpec),
}

/// The rate each way, round trip time and loss of an emulated link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinkSpec {
    /// Bits a second, each way.
    pub bits_per_second: u64,
    /// The time of a round trip, milliseconds.
    pub round_trip_ms: f64,
    /// Packets lost at random, each way, in percent.
    pub loss_percent: f64,
}

impl LinkSpec {
    /// Returns the time of a round trip.
    pub fn round_trip(&self) -> Duration {
        Duration::from_secs_f64(self.round_trip_ms / 1e3)
    }
}

/// Accepted bits a second. Beyond 200 Mbit/s the relay takes too much of the processors that it shares with the tools: there,
/// processor time over loopback says more.
const RATES: std::ops::RangeInclusive<f64> = 1e3..=2e8;
/// The longest accepted round trip: a minute.
const ROUND_TRIP_MS_MAX: f64 = 60_000.0;
/// The units of rates, the largest first, and their bits a second.
const UNITS: [(&str, f64); 3] = [("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3)];

impl FromStr for Link {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |reason| Error::Link { text: text.to_owned(), reason };
        let words = text.trim().to_ascii_lowercase();
        if words == "loopback" {
            return Ok(Self::Loopback);
        }
        let parts: Vec<&str> = words.split('/').map(str::trim).collect();
        let (rate, trip, loss) = match parts.as_slice() {
            [rate, trip] => (rate, trip, None),
            [rate, trip, loss] => (rate, trip, Some(loss)),
            _ => return Err(wrong("it is `loopback`, or a rate, a round trip time, and perhaps a loss")),
        };
        let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
        let bits = UNITS.iter().find_map(|(unit, factor)| Some(number(rate.strip_suffix(unit)?)? * factor));
        let bits = bits.ok_or_else(|| wrong("the rate is a number with kbit, mbit or gbit"))?;
        if !RATES.contains(&bits) {
            return Err(wrong(
                "the emulation carries 1kbit to 200mbit; for faster links compare CPU seconds per GB over loopback",
            ));
        }
        let round_trip_ms = trip.strip_suffix("ms").and_then(number);
        let round_trip_ms = round_trip_ms.filter(|time| (0.0..=ROUND_TRIP_MS_MAX).contains(time));
        let round_trip_ms = round_trip_ms
            .ok_or_else(|| wrong("the round trip time is a number with ms, at most a minute"))?;
        let loss_percent = match loss {
            Some(loss) => loss
                .strip_suffix('%')
                .and_then(number)
                .filter(|loss| (0.0..100.0).contains(loss))
                .ok_or_else(|| wrong("the loss is a number with %, below 100"))?,
            None => 0.0,
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it was compared with its bounds"
        )]
        let bits_per_second = bits.round() as u64;
        Ok(Self::Emulated(LinkSpec { bits_per_second, round_trip_ms, loss_percent }))
    }
}

impl fmt::Display for Link {
    #[expect(clippy::cast_precision_loss, reason = "rates far below 52 bits")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Emulated(spec) = self else { return f.write_str("loopback") };
        let bits = spec.bits_per_second as f64;
        let (unit, factor) = UNITS.into_iter().find(|(_, factor)| bits >= *factor).unwrap_or(UNITS[2]);
        write!(f, "{}{unit}/{}ms", bits / factor, spec.round_trip_ms)?;
        if spec.loss_percent > 0.0 {
            write!(f, "/{}%", spec.loss_percent)?;
        }
        Ok(())
    }
}

impl TryFrom<String> for Link {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Link> for String {
    fn from(link: Link) -> Self {
        link.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::{Link, LinkSpec};

    fn link(text: &str) -> Link {
        text.parse().expect("a link")
    }

    #[test]
    fn a_link_is_loopback_or_rate_round_trip_and_loss() {
        let spec = LinkSpec { bits_per_second: 20_000_000, round_trip_ms: 50.0, loss_percent: 0.0 };
        assert_eq!(link("20mbit/50ms"), Link::Emulated(spec));
        assert_eq!(link("Loopback"), Link::Loopback);
    }

    #[test]
    fn a_links_text_is_that_of_the_command_line() {
        for text in ["loopback", "20mbit/50ms", "1.5mbit/0.2ms", "640kbit/100ms/0.5%"] {
            assert_eq!(link(text).to_string(), text);
        }
        assert_eq!(link("0.1Gbit / 20ms").to_string(), "100mbit/20ms");
        let json = serde_json::to_string(&link("5mbit/100ms")).expect("JSON");
        assert_eq!(json, "\"5mbit/100ms\"");
        assert_eq!(serde_json::from_str::<Link>(&json).expect("a link"), link("5mbit/100ms"));
    }

    #[test]
    fn what_is_no_link_is_refused() {
        let wrong = [
            "",
            "lo",
            "20mbit",
            "20/50ms",
            "20mbit/50",
            "20mbit,50ms",
            "20mbit/50ms/1",
            "0mbit/1ms",
            "-1mbit/1ms",
            "nanmbit/1ms",
            "infmbit/1ms",
            "1gbit/1ms",
            "20mbit/-1ms",
            "20mbit/1e9ms",
            "20mbit/50ms/100%",
            "20mbit/50ms/1%/x",
        ];
        for text in wrong {
            assert!(text.parse::<Link>().is_err(), "{text}");
        }
    }
}
