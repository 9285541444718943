//! Faults: what the reader of an error can do about it.
//!
//! Every error type of the crate answers with one [`Fault`]. Retries, exit codes, the codes on the
//! wire and the hint of the command line follow from it, never from an error's text.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What can be done about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The request or its input is wrong: change it.
    Input,
    /// Something named does not exist: look for it.
    Missing,
    /// The token or the key does not allow this: ask for another.
    Denied,
    /// Stored or received bytes are damaged: repair or send them again.
    Corrupt,
    /// The peer or the system failed for now: try again.
    Retry,
    /// A disk or a limit is full: make room.
    Full,
    /// The two sides speak different versions: update one.
    Version,
    /// Interrupted by the user.
    Interrupted,
    /// A mistake in whit: report it.
    Bug,
}

impl Fault {
    /// All faults, in the order of their codes.
    pub const ALL: [Self; 9] = [
        Self::Bug,
        Self::Input,
        Self::Missing,
        Self::Denied,
        Self::Corrupt,
        Self::Retry,
        Self::Full,
        Self::Version,
        Self::Interrupted,
    ];

    /// Returns the process exit code: 2 for input (as for wrong usage), 130 for SIGINT and SIGTERM, else 1 and 3 to 8.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Bug => 1,
            Self::Input => 2,
            Self::Missing => 3,
            Self::Denied => 4,
            Self::Corrupt => 5,
            Self::Retry => 6,
            Self::Full => 7,
            Self::Version => 8,
            Self::Interrupted => 130,
        }
    }

    /// Returns the application error code on QUIC streams and connections.
    pub fn code(self) -> u32 {
        u32::from(self.exit_code())
    }

    /// Returns the fault of a peer's code; an unknown code is worth another try.
    pub fn from_code(code: u64) -> Self {
        Self::ALL.into_iter().find(|fault| u64::from(fault.code()) == code).unwrap_or(Self::Retry)
    }

    /// Sorts an operating system's error.
    pub fn of_io(error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::NotFound => Self::Missing,
            Kind::PermissionDenied | Kind::ReadOnlyFilesystem => Self::Denied,
            Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => Self::Full,
            Kind::InvalidInput
            | Kind::InvalidFilename
            | Kind::AlreadyExists
            | Kind::NotADirectory
            | Kind::IsADirectory
            | Kind::CrossesDevices
            | Kind::TooManyLinks
            | Kind::Unsupported => Self::Input,
            Kind::InvalidData | Kind::UnexpectedEof => Self::Corrupt,
            Kind::Interrupted => Self::Interrupted,
            // The disk cannot read its content: another try does not help.
            _ if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => Self::Corrupt,
            _ => Self::Retry,
        }
    }
}

/// Returns what to do about a system's error on `path`; none where its kind does not say.
pub fn io_hint(error: &io::Error, path: &Path) -> Option<String> {
    use io::ErrorKind as Kind;
    let path = path.display();
    let hint = match error.kind() {
        Kind::NotFound => "check the path: it does not exist".to_owned(),
        Kind::PermissionDenied => format!(
            "give whit's user access: check owner and permissions of {path} and of the folders above it"
        ),
        Kind::ReadOnlyFilesystem => {
            "name a place that can be written to, or mount this one for writing".to_owned()
        }
        Kind::StorageFull => format!("make room on the file system of {path}, or name another place"),
        Kind::QuotaExceeded => format!("make room within the quota of the file system of {path}"),
        Kind::FileTooLarge => "allow larger files (`ulimit -f`), or use another file system".to_owned(),
        Kind::AlreadyExists => format!("move {path} away, or choose another name"),
        Kind::NotADirectory => "check the path: a part of it is not a folder".to_owned(),
        Kind::IsADirectory => "check the path: it is a folder".to_owned(),
        Kind::ResourceBusy => {
            format!(
                "{path} is in use, or something is mounted there: choose a folder inside it, or unmount it"
            )
        }
        Kind::CrossesDevices => "choose a place on the same file system".to_owned(),
        Kind::InvalidFilename => "choose a shorter name".to_owned(),
        Kind::InvalidData => format!("check that {path} is the right file"),
        Kind::Unsupported => format!("use another file system: that of {path} cannot do this"),
        Kind::StaleNetworkFileHandle => format!("mount the file system of {path} again"),
        Kind::OutOfMemory => "allow more memory, then try again".to_owned(),
        _ => match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error)? {
            rustix::io::Errno::MFILE | rustix::io::Errno::NFILE => {
                "allow more open files (`ulimit -n`), then try again".to_owned()
            }
            rustix::io::Errno::IO => "check the system log for errors of this disk".to_owned(),
            rustix::io::Errno::LOOP => "check the path: its symbolic links lead in a circle".to_owned(),
            _ => return None,
        },
    };
    Some(hint)
}

