//! A number of members of a group, or a percentage of all.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of members of a group, or a percentage of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// A number of members.
    Members(u32),
    /// Of each hundred; 100 at most.
    Percent(u32),
}

impl Share {
    /// Returns how many of `all` it is, rounded up; a number is `all` at most.
    pub fn rounded_up(self, all: usize) -> usize {
        match self {
            Self::Members(members) => all.min(members as usize),
            Self::Percent(percent) => (all * percent as usize).div_ceil(100),
        }
    }

    /// Returns how many of `all` it is, rounded down; a number is `all` at most.
    pub fn rounded_down(self, all: usize) -> usize {
        match self {
            Self::Members(members) => all.min(members as usize),
            Self::Percent(percent) => all * percent as usize / 100,
        }
    }

    /// Returns whether it is nobody, of however many.
    pub fn is_nobody(self) -> bool {
        matches!(self, Self::Members(0) | Self::Percent(0))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Members(members) => write!(f, "{members}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// As people write it: `3`, or `"25%"`.
impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Members(members) => serializer.serialize_u32(*members),
            Self::Percent(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u32),
            Text(String),
        }
        let percent = |text: &str| text.strip_suffix('%')?.parse().ok().filter(|percent| *percent <= 100);
        match Written::deserialize(deserializer)? {
            Written::Number(members) => Ok(Self::Members(members)),
            Written::Text(text) => percent(&text).map(Self::Percent).ok_or_else(|| {
                serde::de::Error::custom(format!(
                    "`{text}` is neither a number of members nor a percentage like \"25%\""
                ))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_of_few_is_somebody_and_of_many_what_it_says() {
        let batch = |all| [1, 25, 33, 50, 100].map(|percent| Share::Percent(percent).rounded_up(all));
        assert_eq!(batch(1), [1, 1, 1, 1, 1]);
        assert_eq!(batch(2), [1, 1, 1, 1, 2]);
        assert_eq!(batch(3), [1, 1, 1, 2, 3]);
        assert_eq!(batch(7), [1, 2, 3, 4, 7]);
        assert_eq!(batch(100), [1, 25, 33, 50, 100]);
        assert_eq!(Share::Percent(25).rounded_down(7), 1);
        assert_eq!(Share::Members(5).rounded_up(3), 3);
    }
}
