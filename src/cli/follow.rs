//! Lists that a command prints once, or follows.

use std::collections::BTreeMap;

use super::access::AccessArgs;
use super::error::Error;
use super::output::Output;
use super::progress::waiting;
use crate::agent::Session;
use crate::delivery::destination::Destinations;
use protocol::wire::{Answer, Operation};

/// A row of a list that changes.
pub trait Row: Sized {
    /// What stays the same while it changes. Rows are listed in its order.
    type Key: Ord;

    /// Returns the rows of a part of an answer.
    fn of(answer: Answer) -> Vec<Self>;
    /// Returns its key.
    fn key(&self) -> Self::Key;
    /// Returns whether it changes no more.
    fn has_ended(&self) -> bool;
    /// Returns whether it says nothing that `before` did not say.
    fn is_same(&self, before: &Self) -> bool;
}

/// The rows that came, each as it was last seen. The proxy bounds how many there are.
#[derive(Debug)]
pub struct Rows<R: Row>(BTreeMap<R::Key, R>);

impl<R: Row> Rows<R> {
    /// Asks for what there is.
    ///
    /// # Errors
    /// The session's.
    pub async fn read(session: &Session, question: &Operation) -> Result<Self, Error> {
        let mut rows = Self(BTreeMap::new());
        let take = |answer| {
            for row in R::of(answer) {
                rows.note(row);
            }
        };
        session.ask(question, take).await?;
        Ok(rows)
    }

    /// Returns whether a row is news: a proxy lists everything again to whoever falls behind or comes back.
    fn is_news(&self, row: &R) -> bool {
        self.0.get(&row.key()).is_none_or(|before| !row.is_same(before))
    }

    fn note(&mut self, row: R) {
        self.0.insert(row.key(), row);
    }

    /// Returns all rows.
    pub fn all(&self) -> impl Iterator<Item = &R> {
        self.0.values()
    }

    /// Returns the rows that have not ended, and the `last` of those that have.
    pub fn last(&self, last: usize) -> Vec<&R> {
        let mut left_out = self.all().filter(|row| row.has_ended()).count().saturating_sub(last);
        let stays = |row: &&R| {
            let is_old = row.has_ended() && left_out > 0;
            left_out -= usize::from(is_old);
            !is_old
        };
        self.all().filter(stays).collect()
    }
}

/// Asks once for a list.
///
/// # Errors
/// The session's.
pub async fn list<R: Row>(
    access: &AccessArgs,
    question: &Operation,
    output: &Output,
) -> Result<Rows<R>, Error> {
    let open = access.open(output, Destinations::new()).await?;
    let _waiting = waiting(output, "waiting for the answer");
    open.run(async |session| Rows::read(session, question).await).await
}

/// Prints the `last` rows of the list that `once` asks for, then each change that `on` asks for, until Ctrl-C.
///
/// # Errors
/// The session's; standard output does not take a line.
pub async fn watch<R: Row>(
    access: &AccessArgs,
    (once, on): (&Operation, &Operation),
    last: usize,
    output: &Output,
    print: impl Fn(&R) -> Result<(), Error>,
) -> Result<(), Error> {
    let open = access.open(output, Destinations::new()).await?;
    let patience = open.patience;
    open.run(async |session| {
        let mut rows: Rows<R> = {
            let _waiting = waiting(output, "waiting for the answer");
            Rows::read(session, once).await?
        };
        rows.last(last).into_iter().try_for_each(&print)?;
        let mut printed = Ok(());
        let take = |answer| {
            for row in R::of(answer) {
                if printed.is_ok() && rows.is_news(&row) {
                    printed = print(&row);
                }
                rows.note(row);
            }
            printed.is_ok()
        };
        let followed = session.follow(on, patience, |text| output.note(text), take).await;
        printed?;
        Ok(followed?)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number, a state, and whether it has ended.
    #[derive(Debug, Clone, Copy, PartialEq)]
    struct Numbered(u64, &'static str, bool);

    impl Row for Numbered {
        type Key = u64;

        fn of(_: Answer) -> Vec<Self> {
            Vec::new()
        }

        fn key(&self) -> u64 {
            self.0
        }

        fn has_ended(&self) -> bool {
            self.2
        }

        fn is_same(&self, before: &Self) -> bool {
            self.1 == before.1
        }
    }

    #[test]
    fn a_list_has_what_goes_on_and_the_last_that_ended_and_the_same_again_is_no_news() {
        let mut rows = Rows(BTreeMap::new());
        for number in 1..=5 {
            rows.note(Numbered(number, "queued", number != 2));
        }
        let numbers = |last| rows.last(last).iter().map(|row| row.0).collect::<Vec<_>>();
        assert_eq!([numbers(0), numbers(2), numbers(20)], [vec![2], vec![2, 4, 5], vec![1, 2, 3, 4, 5]]);
        assert!(!rows.is_news(&Numbered(2, "queued", true)));
        assert!(rows.is_news(&Numbered(2, "made", true)) && rows.is_news(&Numbered(6, "queued", false)));
    }
}
