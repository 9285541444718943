//! Mistakes that tests make in a store, to prove that such a mistake would be noticed.
//!
//! A store makes one only with the feature `testing`; without it the questions compile to nothing.

/// A mistake that a test can inject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultInjection {
    /// The collector waits for no push.
    NoLeaseWait,
    /// Pushes may count on condemned chunks.
    CondemnedShown,
    /// Appended frames count as durable without a sync.
    NoSync,
    /// A condemned chunk that a push brings again stays condemned.
    BroughtAgainInVain,
    /// A pack whose chunks all have other copies is removed before those are durable.
    EmptiedUnsynced,
    /// A push whose lease lapsed checks its chunks without holding them.
    CheckedUnheld,
    /// A push whose lease lapsed commits without looking at its chunks again.
    LapsedUnchecked,
    /// The proxy rebuilds every archive as another.
    OtherArchives,
}

impl super::Store {
    /// Returns whether a test injects the mistake.
    #[cfg(feature = "testing")]
    pub fn injects(&self, mistake: FaultInjection) -> bool {
        self.options.fault_injection == Some(mistake)
    }

    /// False: only tests make mistakes on purpose.
    #[cfg(not(feature = "testing"))]
    #[inline]
    #[expect(clippy::unused_self, reason = "as with the feature")]
    pub fn injects(&self, _mistake: FaultInjection) -> bool {
        false
    }
}
