//! A command and its variables, as a configuration gives them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// A mistake in the definition of a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mistake {
    /// No program.
    #[error("a command needs a program")]
    Empty,
    /// A program by a path that depends on the working folder.
    #[error("`{0}` is not an absolute path, nor a name that PATH finds")]
    Relative(PathBuf),
    /// Text that the system cannot pass on.
    #[error("a zero byte cannot be passed to a command")]
    Zero,
    /// A name that is no variable, or one of whit's own.
    #[error("`{0}` cannot be set for a command")]
    Variable(String),
}

impl Mistake {
    /// Returns what to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Empty => {
                "give the program and its arguments, like [\"/usr/local/bin/deploy\", \"--quick\"]"
            }
            Self::Relative(_) => "give the absolute path, starting with /",
            Self::Zero => "leave it out",
            Self::Variable(_) => "names have no `=`, and those that start with WHIT_ are whit's own",
        }
    }
}

/// A program and its arguments. No shell reads them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct CommandLine(Vec<String>);

impl CommandLine {
    /// Checks what the type cannot say.
    ///
    /// # Errors
    /// The mistake.
    pub fn check(&self) -> Result<(), Mistake> {
        let program = self.program();
        if program.as_os_str().is_empty() {
            return Err(Mistake::Empty);
        }
        if !program.is_absolute() && program.components().count() > 1 {
            return Err(Mistake::Relative(program.to_owned()));
        }
        if self.0.iter().any(|word| word.contains('\0')) { Err(Mistake::Zero) } else { Ok(()) }
    }

    /// Returns the program; empty if there is none.
    pub fn program(&self) -> &Path {
        Path::new(self.0.first().map_or("", String::as_str))
    }

    /// Returns the arguments.
    pub fn arguments(&self) -> Vec<OsString> {
        self.0.iter().skip(1).map(OsString::from).collect()
    }
}

/// Variables that a command gets besides PATH, HOME, LANG and whit's own.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Variables(BTreeMap<String, String>);

impl Variables {
    /// Checks what the type cannot say.
    ///
    /// # Errors
    /// The mistake.
    pub fn check(&self) -> Result<(), Mistake> {
        if self.0.values().any(|value| value.contains('\0')) {
            return Err(Mistake::Zero);
        }
        check_names(self.0.keys())
    }

    /// Returns them, and those of the proxy's own that `passed` names, followed by whit's own.
    pub fn with(&self, passed: &[String], own: &[(&str, OsString)]) -> Vec<(OsString, OsString)> {
        let passed = passed.iter().filter_map(|name| Some((name.into(), std::env::var_os(name)?)));
        let given = self.0.iter().map(|(name, value)| (name.into(), value.into()));
        let own = own.iter().map(|(name, value)| ((*name).into(), value.clone()));
        passed.chain(given).chain(own).collect()
    }
}

/// Checks names of variables.
///
/// # Errors
/// [`Mistake::Variable`] has the first that is none, or whit's own.
pub fn check_names<'a>(names: impl IntoIterator<Item = &'a String>) -> Result<(), Mistake> {
    let is_bad = |name: &&String| name.is_empty() || name.contains(['=', '\0']) || name.starts_with("WHIT_");
    names.into_iter().find(is_bad).map_or(Ok(()), |name| Err(Mistake::Variable(name.clone())))
}

/// Values may be secrets.
impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
