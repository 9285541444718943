//! Judges where symbolic links lead, and checks hard links.

use std::collections::{HashMap, HashSet};

use super::{EntryPath, Error};
use ground::limits::{LINKS_MAX, PATH_BYTES_MAX};

/// The side of the release's border to which a symbolic link leads, judged by its target alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leads {
    /// Inside the release, whatever other links there are: `..` is only at the target's start, and at most as often as the
    /// link is deep. As an entry's parents are real directories, such a link starts at its real place and goes up only
    /// within the release.
    Inside,
    /// Inside, unless a path that it names before a `..` is another link: `a/b/../../x`.
    Winding,
    /// Outside: it is absolute, or goes up too often.
    Outside,
}

/// Judges where a symbolic link at `path` with this `target` leads.
pub fn leads(path: &EntryPath, target: &[u8]) -> Leads {
    if target.first() == Some(&b'/') {
        return Leads::Outside;
    }
    // The depth below the top, and whether a name has come.
    let (mut depth, mut named, mut winding) = (path.depth() - 1, false, false);
    for component in target.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                winding |= named;
                let Some(above) = depth.checked_sub(1) else { return Leads::Outside };
                depth = above;
            }
            _ => (depth, named) = (depth + 1, true),
        }
    }
    if winding { Leads::Winding } else { Leads::Inside }
}

/// Returns the paths, from the top, that a link names before its last `..`: if one of them is a link too, this one leads
/// elsewhere.
pub fn wound_through(path: &EntryPath, target: &[u8]) -> Vec<Vec<u8>> {
    let components: Vec<&[u8]> = target.split(|byte| *byte == b'/').collect();
    let last = components.iter().rposition(|component| *component == b"..").unwrap_or(0);
    let mut at: Vec<&[u8]> =
        path.parent().map_or_else(Vec::new, |parent| parent.split(|byte| *byte == b'/').collect());
    let mut through = Vec::new();
    for component in &components[..last] {
        match *component {
            b"" | b"." => {}
            b".." => drop(at.pop()),
            name => {
                at.push(name);
                through.push(at.join(&b'/'));
            }
        }
    }
    through
}

/// A path's hash in memory: nobody can find two paths with the same one.
type Short = [u8; 16];

fn short(path: &[u8]) -> Short {
    *blake3::hash(path).as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// The links of a release that a reader must remember.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// All symbolic links.
    symbolic: HashSet<Short>,
    /// Paths that winding links name before a `..`, and the first such link, for the error.
    wound: HashMap<Short, (EntryPath, Vec<u8>)>,
    /// Files with further names, and whether one of these came.
    linked: HashMap<Short, bool>,
}

impl Links {
    /// Adds a link that must not lead outside.
    ///
    /// # Errors
    /// It leads outside, or may do so through another link.
    pub fn inside(&mut self, path: &EntryPath, target: &[u8]) -> Result<(), Error> {
        let refused = || Err(Error::Link { path: path.clone(), target: target.to_vec() });
        if !is_target(target) {
            return refused();
        }
        match leads(path, target) {
            Leads::Inside => {}
            Leads::Outside => return refused(),
            Leads::Winding => {
                for through in wound_through(path, target) {
                    let through = short(&through);
                    if self.symbolic.contains(&through) {
                        return refused();
                    }
                    self.wound.entry(through).or_insert_with(|| (path.clone(), target.to_vec()));
                }
                bounded(self.wound.len(), WINDING_MAX)?;
            }
        }
        self.symbolic(path)
    }

    /// Adds a link that may lead outside.
    ///
    /// # Errors
    /// It is malformed, or never leads outside and so must be an ordinary link.
    pub fn outside(&mut self, path: &EntryPath, target: &[u8]) -> Result<(), Error> {
        if !is_target(target) || leads(path, target) == Leads::Inside {
            return Err(Error::Link { path: path.clone(), target: target.to_vec() });
        }
        self.symbolic(path)
    }