/// An error that answers what its reader can do.
pub trait Faulty: std::error::Error {
    /// Returns what can be done about this error.
    fn fault(&self) -> Fault;

    /// Returns one sentence on what to do next, where it can be more exact than the fault.
    fn hint(&self) -> Option<String> {
        None
    }
}

/// Implements [`Faulty`] by a table: for each variant its fault, and a hint where there is one.
///
/// The variants after `passes on` hold one error that answers for them (`#[error(transparent)]`). Each other row is a
/// pattern, a fault and perhaps a hint: a `&str`, a `String`, or an `Option<String>`. The patterns of all rows must
/// cover the type, as in a `match`.
///
/// ```
/// use whit_ground::faults::{Fault, Faulty, faulty};
///
/// #[derive(Debug, thiserror::Error)]
/// enum Error {
///     #[error(transparent)]
///     Thread(#[from] whit_ground::threads::Error),
///     #[error("there is no application `{0}`")]
///     NoApp(String),
///     #[error("interrupted")]
///     Interrupted,
/// }
///
/// faulty! {
///     Error passes on Thread;
///     Self::NoApp(_) => Fault::Missing, "`whit apps` lists what there is";
///     Self::Interrupted => Fault::Interrupted;
/// }
///
/// assert_eq!(Error::from(whit_ground::threads::Error::Panicked).fault(), Fault::Bug);
/// assert!(Error::NoApp("web".into()).hint().is_some());
/// ```
#[macro_export]
macro_rules! faulty {
    (
        $error:ident $(passes on $($(#[$attribute:meta])* $variant:ident),+)?;
        $($row:pat $(if $guard:expr)? => $fault:expr $(, $hint:expr)?;)*
    ) => {
        #[allow(unused_variables, clippy::match_same_arms, reason = "one table makes two functions")]
        impl $crate::faults::Faulty for $error {
            fn fault(&self) -> $crate::faults::Fault {
                match self {
                    $($($(#[$attribute])* Self::$variant(error) => $crate::faults::Faulty::fault(error),)+)?
                    $($row $(if $guard)? => $fault,)*
                }
            }

            fn hint(&self) -> Option<String> {
                match self {
                    $($($(#[$attribute])* Self::$variant(error) => $crate::faults::Faulty::hint(error),)+)?
                    $($row $(if $guard)? => {
                        let hint = None::<String>;
                        $(let hint = $crate::faults::IntoHint::into_hint($hint);)?
                        hint
                    })*
                }
            }
        }
    };
}

pub use crate::faulty;

/// The forms in which a row of [`faulty!`](crate::faulty) gives its hint.
pub trait IntoHint {
    /// Returns the hint, if there is one.
    fn into_hint(self) -> Option<String>;
}

impl IntoHint for &str {
    fn into_hint(self) -> Option<String> {
        Some(self.to_owned())
    }
}

impl IntoHint for String {
    fn into_hint(self) -> Option<String> {
        Some(self)
    }
}

impl IntoHint for Option<String> {
    fn into_hint(self) -> Option<String> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_fits_the_kind_of_the_systems_error() {
        for (kind, fault, words) in [
            (io::ErrorKind::NotFound, Fault::Missing, "it does not exist"),
            (io::ErrorKind::PermissionDenied, Fault::Denied, "permissions of a/b"),
            (io::ErrorKind::ReadOnlyFilesystem, Fault::Denied, "written to"),
            (io::ErrorKind::StorageFull, Fault::Full, "make room on the file system of a/b"),
            (io::ErrorKind::QuotaExceeded, Fault::Full, "quota"),
            (io::ErrorKind::NotADirectory, Fault::Input, "not a folder"),
            (io::ErrorKind::ResourceBusy, Fault::Retry, "mounted there"),
            (io::ErrorKind::CrossesDevices, Fault::Input, "same file system"),
            (io::ErrorKind::InvalidFilename, Fault::Input, "shorter"),
            (io::ErrorKind::InvalidData, Fault::Corrupt, "the right file"),
        ] {
            let error = io::Error::from(kind);
            let hint = io_hint(&error, Path::new("a/b")).unwrap_or_default();
            assert!(Fault::of_io(&error) == fault && hint.contains(words), "{kind:?}: {hint}");
        }
        let of = |errno: rustix::io::Errno| io_hint(&errno.into(), Path::new("a")).unwrap_or_default();
        assert!(of(rustix::io::Errno::MFILE).contains("ulimit -n"));
        assert!(of(rustix::io::Errno::LOOP).contains("circle"));
        assert_eq!(io_hint(&io::Error::from(io::ErrorKind::TimedOut), Path::new("a")), None);
    }
}
