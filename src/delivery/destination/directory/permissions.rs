//! Owner, group and modes that an admin gives to all copies.

use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::delivery::destination::Mistake;

/// The longest that a directory service may take to find a name.
const LOOK_UP_TIME_MAX: Duration = Duration::from_secs(10);
/// The longest answer of it that is read: an entry of the account database.
const ENTRY_BYTES_MAX: u64 = 64 * 1024;

/// A user or group, by name or number.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Account {
    /// By its number.
    Number(u32),
    /// By its name, or its number as text.
    Name(String),
}

/// What accounts are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    User,
    Group,
}

impl Kind {
    fn database(self) -> &'static str {
        match self {
            Self::User => "passwd",
            Self::Group => "group",
        }
    }
}

impl Account {
    /// Returns its number: from `/etc/passwd` or `/etc/group`, else from what `getent` asks. Ends within 10 s.
    ///
    /// # Errors
    /// [`Mistake::Account`] for a name that is not known here.
    pub(super) fn number(&self, kind: Kind) -> Result<u32, Mistake> {
        let name = match self {
            Self::Number(number) => return known(*number).ok_or_else(|| unknown(&number.to_string(), kind)),
            Self::Name(name) => name,
        };
        if let Ok(number) = name.parse() {
            return known(number).ok_or_else(|| unknown(name, kind));
        }
        let is_name = !name.is_empty() && !name.starts_with('-') && !name.contains([':', '\n', '\0']);
        let database = format!("/etc/{}", kind.database());
        let number = || {
            let entries = fs::read_to_string(database).unwrap_or_default();
            find(&entries, name).or_else(|| find(&ask(kind, name)?, name))
        };
        is_name.then(number).flatten().and_then(known).ok_or_else(|| unknown(name, kind))
    }
}

/// The last number means "as it is" to the system.
fn known(number: u32) -> Option<u32> {
    (number != u32::MAX).then_some(number)
}

fn unknown(name: &str, kind: Kind) -> Mistake {
    let kind = if kind == Kind::User { "user" } else { "group" };
    Mistake::Account { kind, name: name.to_owned() }
}

/// Returns the number of `name` among entries `NAME:PASSWORD:NUMBER:…`.
fn find(entries: &str, name: &str) -> Option<u32> {
    let entry = entries.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    entry.split(':').nth(1)?.parse().ok()
}

/// Asks for a name that a directory service may know.
fn ask(kind: Kind, name: &str) -> Option<String> {
    let mut command = Command::new("getent");
    command.args([kind.database(), name]).stdin(Stdio::null()).stderr(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).spawn().ok()?;
    let answer = answer(&mut child);
    if answer.is_none() {
        drop(child.kill());
    }
    drop(child.wait());
    answer
}

/// Waits for its end; an entry fits in the pipe, so that it need not be read before.
fn answer(child: &mut Child) -> Option<String> {
    let begun = Instant::now();
    while child.try_wait().ok()?.is_none() {
        if begun.elapsed() > LOOK_UP_TIME_MAX {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut answer = String::new();
    child.stdout.take()?.take(ENTRY_BYTES_MAX).read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Permission bits, in octal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Permissions(u16);

impl Permissions {
    /// Returns the bits.
    pub(super) fn bits(self) -> u16 {
        self.0
    }
}

impl TryFrom<String> for Permissions {
    type Error = Mistake;

    fn try_from(text: String) -> Result<Self, Mistake> {
        let digits = text.strip_prefix("0o").unwrap_or(&text);
        let is_octal = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        let bits = u16::from_str_radix(digits, 8).ok().filter(|bits| is_octal && *bits <= 0o777);
        bits.map(Self).ok_or(Mistake::Permissions(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_name_or_number() {
        let number = |name: &str, kind| Account::Name(name.to_owned()).number(kind).ok();
        assert_eq!((number("root", Kind::User), number("root", Kind::Group)), (Some(0), Some(0)));
        assert_eq!(
            (number("1234", Kind::User), Account::Number(5).number(Kind::Group).ok()),
            (Some(1234), Some(5))
        );
        for unknown in ["", "-x", "no such user", "root:x", "4294967295"] {
            assert_eq!(number(unknown, Kind::User), None, "{unknown}");
        }
        assert_eq!(find("roo:x:1:\nroot:x:2:3\n", "root"), Some(2));
        assert_eq!(find("root:x:many\n", "root"), None);
    }

    #[test]
    fn permissions_are_octal_and_nothing_more() {
        let bits = |text: &str| Permissions::try_from(text.to_owned()).ok().map(Permissions::bits);
        assert_eq!([bits("640"), bits("0640"), bits("0o755")], [Some(0o640), Some(0o640), Some(0o755)]);
        for wrong in ["", "0o", "888", "4755", "2755", "u=rw", "+640", "-1"] {
            assert_eq!(bits(wrong), None, "{wrong}");
        }
    }
}