    fn symbolic(&mut self, path: &EntryPath) -> Result<(), Error> {
        let path = short(path.as_bytes());
        if let Some((path, target)) = self.wound.remove(&path) {
            return Err(Error::Link { path, target });
        }
        self.symbolic.insert(path);
        bounded(self.symbolic.len(), LINKS_MAX)
    }

    /// Adds a file that announces further names.
    pub fn linked(&mut self, path: &EntryPath) -> Result<(), Error> {
        self.linked.insert(short(path.as_bytes()), false);
        bounded(self.linked.len(), LINKS_MAX)
    }

    /// Adds a further name of a file.
    pub fn hard(&mut self, path: &EntryPath, target: &EntryPath) -> Result<(), Error> {
        let Some(found) = self.linked.get_mut(&short(target.as_bytes())) else {
            return Err(Error::HardLink { path: path.clone(), target: target.clone() });
        };
        *found = true;
        Ok(())
    }

    /// Checks all links at the release's end.
    pub fn finish(&self) -> Result<(), Error> {
        match self.linked.values().filter(|found| !**found).count() {
            0 => Ok(()),
            count => Err(Error::Unlinked(count)),
        }
    }

    /// Returns whether no file has further names.
    pub fn is_empty(&self) -> bool {
        self.linked.is_empty()
    }
}

/// Paths that winding links of one release name before a `..`, at most: such links are rare.
const WINDING_MAX: usize = 64 * 1024;

fn bounded(count: usize, max: usize) -> Result<(), Error> {
    if count <= max { Ok(()) } else { Err(Error::TooManyLinks(max)) }
}

fn is_target(target: &[u8]) -> bool {
    !target.is_empty() && target.len() <= PATH_BYTES_MAX && !target.contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> EntryPath {
        EntryPath::new(text).expect("a plain path")
    }

    #[test]
    fn a_link_is_judged_by_where_it_leads() {
        for (at, target, expected) in [
            ("a", "b", Leads::Inside),
            ("a", "../b", Leads::Outside),
            ("d/a", "../b", Leads::Inside),
            ("d/a", "../../b", Leads::Outside),
            ("a", "/etc/passwd", Leads::Outside),
            ("a", "b/../../c", Leads::Outside),
            ("a", "b/../c", Leads::Winding),
            ("a", "b/c/../../x", Leads::Winding),
            ("d/e/a", "../../x/y", Leads::Inside),
            ("d/a", ".././b", Leads::Inside),
        ] {
            assert_eq!(leads(&path(at), target.as_bytes()), expected, "{at} -> {target}");
        }
    }

    #[test]
    fn a_winding_link_through_another_link_is_refused_whichever_comes_first() {
        let mut links = Links::default();
        links.inside(&path("d/e/s"), b"..").expect("inside");
        assert!(links.inside(&path("d/l"), b"e/s/../../x").is_err(), "it leads to ../x");
        let mut links = Links::default();
        links.inside(&path("d/l"), b"e/z/../../x").expect("not yet");
        assert!(links.inside(&path("d/e/z"), b"..").is_err());
        let mut links = Links::default();
        links.inside(&path("d/l"), b"e/z/../../x").expect("through directories");
        links.inside(&path("d/x"), b"e").expect("what follows the last `..` may be a link");
        links.finish().expect("all is well");
    }

    #[test]
    fn empty_and_endless_targets_are_refused() {
        for target in [&b""[..], &[b'x'; PATH_BYTES_MAX + 1], b"a\0b"] {
            assert!(Links::default().inside(&path("a"), target).is_err());
            assert!(Links::default().outside(&path("a"), target).is_err());
        }
        assert!(Links::default().outside(&path("a"), b"b").is_err(), "it has another form");
        Links::default().outside(&path("a"), b"/usr/bin/python3").expect("it leads outside");
    }

    #[test]
    fn a_hard_link_names_a_file_that_says_so() {
        let mut links = Links::default();
        assert!(links.hard(&path("b"), &path("a")).is_err());
        links.linked(&path("a")).expect("few");
        assert_eq!(links.finish(), Err(Error::Unlinked(1)));
        links.hard(&path("b"), &path("a")).expect("a file's");
        links.finish().expect("all is well");
    }
}
