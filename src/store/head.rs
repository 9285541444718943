//! The newest entry of an application's log, and the entry that each move makes of it.
//!
//! Pure: whoever holds the records' lock asks it and writes the entry down.

use format::current::{BACK_MAX, BAD_MAX, CurrentEntry, MovedBy};
use ground::ids::{ReleaseId, UserName};

/// Who moves the current release, when and why.
#[derive(Debug, Clone, Copy)]
pub struct Mover<'a> {
    /// On whose behalf.
    pub user: &'a UserName,
    /// The token's id in hexadecimal digits; empty where none was needed.
    pub token: &'a str,
    /// Seconds since 1970.
    pub time: u64,
    /// The reason that the user gave.
    pub because: Option<&'a str>,
}

/// An application's current release, as the newest entry of its log has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// The release; none where none is current.
    pub release: Option<ReleaseId>,
    /// Those that were current before, the last one first.
    pub back: Vec<ReleaseId>,
    /// Those that a rollback left, the last one first.
    pub bad: Vec<ReleaseId>,
}

impl From<CurrentEntry> for Head {
    fn from(entry: CurrentEntry) -> Self {
        Self { release: entry.release, back: entry.back, bad: entry.bad }
    }
}

impl Head {
    /// Returns the head of an application without a log: each of its pushes moved it. `newest_first` are its releases.
    pub fn without_log(newest_first: &[ReleaseId]) -> Self {
        let mut rest = newest_first.iter().copied();
        let release = rest.next();
        Self { release, back: rest.take(BACK_MAX).collect(), bad: Vec::new() }
    }

    /// Returns whether a rollback left the release, and nobody has made it current since.
    pub fn is_bad(&self, release: &ReleaseId) -> bool {
        self.bad.contains(release)
    }

    /// Returns the current release: where that one is no longer stored, the last before it that is.
    pub fn current(&self, is_stored: impl Fn(&ReleaseId) -> bool) -> Option<ReleaseId> {
        self.release.filter(&is_stored).or_else(|| self.before(None, is_stored))
    }

    /// Returns the release that a rollback goes to: the last that was current before, is not bad and is stored.
    pub fn previous(&self, is_stored: impl Fn(&ReleaseId) -> bool) -> Option<ReleaseId> {
        self.before(self.current(&is_stored), is_stored)
    }

    fn before(
        &self,
        current: Option<ReleaseId>,
        is_stored: impl Fn(&ReleaseId) -> bool,
    ) -> Option<ReleaseId> {
        let mut back = self.back.iter();
        back.find(|release| Some(**release) != current && !self.is_bad(release) && is_stored(release))
            .copied()
    }

    /// Returns the entry that makes a release current, or none. `record` is the number of the record that is written with it.
    ///
    /// A rollback makes the release that it leaves bad; any other move makes the new one good again.
    pub fn moved(
        &self,
        release: Option<ReleaseId>,
        by: MovedBy,
        record: Option<u64>,
        mover: &Mover<'_>,
    ) -> CurrentEntry {
        let mut back: Vec<ReleaseId> = self.release.into_iter().collect();
        back.extend(self.back.iter().copied().filter(|before| Some(*before) != self.release));
        back.retain(|before| Some(*before) != release);
        back.truncate(BACK_MAX);
        let mut bad = self.bad.clone();
        if by == MovedBy::Rollback {
            bad.retain(|before| Some(*before) != self.release);
            bad.splice(0..0, self.release);
        }
        bad.retain(|before| Some(*before) != release);
        bad.truncate(BAD_MAX);
        CurrentEntry {
            release,
            from: self.release.filter(|from| Some(*from) != release),
            record,
            by,
            user: mover.user.clone(),
            token: mover.token.to_owned(),
            time: mover.time,
            because: mover.because.map(str::to_owned),
            back,
            bad,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(name: char) -> ReleaseId {
        ReleaseId::of(name.to_string().as_bytes())
    }

    /// Plays moves: a letter is a push, `+x` a promote, `<` a rollback; returns the head.
    fn played(moves: &str, gone: &str) -> Head {
        let user = "ada".parse().expect("a name");
        let mover = Mover { user: &user, token: "", time: 0, because: None };
        let is_stored = |found: &ReleaseId| !gone.chars().any(|name| release(name) == *found);
        let (mut head, mut letters) = (Head::default(), moves.chars());
        while let Some(letter) = letters.next() {
            let (to, by) = match letter {
                '<' => (head.previous(is_stored).expect("there is one before"), MovedBy::Rollback),
                '+' => (release(letters.next().expect("a letter")), MovedBy::Promote),
                letter => (release(letter), MovedBy::Push),
            };
            head = head.moved(Some(to), by, None, &mover).into();
        }
        head
    }

    #[test]
    fn a_rollback_goes_to_the_last_that_was_current_and_is_good() {
        let all = |_: &ReleaseId| true;
        for (moves, current, previous) in [
            ("a", 'a', None),
            ("ab", 'b', Some('a')),
            ("abc<", 'b', Some('a')),
            ("abc<<", 'a', None),
            ("abc<d", 'd', Some('b')),
            ("abc<d<", 'b', Some('a')),
            ("ab+a", 'a', Some('b')),
            ("ab+a<", 'b', None),
            // Who promotes a bad release finds it good.
            ("abc<+c", 'c', Some('b')),
            ("abc<+c+a", 'a', Some('c')),
        ] {
            let head = played(moves, "");
            assert_eq!(head.release, Some(release(current)), "{moves}");
            assert_eq!(head.previous(all), previous.map(release), "{moves}");
        }
    }

    #[test]
    fn what_is_not_stored_is_passed_over() {
        let head = played("abcd", "");
        let is_stored =
            |gone: &'static str| move |found: &ReleaseId| !gone.chars().any(|name| release(name) == *found);
        assert_eq!(head.previous(is_stored("c")), Some(release('b')));
        assert_eq!(head.current(is_stored("d")), Some(release('c')));
        assert_eq!(head.previous(is_stored("d")), Some(release('b')));
        assert_eq!(head.current(is_stored("abcd")), None);
        assert_eq!(played("abcd<", "cb").release, Some(release('a')));
    }

    #[test]
    fn an_entry_lists_no_more_than_it_may() {
        let user = "ada".parse().expect("a name");
        let mover = Mover { user: &user, token: "", time: 0, because: None };
        let mut head = Head::default();
        for number in 0..200u64 {
            let new = ReleaseId::of(&number.to_le_bytes());
            head = head.moved(Some(new), MovedBy::Push, Some(number), &mover).into();
        }
        assert_eq!(head.back.len(), BACK_MAX);
        while let Some(before) = head.previous(|_| true) {
            head = head.moved(Some(before), MovedBy::Rollback, None, &mover).into();
        }
        assert_eq!((head.bad.len(), head.previous(|_| true)), (BAD_MAX, None));
    }

    #[test]
    fn an_application_without_a_log_was_moved_by_each_push() {
        let head = Head::without_log(&[release('c'), release('b'), release('a')]);
        assert_eq!((head.release, head.previous(|_| true)), (Some(release('c')), Some(release('b'))));
        assert_eq!(Head::without_log(&[]).current(|_| true), None);
    }
}
