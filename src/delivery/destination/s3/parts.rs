//! A large object that is sent in parts, of which several are under way at a time.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use object_store::{MultipartUpload, PutResult};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::super::Error;
use super::super::driver::Driver;

/// An upload under way. Whoever does not complete it aborts it: its parts cost money.
pub(super) struct Parts<'a> {
    upload: Box<dyn MultipartUpload>,
    driver: &'a Driver,
    cancelled: &'a AtomicBool,
    /// One for each part, of any object, that may be under way.
    turns: &'a Arc<Semaphore>,
    under_way: Vec<Part>,
    /// Is told of bytes that were taken.
    sent: &'a (dyn Fn(u64) + Sync),
    /// Gives an error of the service its name.
    failed: &'a dyn Fn(&object_store::Error) -> Error,
}

/// A part that is being sent.
struct Part {
    sending: JoinHandle<object_store::Result<()>>,
    bytes: u64,
}

impl<'a> Parts<'a> {
    /// Starts with an upload that has no parts yet.
    pub fn new(
        upload: Box<dyn MultipartUpload>,
        (driver, cancelled): (&'a Driver, &'a AtomicBool),
        turns: &'a Arc<Semaphore>,
        sent: &'a (dyn Fn(u64) + Sync),
        failed: &'a dyn Fn(&object_store::Error) -> Error,
    ) -> Self {
        Self { upload, driver, cancelled, turns, under_way: Vec::new(), sent, failed }
    }

    /// Begins to send the next part, once it has its turn.
    ///
    /// # Errors
    /// An earlier part was not taken, or the delivery was cancelled.
    pub fn put(&mut self, part: Vec<u8>) -> Result<(), Error> {
        let turn = Arc::clone(self.turns).acquire_owned();
        let turn = self
            .driver
            .run(self.cancelled, async { Ok(turn.await.expect("nobody closes the semaphore")) })?;
        while let Some(ended) = self.under_way.iter().position(|part| part.sending.is_finished()) {
            let part = self.under_way.swap_remove(ended);
            self.taken(part)?;
        }
        let bytes = part.len() as u64;
        let taken = self.upload.put_part(part.into());
        let sending = self.driver.start(async move {
            let taken = taken.await;
            drop(turn);
            taken
        })?;
        self.under_way.push(Part { sending, bytes });
        Ok(())
    }

    /// Waits for all parts, and makes them the object.
    ///
    /// # Errors
    /// A part was not taken, the service refuses the object, or the delivery was cancelled.
    pub fn complete(&mut self) -> Result<PutResult, Error> {
        while let Some(part) = self.under_way.pop() {
            self.taken(part)?;
        }
        let (upload, failed) = (&mut self.upload, self.failed);
        self.driver.run(self.cancelled, async { upload.complete().await.map_err(|error| failed(&error)) })
    }

    /// Gives the upload up, with what was sent of it.
    pub fn abort(mut self) {
        let never = AtomicBool::new(false);
        for part in &self.under_way {
            part.sending.abort();
        }
        // What arrives after the abort would stay.
        let aborted = self.driver.run(&never, async {
            for part in self.under_way.drain(..) {
                drop(part.sending.await);
            }
            Ok(self.upload.abort().await)
        });
        drop(aborted);
    }

    /// Waits until a part is taken.
    fn taken(&self, part: Part) -> Result<(), Error> {
        let Part { mut sending, bytes } = part;
        let taken = self.driver.run(self.cancelled, async { Ok((&mut sending).await) });
        if taken.is_err() {
            sending.abort();
        }
        match taken? {
            Ok(taken) => taken.map_err(|error| (self.failed)(&error))?,
            Err(_) => return Err(Error::Cancelled),
        }
        (self.sent)(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use object_store::{Extensions, PutPayload, Result, UploadPart};
    use tokio::sync::Barrier;

    use super::*;

    /// What a service of the test sees.
    #[derive(Debug)]
    struct Seen {
        /// Parts are answered in groups of so many.
        together: Barrier,
        now: AtomicUsize,
        most: AtomicUsize,
        completed: AtomicUsize,
        aborted: AtomicUsize,
    }

    /// An upload whose part of a number is refused, if there is such a number.
    #[derive(Debug)]
    struct Upload {
        seen: Arc<Seen>,
        begun: usize,
        refused: Option<usize>,
    }

    type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

    impl MultipartUpload for Upload {
        fn put_part(&mut self, _: PutPayload) -> UploadPart {
            let (seen, is_refused) = (Arc::clone(&self.seen), self.refused == Some(self.begun));
            self.begun += 1;
            Box::pin(async move {
                let now = seen.now.fetch_add(1, Ordering::SeqCst) + 1;
                seen.most.fetch_max(now, Ordering::SeqCst);
                seen.together.wait().await;
                seen.now.fetch_sub(1, Ordering::SeqCst);
                if is_refused {
                    Err(object_store::Error::NotImplemented {
                        operation: String::new(),
                        implementer: String::new(),
                    })
                } else {
                    Ok(())
                }
            })
        }

        fn complete<'a, 'b>(&'a mut self) -> Answer<'b, PutResult>
        where
            'a: 'b,
            Self: 'b,
        {
            self.seen.completed.fetch_add(1, Ordering::SeqCst);
            Box::pin(async {
                Ok(PutResult { e_tag: None, version: None, extensions: Extensions::default() })
            })
        }

        fn abort<'a, 'b>(&'a mut self) -> Answer<'b, ()>
        where
            'a: 'b,
            Self: 'b,
        {
            self.seen.aborted.fetch_add(1, Ordering::SeqCst);
            Box::pin(async { Ok(()) })
        }
    }

    /// Sends parts of 10 bytes, four at a time; returns what the service saw, whether all went well, and the bytes told of.
    fn send(parts: usize, together: usize, refused: Option<usize>) -> (Arc<Seen>, bool, u64) {
        let seen = Arc::new(Seen {
            together: Barrier::new(together),
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            completed: AtomicUsize::new(0),
            aborted: AtomicUsize::new(0),
        });
        let (driver, never, turns) = (Driver::default(), AtomicBool::new(false), Arc::new(Semaphore::new(4)));
        let told = AtomicU64::new(0);
        let sent = |bytes| {
            told.fetch_add(bytes, Ordering::SeqCst);
        };
        let failed = |_: &_| Error::Cancelled;
        let upload = Box::new(Upload { seen: Arc::clone(&seen), begun: 0, refused });
        let mut upload = Parts::new(upload, (&driver, &never), &turns, &sent, &failed);
        let given = (0..parts).try_for_each(|_| upload.put(vec![0; 10]));
        let is_complete = given.and_then(|()| upload.complete()).is_ok();
        if !is_complete {
            upload.abort();
        }
        assert_eq!(turns.available_permits(), 4, "every turn is given back");
        (seen, is_complete, told.into_inner())
    }

    #[test]
    fn parts_go_several_at_a_time_and_no_more_than_there_are_turns() {
        // The service answers only once four are there.
        let (seen, is_complete, told) = send(12, 4, None);
        assert!(is_complete);
        assert_eq!((told, seen.most.load(Ordering::SeqCst)), (120, 4));
        assert_eq!(seen.completed.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn an_upload_of_which_a_part_is_refused_is_aborted_and_never_completed() {
        for refused in 0..6 {
            let (seen, is_complete, _) = send(6, 1, Some(refused));
            assert!(!is_complete, "{refused}");
            let ends = (&seen.completed, &seen.aborted);
            assert_eq!((ends.0.load(Ordering::SeqCst), ends.1.load(Ordering::SeqCst)), (0, 1), "{refused}");
        }
    }
}
