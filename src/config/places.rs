//! Finds folders of a configuration that are the same or lie in one another.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use crate::delivery::destination::{PLACEHOLDER, Template};
use ground::ids::AppName;

/// The relation of two folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// Both are the same folder.
    Same,
    /// The first lies inside the other.
    Inside,
    /// The first holds the other.
    Holds,
}

/// Returns how `one` relates to `other` where they overlap, and the application for which they do; no application where
/// they overlap for all.
///
/// Either path may contain `{app}`. Tries the applications whose names make a part of one path equal to a part of the
/// other, and one arbitrary name: `/srv/{app}` and `/srv/web` overlap for `web`, `/srv/{app}` and `/srv/{app}-next` for
/// none. Follows existing links.
pub fn relation(one: &Template, other: &Template) -> Option<(Relation, Option<AppName>)> {
    let mut apps = shared_names(one, other);
    apps.extend(shared_names(other, one));
    apps.extend("app".parse());
    apps.into_iter().find_map(|app| {
        let (first, second) = (resolved(&one.of(&app)), resolved(&other.of(&app)));
        let relation = if first == second {
            Relation::Same
        } else if first.starts_with(&second) {
            Relation::Inside
        } else if second.starts_with(&first) {
            Relation::Holds
        } else {
            return None;
        };
        let depends = one.depends_on_app() || other.depends_on_app();
        Some((relation, depends.then_some(app)))
    })
}

/// Returns the applications whose names make a part of `template` equal to the part of `path` in the same place.
fn shared_names(template: &Template, path: &Template) -> Vec<AppName> {
    let name = |(part, of_path): (Component<'_>, Component<'_>)| {
        let (before, after) = part.as_os_str().to_str()?.split_once(PLACEHOLDER)?;
        let inner = of_path.as_os_str().to_str()?.strip_prefix(before)?.strip_suffix(after)?;
        inner.parse().ok()
    };
    template.as_path().components().zip(path.as_path().components()).filter_map(name).collect()
}

/// Returns the path with existing links followed; `..` goes up from where they lead.
fn resolved(path: &Path) -> PathBuf {
    let mut missing: Vec<OsString> = Vec::new();
    let mut there = path.to_owned();
    let mut found = loop {
        if let Ok(found) = there.canonicalize() {
            break found;
        }
        let Some(last) = there.components().next_back().map(|part| part.as_os_str().to_owned()) else {
            break PathBuf::new();
        };
        missing.push(last);
        if !there.pop() {
            break there;
        }
    };
    for part in missing.iter().rev() {
        if part == ".." {
            found.pop();
        } else {
            found.push(part);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_meet_for_the_applications_that_make_them_meet() {
        let of = |one: &str, other: &str| {
            let met = relation(&Template::new(one), &Template::new(other));
            met.map(|(relation, app)| (relation, app.map(|app| app.to_string()).unwrap_or_default()))
        };
        let met = |relation, app: &str| Some((relation, app.to_owned()));
        assert_eq!(of("/nowhere/a", "/nowhere/a/"), met(Relation::Same, ""));
        assert_eq!(of("/nowhere/a/../b", "/nowhere/b"), met(Relation::Same, ""));
        assert_eq!(of("/nowhere/a/b", "/nowhere/a"), met(Relation::Inside, ""));
        assert_eq!(of("/nowhere/a", "/nowhere/ab"), None);
        assert_eq!(of("/nowhere/{app}", "/nowhere/web"), met(Relation::Same, "web"));
        assert_eq!(of("/nowhere/web/{app}", "/nowhere/{app}"), met(Relation::Inside, "web"));
        assert_eq!(of("/nowhere/{app}", "/nowhere/{app}"), met(Relation::Same, "app"));
        assert_eq!(of("/nowhere/{app}", "/nowhere/{app}-next"), None);
        assert_eq!(of("/nowhere/{app}", "/nowhere/data/x"), met(Relation::Holds, "data"));
        assert_eq!(of("/", "/nowhere/data"), met(Relation::Holds, ""));
    }

    #[test]
    fn links_are_followed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        std::fs::create_dir(&real).expect("created");
        std::os::unix::fs::symlink("real", &link).expect("linked");
        assert_eq!(
            relation(&Template::new(real.join("x")), &Template::new(link)),
            Some((Relation::Inside, None))
        );
    }
}
