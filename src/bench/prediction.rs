//! How long bytes and round trips take over a link that is not here.
//!
//! ```text
//! seconds = round trips x round trip time + 8 x (bytes up + bytes down) / rate
//! ```
//!
//! The handshake is among the round trips. Left out, for every tool alike: the work at both ends, the
//! time that a congestion window takes to open, losses, and headers below the bytes that are counted.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::measurement::Measurement;

/// A link: its rate each way, round trip time and loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LinkSpec {
    /// Bits a second, each way.
    pub bits_per_second: u64,
    /// The time of a round trip, milliseconds.
    pub round_trip_ms: f64,
    /// Packets lost at random, each way, in percent. Only the emulated link uses it.
    pub loss_percent: f64,
}

impl LinkSpec {
    /// Returns the time of a round trip.
    pub fn round_trip(&self) -> Duration {
        Duration::from_secs_f64(self.round_trip_ms / 1e3)
    }

    /// Returns the seconds that a run takes over the link; `None` where its round trips are unknown.
    #[expect(clippy::cast_precision_loss, reason = "a prediction needs no more than 52 bits")]
    pub fn predict(&self, run: &Measurement) -> Option<f64> {
        let transfer = run.bytes() as f64 * 8.0 / self.bits_per_second as f64;
        Some(f64::from(run.round_trips?) * self.round_trip_ms / 1e3 + transfer)
    }
}

/// Accepted bits a second: more than an emulation in user space carries.
const RATES: std::ops::RangeInclusive<f64> = 1e3..=1e12;
/// The longest accepted round trip: a minute.
const ROUND_TRIP_MS_MAX: f64 = 60_000.0;

impl FromStr for LinkSpec {
    type Err = Error;

    /// Parses `20mbit,50ms` or `100mbit,50ms,0.5%`: rate, round trip time, loss.
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |reason| Error::Link { text: text.to_owned(), reason };
        let parts: Vec<String> = text.split(',').map(|part| part.trim().to_ascii_lowercase()).collect();
        let (rate, trip, loss) = match parts.as_slice() {
            [rate, trip] => (rate, trip, None),
            [rate, trip, loss] => (rate, trip, Some(loss)),
            _ => return Err(wrong("it is a rate, a round trip time, and perhaps a loss")),
        };
        let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
        let rates = [("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9)];
        let bits = rates.iter().find_map(|(unit, factor)| Some(number(rate.strip_suffix(unit)?)? * factor));
        let bits = bits.filter(|bits| RATES.contains(bits));
        let bits = bits.ok_or_else(|| wrong("the rate is a number with kbit, mbit or gbit"))?;
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
        Ok(Self { bits_per_second: bits.round() as u64, round_trip_ms, loss_percent })
    }
}

impl fmt::Display for LinkSpec {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} Mbit/s, {} ms", self.bits_per_second as f64 / 1e6, self.round_trip_ms)?;
        if self.loss_percent > 0.0 {
            write!(f, ", {} % loss", self.loss_percent)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::LinkSpec;
    use crate::measurement::{Load, Measurement};

    fn link(text: &str) -> LinkSpec {
        text.parse().expect("a link")
    }

    #[test]
    fn a_link_is_rate_round_trip_and_loss() {
        let spec = link("20mbit,50ms");
        assert_eq!(spec, LinkSpec { bits_per_second: 20_000_000, round_trip_ms: 50.0, loss_percent: 0.0 });
        assert_eq!(link("1.5Gbit, 0.2ms ,0.5%").to_string(), "1500 Mbit/s, 0.2 ms, 0.5 % loss");
        assert_eq!(spec.to_string(), "20 Mbit/s, 50 ms");
    }

    #[test]
    fn what_is_no_link_is_refused() {
        let wrong = [
            "",
            "20mbit",
            "20,50ms",
            "20mbit,50",
            "20mbit,50ms,1",
            "0mbit,1ms",
            "-1mbit,1ms",
            "nanmbit,1ms",
            "infmbit,1ms",
            "20mbit,-1ms",
            "20mbit,1e9ms",
            "20mbit,50ms,100%",
            "20mbit,50ms,1%,x",
        ];
        for text in wrong {
            assert!(text.parse::<LinkSpec>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_prediction_is_round_trips_and_bytes_over_the_rate() {
        let sender = Load { cpu_seconds: 1.0, peak_bytes: 1 };
        let run = Measurement {
            up_bytes: 2_000_000,
            down_bytes: 500_000,
            round_trips: Some(3),
            wall_seconds: 9.0,
            sender,
            receiver: None,
        };
        // 3 x 0.05 s and 20 Mbit over 20 Mbit/s.
        let seconds = link("20mbit,50ms").predict(&run).expect("round trips are known");
        assert!((seconds - 1.15).abs() < 1e-9, "{seconds}");
        assert_eq!(link("20mbit,50ms").predict(&Measurement { round_trips: None, ..run }), None);
    }
}
